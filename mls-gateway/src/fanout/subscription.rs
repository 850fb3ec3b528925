//! One subscriber: a cursor, and where its next entries come from.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::Mode as WireMode,
    log::v1::{self as pb, Reason},
};
use group_log::{ChainHash, ChainVerifier, CursorError, Entry, GroupId};
use tokio::sync::watch;

use super::{Fanout, FeedHandle, Pull};
use crate::{
    cluster::{Cluster, LogReader},
    error::GatewayError,
    limits::BEHIND_PAGE,
    metrics,
    modes::Mode,
};

/// What a subscriber is told.
#[derive(Debug)]
pub enum Event {
    /// The next entries.
    Entries(Vec<Arc<pb::Entry>>),
    /// Everything up to this head was delivered; what follows is live.
    CaughtUp(pb::Head),
    /// The mode of the group has changed.
    Mode(WireMode),
    /// What comes next was given up. The last event.
    Pruned(pb::Pruned),
}

/// Follows one group for one subscriber.
pub struct Subscription {
    group_id: GroupId,
    cluster: Arc<Cluster>,
    feed: FeedHandle,
    seq: u64,
    chain: Option<ChainHash>,
    /// The cursor was compared with the log.
    placed: bool,
    caught_up: bool,
    modes: watch::Receiver<Mode>,
    told_mode: WireMode,
    /// It was told that what comes next was given up.
    told_pruned: Option<GatewayError>,
}

impl Subscription {
    /// Begins after the entry `seq` with this chain hash, if the subscriber knows it.
    pub async fn open(
        fanout: &Arc<Fanout>,
        group_id: GroupId,
        seq: u64,
        chain: Option<ChainHash>,
    ) -> Result<Self, GatewayError> {
        let cluster = Arc::clone(&fanout.cluster);
        let shard = cluster.locator.shard(&group_id).await?;
        let feed = fanout.feed(&group_id).await?;
        let modes = cluster.modes.watch(shard);
        // Before the first entry every log has the same hash.
        let chain = if seq == 0 { Some(chain.unwrap_or(ChainHash::START)) } else { chain };
        let told_mode = WireMode::Ordered;
        Ok(Self {
            group_id,
            cluster,
            feed,
            seq,
            chain,
            placed: false,
            caught_up: false,
            modes,
            told_mode,
            told_pruned: None,
        })
    }

    /// The group.
    pub fn group_id(&self) -> &GroupId {
        &self.group_id
    }

    /// The epoch that the group has reached here: nothing that was told so far is newer.
    pub fn epoch(&self) -> u64 {
        self.feed.feed.epoch()
    }

    /// The last entry that was told, and its chain hash if it is known.
    pub fn cursor(&self) -> (u64, Option<ChainHash>) {
        (self.seq, self.chain)
    }

    /// The next thing to tell. Waits until there is one. An error ends the subscription.
    pub async fn next(&mut self) -> Result<Event, GatewayError> {
        if let Some(error) = self.told_pruned.take() {
            return Err(error);
        }
        match self.find_next().await {
            Err(error) => match error.oldest_kept() {
                Some(oldest) => self.tell_pruned(oldest, error).await,
                None => Err(error),
            },
            next => next,
        }
    }

    /// Where the log begins, and the GroupInfo that leads back into the group; then the error itself.
    async fn tell_pruned(&mut self, oldest_seq: u64, error: GatewayError) -> Result<Event, GatewayError> {
        let answer = self.cluster.reader.head(&self.group_id, true, true).await?;
        let leads_back = answer.group_info_epoch == answer.head.epoch;
        let pruned = pb::Pruned {
            oldest_seq,
            head: Some(answer.head),
            group_info: if leads_back { answer.group_info } else { Bytes::new() },
        };
        self.told_pruned = Some(error);
        Ok(Event::Pruned(pruned))
    }

