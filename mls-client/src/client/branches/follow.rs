//! Following a DeMLS group: the log strictly in order, branches as they come, and bringing gateways what they lack.

use std::collections::{BTreeMap, BTreeSet};

use concordat_proto::{
    convert::log_entry,
    gateway::v1::{
        BranchEvent, OfferBranchEntriesRequest, ReadBranchEntriesRequest, ReadEntriesRequest,
        SubscribeRequest, SubscribeResponse, UploadBranchEntriesRequest, subscribe_response::Event as Told,
    },
    log::v1 as pb,
};
use futures::{FutureExt, StreamExt};
use group_log::{ChainError, EntryId, GroupId, fork::BranchEntry};
use prost::Message;
use tokio::time::{Instant, timeout_at};

use super::super::{Client, retry::Backoff};
use crate::{
    branches::{self, Followed},
    error::Error,
    limits::{
        BRANCH_IDS, CALL_TIMEOUT, FOLLOW_BATCH_ENTRIES, KNOWN_BRANCH_ENTRIES, READ_PAGE_ENTRIES,
        UPLOAD_BRANCH_BYTES,
    },
    store::Status,
    transport::{CallError, CallStream},
    wire,
};

/// The ids in a Side or Late entry.
fn names(entry: &pb::Entry) -> &[bytes::Bytes] {
    match entry.content.as_ref().and_then(|content| content.content.as_ref()) {
        Some(pb::content::Content::Side(side)) => &side.ids,
        Some(pb::content::Content::Late(late)) => &late.ids,
        _ => &[],
    }
}

fn owed_leaves(entry: &pb::Entry) -> Vec<u32> {
    match entry.content.as_ref().and_then(|content| content.content.as_ref()) {
        Some(pb::content::Content::Side(side)) => side.owed_leaf_indices.clone(),
        _ => Vec::new(),
    }
}

impl Client {
    fn follows_branches(&self, group: &GroupId) -> Result<bool, Error> {
        let status = self.record(group)?.status;
        Ok(matches!(status, Status::Active | Status::Joining | Status::Waiting))
    }

    /// Everything that the gateway knows: the log, the branches; and the other way round, what this client knows and it does not.
    pub(in crate::client) async fn refresh(&self, group: &GroupId) -> Result<(), Error> {
        // First, because whoever is removed keeps nothing; and again, for a gateway that lagged behind.
        self.bring_branches(group).await?;
        self.catch_up_branches(group, 0).await?;
        self.bring_branches(group).await?;
        self.look_at_branches(group).await
    }

    /// Reads and applies the log up to entry `seq`; 0: everything that was accepted before the call, or, without a quorum, everything
    /// that the gateway knows.
    pub(in crate::client) async fn catch_up_branches(&self, group: &GroupId, seq: u64) -> Result<(), Error> {
        let mut linearizable = true;
        loop {
            let record = self.record(group)?;
            if !self.follows_branches(group)? || (seq > 0 && record.seq >= seq) {
                return Ok(());
            }
            let request = ReadEntriesRequest {
                group_id: group.to_bytes(),
                cursor: Some(wire::cursor(&record)),
                max_entries: READ_PAGE_ENTRIES,
                linearizable,
            };
            let page = if seq > 0 {
                self.persist(|| self.transport().read_entries(request.clone())).await
            } else {
                self.transport().read_entries(request.clone()).await
            };
            let page = match page {
                Ok(page) => page,
                Err(error) if linearizable && error.is_temporary() => {
                    linearizable = false;
                    continue;
                }
                // A group that only branches know, or a gateway that lags behind: nothing to read here.
                Err(error) if seq == 0 && error.is_temporary() => return Ok(()),
                Err(error) => return Err(self.refused_to_read(group, error)),
            };
            if page.entries.is_empty() {
                return match seq {
                    0 => Ok(()),
                    seq if !linearizable => {
                        Err(CallError::lost(format!("the gateway has not read entry {seq} yet")).into())
                    }
                    seq => Err(Error::Protocol(format!(
                        "entry {seq} was accepted, but the log ends at {}",
                        record.seq
                    ))),
                };
            }
            self.deliver_log(group, page.entries).await?;
            let head = page.head.map_or(0, |head| head.seq);
            if seq == 0 && self.record(group)?.seq >= head {
                return Ok(());
            }
        }
    }

    fn refused_to_read(&self, group: &GroupId, error: CallError) -> Error {
        if error.reason == Some(pb::Reason::CursorMismatch) {
            self.reject_log(group, &error.message);
        }
        error.into()
    }

