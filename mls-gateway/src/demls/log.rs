//! Follows the log of one group into the gateway's own copy: from the node that is followed, or from another gateway if no node
//! is in touch with a quorum.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use concordat_proto::log::v1::{self as pb, CanonicalCursor, Reason};
use group_log::{
    ChainHash, ChainVerifier, GroupId, View,
    fork::{BranchEntry, LogEntry},
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    group::Group,
    path::Paths,
    store::{StoreError, StoredEntry},
};
use crate::{
    cluster::{GroupSink, Verdict},
    error::GatewayError,
    limits::{
        DUTY_PAUSE, FOLLOW_LAG_MAX, LOG_BATCH_ENTRIES, LOG_QUEUE_BYTES_MAX, LOG_QUEUE_ENTRIES_MAX,
        MISMATCHES_MAX, READ_PAGE_MAX, RELAY_LOG_PAUSE,
    },
    metrics,
    relay::with_bodies,
    wire::payload_bytes,
};

/// What was delivered and is not written yet.
pub(super) struct Sink {
    group: GroupId,
    inner: Mutex<Inner>,
    news: Notify,
}

struct Inner {
    queue: VecDeque<pb::Entry>,
    bytes: usize,
    /// The last entry queued.
    seq: u64,
    chain: Bytes,
    /// The head that was said to be the end.
    end: Option<u64>,
    /// The newest entry that the cluster is known to have accepted, and since when it is missing.
    expected: Option<(u64, Instant)>,
    refused_since: Option<Instant>,
    mismatches: u32,
    failed: bool,
    /// What was delivered could not be taken in: another node is to be followed.
    distrusted: bool,
}

impl Sink {
    /// Goes on from the copy that there is.
    pub(super) fn new(group: &Group) -> Result<Arc<Self>, StoreError> {
        let head = group.rows.head()?;
        let inner = Inner {
            queue: VecDeque::new(),
            bytes: 0,
            seq: head.map_or(0, |head| head.seq),
            chain: head.map(|head| head.chain.to_bytes()).unwrap_or_default(),
            end: None,
            expected: None,
            refused_since: None,
            mismatches: 0,
            failed: false,
            distrusted: false,
        };
        Ok(Arc::new(Self { group: group.id.clone(), inner: Mutex::new(inner), news: Notify::new() }))
    }

    /// The cluster has accepted this entry.
    pub(super) fn expect(&self, seq: u64, now: Instant) {
        let mut inner = self.inner.lock();
        if seq > inner.seq && inner.expected.is_none_or(|(expected, _)| seq > expected) {
            let since = inner.expected.map_or(now, |(_, since)| since);
            inner.expected = Some((seq, since));
        }
    }

    fn take(&self) -> Vec<pb::Entry> {
        let mut inner = self.inner.lock();
        let count = inner.queue.len().min(LOG_BATCH_ENTRIES);
        let entries: Vec<_> = inner.queue.drain(..count).collect();
        inner.bytes = inner.bytes.saturating_sub(entries.iter().map(payload_bytes).sum());
        entries
    }

    /// What is queued does not follow, or another was faster: go on after this entry.
    fn restart(&self, seq: u64, chain: Bytes, distrusted: bool) {
        let mut inner = self.inner.lock();
        inner.queue.clear();
        (inner.bytes, inner.seq, inner.chain) = (0, seq, chain);
        inner.distrusted |= distrusted;
    }
}

impl GroupSink for Sink {
    fn group_id(&self) -> &GroupId {
        &self.group
    }

    fn cursor(&self) -> CanonicalCursor {
        let inner = self.inner.lock();
        CanonicalCursor { seq: inner.seq, chain_hash: inner.chain.clone() }
    }

    fn restarted(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        inner.distrusted = false;
        if let Some((_, since)) = &mut inner.expected {
            *since = now;
        }
    }

    fn entries(&self, entries: Vec<pb::Entry>) -> Verdict {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        for entry in entries {
            if entry.seq <= inner.seq {
                continue;
            }
            let is_full = inner.queue.len() >= LOG_QUEUE_ENTRIES_MAX || inner.bytes >= LOG_QUEUE_BYTES_MAX;
            if entry.seq != inner.seq + 1 || is_full {
                return Verdict::AskAgain;
            }
            inner.bytes += payload_bytes(&entry);
            (inner.seq, inner.chain) = (entry.seq, entry.chain_hash.clone());
            inner.queue.push_back(entry);
        }
        let seq = inner.seq;
        inner.expected = inner.expected.filter(|(expected, _)| *expected > seq);
        drop(inner);
        self.news.notify_one();
        Verdict::Continue
    }

    fn caught_up(&self, head: pb::Head) -> Verdict {
        let mut inner = self.inner.lock();
        inner.refused_since = None;
        inner.end = Some(head.seq);
        drop(inner);
        self.news.notify_one();
        Verdict::Continue
    }

    fn refused(&self, refused: pb::Refused) -> Verdict {
        let mut inner = self.inner.lock();
        if refused.reason() == Reason::CursorMismatch {
            metrics::log_mismatch();
            inner.mismatches += 1;
            inner.failed = inner.mismatches >= MISMATCHES_MAX;
            let verdict = if inner.failed { Verdict::Stop } else { Verdict::OtherNode };
            drop(inner);
            self.news.notify_one();
            return verdict;
        }
        inner.refused_since.get_or_insert_with(Instant::now);
        Verdict::AskAgain
    }

    fn is_lagging(&self, now: Instant) -> bool {
        let inner = self.inner.lock();
        if inner.distrusted {
            return true;
        }
        let since = inner.expected.map(|(_, since)| since).into_iter().chain(inner.refused_since);
        since.min().is_some_and(|since| now.saturating_duration_since(since) > FOLLOW_LAG_MAX)
    }
}