    async fn find_next(&mut self) -> Result<Event, GatewayError> {
        let mut changes = self.feed.feed.changes();
        loop {
            // Marked as seen first, so that nothing which happens from here on is missed.
            changes.borrow_and_update();
            let mode = self.modes.borrow_and_update().to_wire();
            if mode != self.told_mode {
                self.told_mode = mode;
                return Ok(Event::Mode(mode));
            }
            match self.feed.feed.pull(self.seq, self.chain) {
                Pull::Entries(entries) => {
                    self.placed = true;
                    if let Some(last) = entries.last() {
                        self.seq = last.seq;
                        self.chain = ChainHash::from_slice(&last.chain_hash).ok();
                    }
                    metrics::delivered("ring", entries.len());
                    return Ok(Event::Entries(entries));
                }
                Pull::Behind => return self.read_page().await,
                Pull::AtTip(Some(head)) if !self.caught_up => {
                    (self.placed, self.caught_up) = (true, true);
                    return Ok(Event::CaughtUp(head));
                }
                Pull::AtTip(_) => self.wait(&mut changes).await?,
                Pull::Ahead => {
                    self.place().await?;
                    self.wait(&mut changes).await?;
                }
                Pull::Mismatch(error) => return Err(cursor_error(&error)),
                Pull::Failed(error) => return Err(error),
            }
        }
    }

    async fn wait(&mut self, changes: &mut watch::Receiver<()>) -> Result<(), GatewayError> {
        let gone = tokio::select! {
            changed = changes.changed() => changed.is_err(),
            changed = self.modes.changed() => changed.is_err(),
        };
        if gone { Err(GatewayError::Stopping) } else { Ok(()) }
    }

    /// The subscriber is further than this gateway: is that so, or has it seen another log?
    async fn place(&mut self) -> Result<(), GatewayError> {
        if !self.placed {
            let head = self.cluster.reader.head(&self.group_id, true, false).await?.head;
            if self.seq > head.seq {
                return Err(cursor_error(&CursorError::Ahead { head_seq: head.seq, got: self.seq }));
            }
            self.placed = true;
            self.feed.fanout.expect(&self.group_id, self.seq);
        }
        Ok(())
    }

    /// Reads what has left the ring, and checks it like everything else.
    async fn read_page(&mut self) -> Result<Event, GatewayError> {
        let cursor = || pb::CanonicalCursor::new(self.seq, self.chain);
        let mut page = self.cluster.reader.page(&self.group_id, cursor(), BEHIND_PAGE, false).await;
        // A node that lags may not have what another has delivered already.
        let lacking = match &page {
            Ok(page) => page.entries.is_empty(),
            Err(error) => matches!(error.reason(), Reason::GroupNotFound | Reason::CursorAhead),
        };
        if lacking {
            page = self.cluster.reader.page(&self.group_id, cursor(), BEHIND_PAGE, true).await;
        }
        let entries = page?.entries;
        let Some(chain) = verify_page(self.seq, self.chain, &entries)? else {
            return Err(GatewayError::LogMismatch(format!("entries after {} are missing", self.seq)));
        };
        self.placed = true;
        self.seq += entries.len() as u64;
        self.chain = Some(chain);
        metrics::delivered("log", entries.len());
        Ok(Event::Entries(entries.into_iter().map(Arc::new).collect()))
    }
}

/// Checks that a page follows from the entry `seq` with this chain hash; without one, from its own first entry on. Returns the chain
/// hash of its last entry, or nothing for an empty page.
pub fn verify_page(
    seq: u64,
    chain: Option<ChainHash>,
    entries: &[pb::Entry],
) -> Result<Option<ChainHash>, GatewayError> {
    let mismatch = |detail: String| {
        metrics::log_mismatch();
        GatewayError::LogMismatch(detail)
    };
    let mut verifier = chain.map(|chain| ChainVerifier::after(seq, chain, None));
    for (entry, expected) in entries.iter().zip(seq.saturating_add(1)..) {
        let entry = Entry::try_from(entry.clone()).map_err(|e| mismatch(e.to_string()))?;
        match &mut verifier {
            Some(verifier) => verifier.push(&entry).map_err(|e| mismatch(e.to_string()))?,
            None if entry.seq != expected => {
                return Err(mismatch(format!("expected entry {expected}, got {}", entry.seq)));
            }
            None => verifier = Some(ChainVerifier::after(entry.seq, entry.chain, None)),
        }
    }
    Ok(verifier.filter(|_| !entries.is_empty()).map(|v| v.chain()))
}

/// Reading cannot go on from a cursor.
pub fn cursor_error(error: &CursorError) -> GatewayError {
    GatewayError::Refused(error.into())
}