    /// Applies entries of the log. What was applied in front of a bad one stays applied.
    pub(in crate::client) async fn deliver_log(
        &self,
        group: &GroupId,
        entries: Vec<pb::Entry>,
    ) -> Result<(), Error> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut batch = Vec::new();
            // What a mark names depends on what was applied before it, so a mark begins a batch.
            while batch.len() < FOLLOW_BATCH_ENTRIES
                && let Some(entry) = entries.next_if(|entry| batch.is_empty() || names(entry).is_empty())
            {
                let bodies = match names(&entry) {
                    [] => Vec::new(),
                    ids => self.bodies(group, ids).await?,
                };
                let owed_leaves = owed_leaves(&entry);
                batch.push(Followed { entry: log_entry(entry, bodies)?, owed_leaves });
            }
            self.apply_log(group, &batch)?;
        }
        Ok(())
    }

    fn apply_log(&self, group: &GroupId, batch: &[Followed]) -> Result<(), Error> {
        let me = self.id();
        let all = self.with_branches(group, |work| {
            batch.iter().try_for_each(|followed| branches::apply(work, followed, me))
        });
        let Err(error) = all else { return Ok(()) };
        if batch.len() > 1 {
            return batch.iter().try_for_each(|one| self.apply_log(group, std::slice::from_ref(one)));
        }
        if let Error::Log(reason) = &error
            && !matches!(reason, ChainError::Seq { .. })
        {
            self.reject_log(group, &reason.to_string());
        }
        Err(error)
    }

    /// What the entries of a mark carry, as far as they were not taken in before.
    async fn bodies(&self, group: &GroupId, ids: &[bytes::Bytes]) -> Result<Vec<pb::BranchEntry>, Error> {
        let ids: Vec<EntryId> = ids
            .iter()
            .map(|id| EntryId::from_slice(id).map_err(|e| Error::Protocol(e.to_string())))
            .collect::<Result<_, _>>()?;
        let mut missing: Vec<EntryId> = self.with_branches(group, |work| work.not_taken_in(&ids))?;
        let mut found = BTreeMap::new();
        let mut backoff = self.backoff();
        let deadline = Instant::now() + self.options().patience;
        while !missing.is_empty() {
            let asked = missing.iter().take(BRANCH_IDS).map(EntryId::to_bytes).collect();
            let request = ReadBranchEntriesRequest { group_id: group.to_bytes(), entry_ids: asked };
            let answer = self.persist(|| self.transport().read_branch_entries(request.clone())).await?;
            let before = found.len();
            for event in answer.entries {
                let Some(entry) = event.entry else { continue };
                // The id is computed, never believed.
                found.insert(BranchEntry::try_from(entry.clone())?.id(), entry);
            }
            missing.retain(|id| !found.contains_key(id));
            if found.len() == before {
                if Instant::now() >= deadline {
                    return Err(CallError::lost("the gateway does not have the entries of a mark yet").into());
                }
                self.rest(&mut backoff).await;
            }
        }
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Takes in entries of branches.
    fn deliver_branches(&self, group: &GroupId, events: Vec<BranchEvent>) -> Result<(), Error> {
        let me = self.id();
        let mut entries = Vec::new();
        for event in events {
            let Some(entry) = event.entry else { continue };
            let encoded = entry.encode_to_vec();
            entries.push((BranchEntry::try_from(entry)?, encoded));
        }
        self.with_branches(group, |work| {
            entries
                .iter()
                .try_for_each(|(entry, encoded)| branches::learn(work, entry, encoded, me).map(drop))
        })
    }

    /// Brings the gateway every entry that this client has taken in and the gateway lacks, its own or not: this is what survives a
    /// gateway that is lost with its branches.
    pub(in crate::client) async fn bring_branches(&self, group: &GroupId) -> Result<(), Error> {
        let held = self.with_branches(group, |work| work.undecided())?;
        for part in held.chunks(BRANCH_IDS) {
            let entry_ids = part.iter().map(|(id, _)| id.to_bytes()).collect();
            let request = OfferBranchEntriesRequest { group_id: group.to_bytes(), entry_ids };
            let answer = match self.transport().offer_branch_entries(request).await {
                Ok(answer) => answer,
                Err(error) => return self.not_brought(&error),
            };
            let missing: BTreeSet<_> = answer.missing.into_iter().collect();
            let mut entries = Vec::new();
            let mut bytes = 0;
            for (id, body) in part.iter().filter(|(id, _)| missing.contains(&id.to_bytes())) {
                let entry = pb::BranchEntry::decode(body.as_slice())
                    .map_err(|e| crate::store::StoreError::damaged("a branch entry", format!("{id}: {e}")))?;
                if bytes + body.len() > UPLOAD_BRANCH_BYTES {
                    self.upload_branches(group, std::mem::take(&mut entries)).await?;
                    bytes = 0;
                }
                bytes += body.len();
                entries.push(entry);
            }
            self.upload_branches(group, entries).await?;
        }
        Ok(())
    }

    async fn upload_branches(&self, group: &GroupId, entries: Vec<pb::BranchEntry>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let bring = |entries| {
            let request = UploadBranchEntriesRequest { group_id: group.to_bytes(), entries };
            self.transport().upload_branch_entries(request)
        };
        match bring(entries.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_temporary() || entries.len() == 1 => return self.not_brought(&error),
            Err(_) => {}
        }
        // One that the gateway cannot place must not be in the way of the others.
        for entry in entries {
            if let Err(error) = bring(vec![entry]).await {
                self.not_brought(&error)?;
            }
        }
        Ok(())
    }

    /// It is brought again with the next connection.
    fn not_brought(&self, error: &CallError) -> Result<(), Error> {
        tracing::debug!(%error, "the gateway does not take branch entries now");
        Ok(())
    }

    async fn subscribe_to_branches(&self, group: &GroupId) -> Result<CallStream<SubscribeResponse>, Error> {
        let known = self.with_branches(group, |work| work.known_branch_entries(KNOWN_BRANCH_ENTRIES))?;
        let request = SubscribeRequest {
            group_id: group.to_bytes(),
            cursor: Some(wire::cursor(&self.record(group)?)),
            known_branch_entries: known.iter().map(EntryId::to_bytes).collect(),
        };
        Ok(self.transport().subscribe(request).await?)
    }

    /// Takes in the branches that the gateway knows.
    async fn look_at_branches(&self, group: &GroupId) -> Result<(), Error> {
        if !self.follows_branches(group)? {
            return Ok(());
        }
        let mut stream = match self.subscribe_to_branches(group).await {
            Ok(stream) => stream,
            Err(Error::Call(error)) if error.is_temporary() => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut caught_up = false;
        let deadline = Instant::now() + CALL_TIMEOUT;
        // After everything that happened before, what is there already is taken along.
        while let Some(first) = if caught_up {
            stream.next().now_or_never()
        } else {
            timeout_at(deadline, stream.next()).await.ok()
        }
        .flatten()
        {
            match self.take_branch_batch(group, first, &mut stream).await {
                Ok(now) => caught_up |= now,
                Err(Error::Call(error)) if error.is_temporary() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(in crate::client) async fn follow_branches_once(
        &self,
        group: &GroupId,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        self.bring_branches(group).await?;
        let mut stream = self.subscribe_to_branches(group).await?;
        while let Some(first) = stream.next().await {
            self.take_branch_batch(group, first, &mut stream).await?;
            backoff.reset();
            if !self.follows_branches(group)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes in what has arrived. Returns whether everything that happened before was delivered.
    async fn take_branch_batch(
        &self,
        group: &GroupId,
        first: Result<SubscribeResponse, CallError>,
        stream: &mut CallStream<SubscribeResponse>,
    ) -> Result<bool, Error> {
        let (mut next, mut caught_up, mut count) = (Some(first), false, 0);
        let (mut entries, mut on_branches) = (Vec::new(), Vec::new());
        let mut failed = None;
        while let Some(item) = next.take() {
            match item.map(|response| response.event) {
                Ok(Some(Told::Entry(entry))) => {
                    // Their order among one another matters: the log may say what became of a branch entry.
                    self.deliver_branches(group, std::mem::take(&mut on_branches))?;
                    entries.push(entry);
                }
                Ok(Some(Told::BranchEntry(event))) => {
                    self.deliver_log(group, std::mem::take(&mut entries)).await?;
                    on_branches.push(event);
                }
                Ok(Some(Told::ModeChange(change))) => self.tell_mode(group, change.mode()),
                Ok(Some(Told::CaughtUp(_))) => caught_up = true,
                // Logs of DeMLS groups are kept whole.
                Ok(Some(Told::Pruned(_)) | None) => {}
                Err(error) => failed = Some(error),
            }
            count += 1;
            if failed.is_none() && !caught_up && count < FOLLOW_BATCH_ENTRIES {
                next = stream.next().now_or_never().flatten();
            }
        }
        self.deliver_log(group, entries).await?;
        self.deliver_branches(group, on_branches)?;
        failed.map_or(Ok(caught_up), |error| Err(error.into()))
    }
}