/// Writes what is delivered, for good.
pub(super) async fn follow(group: Arc<Group>, sink: Arc<Sink>, paths: Arc<Paths>) {
    let _following = paths.cluster.follower.group(Arc::clone(&sink) as _);
    let (mut direct, mut reach) = (paths.direct_changes(), paths.relay.changes());
    loop {
        direct.borrow_and_update();
        reach.borrow_and_update();
        let is_only_through_another =
            !paths.is_direct(group.shard) && paths.relay.reaches_quorum(group.shard);
        let news = sink.news.notified();
        let entries = sink.take();
        if entries.is_empty() {
            let (end, failed) = {
                let inner = sink.inner.lock();
                (inner.end, inner.failed)
            };
            if failed {
                let detail = "every node has another log than this gateway: move its data directory away";
                tracing::error!(detail, "a group can not be served any more");
                *group.failed.lock() = Some(GatewayError::LogMismatch(detail.into()));
                group.changed.send_replace(());
                return;
            }
            if end.is_some_and(|end| group.log_seq().is_ok_and(|seq| seq >= end)) {
                group.live.send_if_modified(|live| !std::mem::replace(live, true));
            }
            tokio::select! {
                () = news => {}
                changed = direct.changed() => if changed.is_err() { return },
                changed = reach.changed() => if changed.is_err() { return },
                () = sleep(RELAY_LOG_PAUSE), if is_only_through_another => {
                    through_another(&group, &sink, &paths).await;
                }
            }
            continue;
        }
        if let Err(error) = write(&group, &paths, entries).await {
            tracing::warn!(%error, "entries of a log are not taken in");
            metrics::log_mismatch();
            begin_again(&group, &sink, true);
            sleep(DUTY_PAUSE).await;
        }
    }
}

/// Without a node that is in touch with a quorum the log is asked of a gateway that knows one.
async fn through_another(group: &Group, sink: &Sink, paths: &Paths) {
    if paths.is_direct(group.shard) || !paths.relay.reaches_quorum(group.shard) {
        return;
    }
    let Ok(after) = group.log_seq() else { return };
    let Ok(page) = paths.relay.fetch_log(group.shard, &group.id, after).await else { return };
    let more = page.more;
    let Ok(entries) = with_bodies(page) else { return };
    if !entries.is_empty() {
        if let Err(error) = group.append(&entries).await {
            tracing::warn!(%error, "entries of a log that another gateway has are not taken in");
            return;
        }
        begin_again(group, sink, false);
    }
    if !more {
        group.live.send_if_modified(|live| !std::mem::replace(live, true));
    }
}

fn begin_again(group: &Group, sink: &Sink, distrusted: bool) {
    if let Ok(head) = group.rows.head() {
        let seq = head.map_or(0, |head| head.seq);
        let chain = head.map(|head| head.chain.to_bytes()).unwrap_or_default();
        sink.restart(seq, chain, distrusted);
    }
}

async fn write(group: &Group, paths: &Paths, entries: Vec<pb::Entry>) -> Result<(), GatewayError> {
    Ok(group.append(&with_named(group, paths, entries).await?).await?)
}

/// Entries after `seq`, at most `max`, and no more once they are beyond `bytes`: from the copy here, or from a node if that does not reach
/// back so far.
pub async fn read(
    group: &Group,
    paths: &Paths,
    seq: u64,
    max: usize,
    bytes: usize,
) -> Result<Vec<StoredEntry>, GatewayError> {
    match group.rows.entries(seq, max, bytes) {
        Err(StoreError::NotKept { .. }) => {}
        kept => return Ok(kept?),
    }
    let chain = match seq {
        0 => ChainHash::START,
        _ => group.rows.record(seq)?.map_or(ChainHash::START, |record| record.chain),
    };
    let cursor = CanonicalCursor::new(seq, Some(chain));
    let max = u32::try_from(max).unwrap_or(u32::MAX).min(READ_PAGE_MAX);
    let page = paths.cluster.reader.page(&group.id, cursor, max, false).await?;
    let entries = with_named(group, paths, page.entries).await?;
    if entries.is_empty() {
        return Err(GatewayError::Unreachable("the node that was asked is behind".into()));
    }
    // What is shown here was checked when it was copied: it must be the same.
    let mut verifier = ChainVerifier::after(seq, chain, None);
    for stored in &entries {
        let entry = LogEntry::try_from(stored.entry.clone()).map_err(GatewayError::bad_wire)?;
        verifier.push_item(&entry).map_err(|error| {
            metrics::log_mismatch();
            GatewayError::LogMismatch(error.to_string())
        })?;
    }
    Ok(entries)
}

/// Each entry with those that it names.
async fn with_named(
    group: &Group,
    paths: &Paths,
    entries: Vec<pb::Entry>,
) -> Result<Vec<StoredEntry>, GatewayError> {
    let mut stored = Vec::with_capacity(entries.len());
    for entry in entries {
        let names = crate::relay::named(&entry)?;
        let bodies = if names.is_empty() {
            Vec::new()
        } else {
            let bodies = paths.cluster.reader.branch_entries(&group.id, &names).await?;
            let mut by_id: BTreeMap<_, _> = bodies
                .into_iter()
                .filter_map(|body| Some((BranchEntry::try_from(body.clone()).ok()?.id(), body)))
                .collect();
            names.iter().filter_map(|id| by_id.remove(id)).collect()
        };
        stored.push(StoredEntry { entry, bodies });
    }
    Ok(stored)
}
