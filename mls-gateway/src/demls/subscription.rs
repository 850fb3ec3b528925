//! Follows one DeMLS group for one subscriber: the log from the gateway's own copy, the branches, and the mode.

use std::{collections::BTreeSet, sync::Arc};

use concordat_proto::{
    gateway::v1::{BranchEvent, ModeChange, subscribe_response::Event},
    log::v1::{self as pb, content::Content},
};
use group_log::{ChainHash, CursorError, EntryId, View, fork::Mode};
use tokio::sync::watch;

use super::{branch::Hanging, group::Group, log, path::Paths, store::StoreError, usage::Watching};
use crate::{
    cluster::LogReader,
    error::GatewayError,
    fanout::cursor_error,
    limits::{SUBSCRIBER_READ_BYTES, SUBSCRIBER_READ_ENTRIES},
    metrics,
    modes::mode_to_wire,
};

/// One subscriber's place in a group.
pub struct Subscription {
    group: Arc<Group>,
    _watching: Watching,
    paths: Arc<Paths>,
    seq: u64,
    chain: Option<ChainHash>,
    /// The cursor was compared with the log.
    placed: bool,
    caught_up: bool,
    /// Branch entries that the subscriber has.
    known: BTreeSet<EntryId>,
    next_arrival: u64,
    modes: watch::Receiver<Mode>,
    told_mode: Mode,
    live: watch::Receiver<bool>,
    changes: watch::Receiver<()>,
}

impl Subscription {
    /// Begins after the entry `seq` with this chain hash, if the subscriber knows it.
    pub fn open(
        group: Arc<Group>,
        paths: Arc<Paths>,
        seq: u64,
        chain: Option<ChainHash>,
        known: BTreeSet<EntryId>,
    ) -> Self {
        let (modes, live, changes) = (group.modes(), group.live.subscribe(), group.changes());
        Self {
            _watching: Watching::begin(&group),
            group,
            paths,
            seq,
            chain,
            placed: seq == 0 && chain.is_none_or(|chain| chain == ChainHash::START),
            caught_up: false,
            known,
            next_arrival: 0,
            modes,
            told_mode: Mode::Ordered,
            live,
            changes,
        }
    }

    /// The last entry that was told, and its chain hash if it is known.
    pub fn cursor(&self) -> (u64, Option<ChainHash>) {
        (self.seq, self.chain)
    }

    /// The next things to tell, at least one. Waits until there is one. An error ends the subscription.
    pub async fn next(&mut self) -> Result<Vec<Event>, GatewayError> {
        loop {
            // Marked as seen first, so that nothing which happens from here on is missed.
            self.changes.borrow_and_update();
            self.live.borrow_and_update();
            let mode = *self.modes.borrow_and_update();
            if let Some(failure) = self.group.failure() {
                return Err(failure);
            }
            if mode != self.told_mode {
                self.told_mode = mode;
                return Ok(vec![Event::ModeChange(ModeChange { mode: mode_to_wire(mode).into() })]);
            }
            if !self.placed {
                self.place().await?;
            }
            if let Some(events) = self.log().await? {
                return Ok(events);
            }
            // After the log: what a branch departs from has been told.
            let arrived = self.branches().await?;
            if !arrived.is_empty() {
                return Ok(arrived);
            }
            let at_end = *self.live.borrow() || mode == Mode::Forked;
            if !self.caught_up
                && self.placed
                && at_end
                && let Some(head) = self.group.head()?
            {
                self.caught_up = true;
                return Ok(vec![Event::CaughtUp((&head).into())]);
            }
            let gone = tokio::select! {
                changed = self.changes.changed() => changed.is_err(),
                changed = self.modes.changed() => changed.is_err(),
                changed = self.live.changed() => changed.is_err(),
            };
            if gone {
                return Err(GatewayError::Stopping);
            }
        }
    }

    async fn log(&mut self) -> Result<Option<Vec<Event>>, GatewayError> {
        let newest = self.group.log_seq()?;
        if !self.placed {
            return Ok(None);
        }
        if newest <= self.seq {
            return Ok(None);
        }
        let (max, bytes) = (SUBSCRIBER_READ_ENTRIES, SUBSCRIBER_READ_BYTES);
        let entries = log::read(&self.group, &self.paths, self.seq, max, bytes).await?;
        let Some(last) = entries.last() else { return Ok(None) };
        self.seq = last.entry.seq;
        metrics::delivered("copy", entries.len());
        let entries = entries.into_iter().map(|stored| for_client(&self.group, stored.entry));
        Ok(Some(entries.map(|entry| entry.map(Event::Entry)).collect::<Result<_, _>>()?))
    }

    /// Compares the cursor with the log, once the copy here reaches it.
    async fn place(&mut self) -> Result<(), GatewayError> {
        if self.group.log_seq()? < self.seq {
            // The subscriber is further than this gateway: is that so, or has it seen another log?
            if *self.live.borrow() && self.paths.is_direct(self.group.shard) {
                let head = self.paths.cluster.reader.head(&self.group.id, true, false).await?.head;
                if self.seq > head.seq {
                    return Err(cursor_error(&CursorError::Ahead { head_seq: head.seq, got: self.seq }));
                }
            }
            return Ok(());
        }
        let expected = match self.seq {
            0 => ChainHash::START,
            seq => match self.group.rows.record(seq)? {
                Some(record) => record.chain,
                None => return Err(StoreError::damaged("the log", "a record is missing").into()),
            },
        };
        if let Some(got) = self.chain
            && got != expected
        {
            return Err(cursor_error(&CursorError::Mismatch { seq: self.seq, expected, got }));
        }
        self.placed = true;
        Ok(())
    }

    async fn branches(&mut self) -> Result<Vec<Event>, GatewayError> {
        if !self.placed {
            return Ok(Vec::new());
        }
        loop {
            let (arrived, next) = self.group.arrivals(self.next_arrival).await?;
            let had_any = next != self.next_arrival;
            self.next_arrival = next;
            let new = arrived.into_iter().filter(|hanging| !self.known.remove(&hanging.entry.id()));
            let events: Vec<_> = new.map(|hanging| Event::BranchEntry(event(hanging))).collect();
            if !events.is_empty() || !had_any {
                return Ok(events);
            }
        }
    }
}

/// A branch entry for a client.
pub fn event(hanging: Hanging) -> BranchEvent {
    BranchEvent {
        entry_id: hanging.entry.id().to_bytes(),
        entry: Some(hanging.entry.into()),
        fork_state_id: hanging.fork.to_bytes(),
        epoch: hanging.epoch,
    }
}

/// An entry of the log for a client: who is owed a removal is named by leaf index, too.
pub fn for_client(group: &Group, mut entry: pb::Entry) -> Result<pb::Entry, GatewayError> {
    entry.facts = None;
    if let Some(pb::Content { content: Some(Content::Side(side)) }) = &mut entry.content
        && !side.owed.is_empty()
    {
        side.owed_leaf_indices = owed_indices(group, &side.owed)?;
    }
    Ok(entry)
}

/// Where the memberships that are owed a removal sit at the head.
pub fn owed_indices(group: &Group, owed: &[bytes::Bytes]) -> Result<Vec<u32>, GatewayError> {
    let owed = concordat_proto::convert::leaf_ids("owed", owed).map_err(GatewayError::bad_wire)?;
    let Some(head) = group.rows.head()? else { return Ok(Vec::new()) };
    Ok(group.rows.leaves(&head.state_id)?.map(|leaves| leaves.indices(&owed)).unwrap_or_default())
}
