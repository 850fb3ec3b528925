//! Gap repair: what a neighbour has and this gateway lacks is asked for. Idempotent, in any order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use concordat_proto::{convert, log::v1 as log, relay::v1 as pb};
use group_log::{
    EntryId, GroupId,
    fork::{BranchEntry, Item, Mark, Mode},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{Neighbour, Relay, within};
use crate::{
    demls::{Group, Registry, group::Digest, store::StoredEntry},
    error::GatewayError,
    limits::{RELAY_HAVE_MAX, RELAY_REQUEST_TIMEOUT},
    metrics,
};

/// What could not be had yet is looked at again after this long.
const AGAIN: Duration = Duration::from_millis(250);

/// Keeps up with one neighbour.
pub(super) struct Repair {
    heard: Arc<Heard>,
    _task: AbortOnDropHandle<()>,
}

/// The newest digest of each group that the neighbour has told. Bounded by the groups that are held here.
#[derive(Default)]
struct Heard {
    digests: Mutex<BTreeMap<GroupId, pb::GroupDigest>>,
    news: Notify,
}

struct Task {
    relay: Arc<Relay>,
    registry: Arc<Registry>,
    client: Neighbour,
    heard: Arc<Heard>,
    /// Digests with which came what can not be taken in.
    refused: BTreeMap<GroupId, pb::GroupDigest>,
}

impl Repair {
    pub(super) fn start(relay: Arc<Relay>, registry: Arc<Registry>, client: Neighbour) -> Self {
        let heard = Arc::new(Heard::default());
        let task = Task { relay, registry, client, heard: Arc::clone(&heard), refused: BTreeMap::new() };
        Self { heard, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }

    /// The neighbour has told what it has.
    pub(super) fn heard(&self, digests: Vec<pb::GroupDigest>) {
        let mut known = self.heard.digests.lock();
        for digest in digests {
            if let Ok(group) = GroupId::new(digest.group_id.clone()) {
                known.insert(group, digest);
            }
        }
        drop(known);
        self.heard.news.notify_one();
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let waiting = self.heard.digests.lock().clone();
            for (id, theirs) in waiting {
                let Some(group) = self.registry.get(&id) else {
                    // What this gateway does not hold it does not gather.
                    self.heard.digests.lock().remove(&id);
                    continue;
                };
                let settled = match self.settle(&group, &theirs).await {
                    Ok(settled) => settled,
                    Err(status) => {
                        tracing::debug!(code = ?status.code(), words = status.message(), "a gap is not closed yet");
                        false
                    }
                };
                if settled {
                    let mut known = self.heard.digests.lock();
                    if known.get(&id) == Some(&theirs) {
                        known.remove(&id);
                    }
                }
            }
            let pause = if self.heard.digests.lock().is_empty() { None } else { Some(AGAIN) };
            match pause {
                None => self.heard.news.notified().await,
                Some(pause) => _ = timeout(pause, self.heard.news.notified()).await,
            }
        }
    }

    /// Gets what is lacking. Returns whether nothing is, as far as that can be known.
    async fn settle(&mut self, group: &Arc<Group>, theirs: &pb::GroupDigest) -> Result<bool, Status> {
        if self.refused.get(&group.id) == Some(theirs) {
            return Ok(true);
        }
        let ours = digest(group).await?;
        // A quorum that is reached tells the log itself.
        if theirs.log_seq > ours.log_seq && group.mode() != Mode::Ordered {
            self.fetch_log(group, ours.log_seq).await?;
        }
        if theirs.tree_entries > 0 && theirs.tree_digest[..] != ours.xor[..] {
            self.fetch_branch(group, theirs).await?;
        }
        // Differences that are left: the neighbour lacks something, which is for it to ask; or the log here is behind.
        Ok(digest(group).await?.log_seq >= theirs.log_seq)
    }

    async fn fetch_log(&self, group: &Arc<Group>, mut after: u64) -> Result<(), Status> {
        loop {
            let page = self.relay.fetch_log_from(self.client.clone(), &group.id, after).await?;
            let more = page.more;
            let entries = with_bodies(page)?;
            let Some(last) = entries.last().map(|stored| stored.entry.seq) else { return Ok(()) };
            group.append(&entries).await.map_err(|error| GatewayError::LogMismatch(error.to_string()))?;
            if !more || last <= after {
                return Ok(());
            }
            after = last;
        }
    }

    async fn fetch_branch(&mut self, group: &Arc<Group>, theirs: &pb::GroupDigest) -> Result<(), Status> {
        loop {
            let have = group.unrecorded().await.iter().take(RELAY_HAVE_MAX).map(EntryId::to_bytes).collect();
            let request = self.relay.signed(pb::FetchBranchRequest { group_id: group.id.to_bytes(), have });
            let answer = within(RELAY_REQUEST_TIMEOUT, self.client.fetch_branch(request)).await?;
            let entries =
                answer.entries.into_iter().map(BranchEntry::try_from).collect::<Result<Vec<_>, _>>();
            let entries = entries.map_err(GatewayError::bad_wire)?;
            if let Err(error) = group.take_in(entries).await {
                let error = GatewayError::from(error);
                metrics::relay_refused(crate::error::reason_name(error.reason()));
                if error.reason() != log::Reason::BranchGap {
                    tracing::warn!(%error, "a neighbour has an entry that can not be on a branch; it is not taken in");
                    self.refused.insert(group.id.clone(), theirs.clone());
                }
                return Err(error.into());
            }
            if !answer.more {
                return Ok(());
            }
        }
    }
}

async fn digest(group: &Group) -> Result<Digest, Status> {
    Ok(group.digest().await.map_err(GatewayError::from)?)
}

/// The entries of a page, each with those that it names.
pub(crate) fn with_bodies(page: pb::FetchLogResponse) -> Result<Vec<StoredEntry>, GatewayError> {
    let bodies = page.bodies.into_iter().map(BranchEntry::try_from).collect::<Result<Vec<_>, _>>();
    let bodies: BTreeMap<EntryId, BranchEntry> =
        bodies.map_err(GatewayError::bad_wire)?.into_iter().map(|body| (body.id(), body)).collect();
    let entries = page.entries.into_iter().map(|entry| {
        let names: Vec<EntryId> = named(&entry)?;
        let bodies = names.iter().filter_map(|id| bodies.get(id)).map(|body| body.clone().into()).collect();
        Ok(StoredEntry { entry, bodies })
    });
    entries.collect()
}

/// The branch entries that an entry of the log names, in its order.
pub(crate) fn named(entry: &log::Entry) -> Result<Vec<EntryId>, GatewayError> {
    use log::content::Content;
    let is_mark = matches!(
        entry.content.as_ref().and_then(|content| content.content.as_ref()),
        Some(Content::Side(_) | Content::Late(_))
    );
    // Nothing else is decoded twice.
    let content = entry.content.clone().filter(|_| is_mark);
    match content.map(Item::try_from).transpose().map_err(GatewayError::bad_wire)? {
        Some(Item::Mark(Mark::Side { ids, .. } | Mark::Late { ids })) => Ok(ids),
        _ => Ok(Vec::new()),
    }
}

/// Ids that an asker names as known.
pub(super) fn known(have: &[bytes::Bytes]) -> Result<BTreeSet<EntryId>, GatewayError> {
    if have.len() > RELAY_HAVE_MAX {
        return Err(GatewayError::bad_field("have", format!("at most {RELAY_HAVE_MAX} ids"), have.len()));
    }
    have.iter().map(|id| convert::entry_id("have", id).map_err(GatewayError::bad_wire)).collect()
}
