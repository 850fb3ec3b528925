//! What comes onto the branches of a group: accepted here, or heard of from other gateways and from clients.

use std::sync::Arc;

use concordat_proto::log::v1 as pb;
use group_log::{
    Content, EntryId, EntryKind, StateId, View,
    fork::{BranchEntry, BranchRefusal, ForkView, Mode, Recorded},
};

use super::{
    group::{Core, Group, GroupError},
    states::{Handshake, LookError, Looked},
    store::StoreError,
};
use crate::{
    error::GatewayError,
    limits::{BRANCH_PAGE_BYTES, SEQUENCER_PAUSE},
    mls::{self, MessageKind, ParseError, Problem},
};

/// An entry of the tree and where it hangs.
#[derive(Clone, Debug)]
pub struct Hanging {
    /// The entry.
    pub entry: BranchEntry,
    /// The canonical state that its branch departs from.
    pub fork: StateId,
    /// The epoch it was made in.
    pub epoch: u64,
}

impl Group {
    /// Reads an entry as if nobody had said anything about it: what it is, and what it does to the membership.
    pub async fn look(self: &Arc<Self>, mut entry: BranchEntry) -> Result<(BranchEntry, Looked), GroupError> {
        let group = Arc::clone(self);
        let look = move || {
            let looked = group.look_now(&entry)?;
            entry.facts = looked.facts.clone();
            Ok((entry, looked))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Database(error.to_string()).into()),
        }
    }

    fn look_now(&self, entry: &BranchEntry) -> Result<Looked, GroupError> {
        let (bytes, expected, info, welcome) = match &entry.content {
            Content::Commit(c) => (&c.message, MessageKind::Commit, &c.group_info[..], &c.welcome[..]),
            Content::Proposal { message } => (message, MessageKind::Proposal, &[][..], &[][..]),
            Content::Application { message } => (message, MessageKind::Application, &[][..], &[][..]),
            content => {
                let problem = Problem::Type { expected: "a message", got: content.kind().name().into() };
                return Err(LookError::from(ParseError::new("entry", problem)).into());
            }
        };
        let parsed = |error: ParseError| GroupError::from(LookError::from(error));
        let message = mls::message(bytes).map_err(parsed)?;
        if message.group_id != self.id {
            return Err(parsed(ParseError::mismatch("entry", "group id", "the group's", "another one")));
        }
        if message.kind != expected {
            let problem = Problem::Type { expected: expected.name(), got: message.kind.name().into() };
            return Err(parsed(ParseError::new("entry", problem)));
        }
        if !message.dmls {
            return Err(parsed(ParseError::new("entry", Problem::Missing)));
        }
        let info =
            (!info.is_empty()).then(|| mls::group_info(&info.to_vec().into())).transpose().map_err(parsed)?;
        let welcome = (!welcome.is_empty()).then(|| mls::welcome(&welcome.to_vec().into())).transpose();
        let welcome = welcome.map_err(parsed)?;
        let handshake = Handshake {
            parent: entry.parent,
            id: entry.id(),
            message: &message,
            group_info: info.as_ref(),
            welcome: welcome.as_deref(),
        };
        Ok(self.states.lock().look(&handshake)?)
    }

    /// Accepts an entry on a branch, durably. `looked` is what [`Group::look`] gave for it.
    pub async fn accept(&self, entry: BranchEntry, looked: &Looked) -> Result<EntryId, GroupError> {
        let mut core = self.core.lock().await;
        if self.mode() != Mode::Forked {
            return Err(GroupError::NotForked);
        }
        let promised = core.promise.position;
        core.tree.admit(&self.rows, promised, &entry).map_err(StoreError::from)??;
        let id = entry.id();
        self.insert(&mut core, entry, looked)?;
        drop(core);
        self.sync().await?;
        self.told();
        Ok(id)
    }

    /// Takes in entries that another gateway or a client brings, durably, whatever has become of them meanwhile. What they claim about
    /// members is ignored. Returns how many are new.
    pub async fn take_in(self: &Arc<Self>, entries: Vec<BranchEntry>) -> Result<u32, GroupError> {
        let mut new = 0;
        let mut refused = Ok(());
        for entry in entries {
            match self.take_in_one(entry).await {
                Ok(is_new) => new += u32::from(is_new),
                Err(error) => {
                    refused = Err(error);
                    break;
                }
            }
        }
        if new > 0 {
            self.sync().await?;
            self.told();
        }
        refused.map(|()| new)
    }

    async fn take_in_one(self: &Arc<Self>, entry: BranchEntry) -> Result<bool, GroupError> {
        if self.has(&entry.id()).await? {
            return Ok(false);
        }
        if !self.knows_state(&entry.parent).await? {
            return Err(BranchRefusal::UnknownParent { parent: entry.parent }.into());
        }
        let (entry, looked) = self.look(entry).await?;
        let mut core = self.core.lock().await;
        self.insert(&mut core, entry, &looked)
    }

    fn insert(&self, core: &mut Core, entry: BranchEntry, looked: &Looked) -> Result<bool, GroupError> {
        if core.gone {
            return Err(GroupError::Gone);
        }
        let (id, size) = (entry.id(), entry.size());
        let is_new = core.tree.get(&id).is_none();
        let most = self.keeping.branch_bytes;
        if is_new && core.tree_bytes + size > most {
            return Err(BranchRefusal::Full { what: "bytes", limit: most as u64 }.into());
        }
        if !core.tree.insert(&self.rows, entry.clone()).map_err(StoreError::from)?? {
            return Ok(false);
        }
        self.rows.put_branch(&entry, looked.leaves.as_ref())?;
        core.tree_bytes += size;
        core.unrecorded.insert(id);
        core.arrivals.push_back(id);
        core.reported = false;
        core.count_retained(&self.rows)?;
        self.states.lock().took_branch(&entry);
        Ok(true)
    }

    fn told(&self) {
        self.changed.send_replace(());
        self.wake.notify_waiters();
    }

    /// The entry is in the tree or in the log.
    pub async fn has(&self, id: &EntryId) -> Result<bool, StoreError> {
        Ok(self.rows.recorded(id)?.is_some() || self.core.lock().await.tree.get(id).is_some())
    }

    /// Entries that came in from the number `from` on and that the log does not record, at most so many bytes; and the number to go on
    /// from. Parents come before children.
    pub async fn arrivals(&self, from: u64) -> Result<(Vec<Hanging>, u64), StoreError> {
        let core = self.core.lock().await;
        let mut next = from.max(core.first_arrival);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(id) = core.arrivals.get((next - core.first_arrival) as usize) {
            if bytes > BRANCH_PAGE_BYTES {
                break;
            }
            next += 1;
            if core.unrecorded.contains(id)
                && let Some(hanging) = self.hanging(&core, id)?
            {
                bytes += hanging.entry.size();
                found.push(hanging);
            }
        }
        Ok((found, next))
    }

    /// An entry of the tree, and where it hangs.
    pub async fn find(&self, id: &EntryId) -> Result<Option<Hanging>, StoreError> {
        let core = self.core.lock().await;
        if let Some(found) = self.hanging(&core, id)? {
            return Ok(Some(found));
        }
        drop(core);
        let Some(body) = self.rows.dead_body(id)? else { return Ok(None) };
        let entry = BranchEntry::try_from(body).map_err(|e| StoreError::damaged("the log", e))?;
        self.hanging_dead(entry)
    }

    /// The log has put the entry aside: it need not be in the copy here any more.
    pub fn is_dead(&self, id: &EntryId) -> Result<bool, StoreError> {
        Ok(matches!(self.rows.recorded(id)?, Some(Recorded::Dead(_))))
    }

    /// Where an entry hangs that the log has put aside.
    pub fn hanging_dead(&self, entry: BranchEntry) -> Result<Option<Hanging>, StoreError> {
        let Some(Recorded::Dead(dead)) = self.rows.recorded(&entry.id())? else { return Ok(None) };
        let fork = self.canonical_state(dead.anchor_epoch)?;
        let epoch = dead.epoch.saturating_sub(u64::from(dead.is_state));
        Ok(fork.map(|fork| Hanging { entry, fork, epoch }))
    }

    /// The canonical state of an epoch.
    fn canonical_state(&self, epoch: u64) -> Result<Option<StateId>, StoreError> {
        if let Some(ended) = self.rows.commit_ending(epoch)? {
            return Ok(Some(ended.parent));
        }
        Ok(self.rows.head()?.filter(|head| head.epoch == epoch).map(|head| head.state_id))
    }

    fn hanging(&self, core: &Core, id: &EntryId) -> Result<Option<Hanging>, StoreError> {
        let Some(entry) = core.tree.get(id) else { return Ok(None) };
        let (mut at, mut commits) = (entry.parent, 0);
        loop {
            match self.rows.recorded(&at.into())? {
                Some(Recorded::Canonical { epoch, is_state: true, .. }) => {
                    return Ok(Some(Hanging { entry: entry.clone(), fork: at, epoch: epoch + commits }));
                }
                Some(Recorded::Dead(dead)) if dead.is_state => {
                    let fork = self.canonical_state(dead.anchor_epoch)?;
                    let epoch = dead.epoch + commits;
                    return Ok(fork.map(|fork| Hanging { entry: entry.clone(), fork, epoch }));
                }
                _ => {}
            }
            let Some(parent) = core.tree.get(&at.into()) else { return Ok(None) };
            (at, commits) = (parent.parent, commits + 1);
        }
    }

    /// Entries of the tree that the log does not record and that an asker does not name, parents first, as many as fit into one message;
    /// and whether there are more.
    pub async fn lacking(&self, have: &std::collections::BTreeSet<EntryId>) -> (Vec<pb::BranchEntry>, bool) {
        let core = self.core.lock().await;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for id in core.arrivals.iter().filter(|id| core.unrecorded.contains(id) && !have.contains(id)) {
            let Some(entry) = core.tree.get(id) else { continue };
            bytes += entry.size();
            if bytes > BRANCH_PAGE_BYTES && !entries.is_empty() {
                return (entries, true);
            }
            entries.push(entry.clone().into());
        }
        (entries, false)
    }

    /// Ids of the entries that the log does not record.
    pub async fn unrecorded(&self) -> Vec<EntryId> {
        self.core.lock().await.unrecorded.iter().copied().collect()
    }

    /// Waits until a state is known here, for `patience` at most.
    pub async fn wait_for_state(
        &self,
        state: &StateId,
        patience: std::time::Duration,
    ) -> Result<bool, StoreError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.knows_state(state).await? {
                return Ok(true);
            }
            let pause = SEQUENCER_PAUSE * 5;
            let wake = (tokio::time::Instant::now() + pause).min(deadline);
            let _ = tokio::time::timeout_at(wake, changes.changed()).await;
            if tokio::time::Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }
}

impl Group {
    /// Waits until the copied log reaches an entry.
    pub async fn wait_for_entry(&self, seq: u64, patience: std::time::Duration) -> Result<(), GatewayError> {
        let mut changes = self.changes();
        let reached = async {
            loop {
                changes.borrow_and_update();
                if self.log_seq()? >= seq {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err(GatewayError::Stopping);
                }
            }
        };
        let late = || GatewayError::Unreachable("the copy of the log is behind".into());
        tokio::time::timeout(patience, reached).await.unwrap_or_else(|_| Err(late()))
    }
}

/// A commit waits for its turn; messages do not race.
pub(super) fn needs_order(entry: &BranchEntry) -> bool {
    entry.content.kind() == EntryKind::Commit
}
