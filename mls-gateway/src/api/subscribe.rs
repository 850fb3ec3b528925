//! Following a group.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    convert,
    gateway::v1::{ModeChange, SubscribeRequest, SubscribeResponse, subscribe_response},
    log::v1 as log,
};
use group_log::{ChainHash, ClientId, Cursor, CursorError, EntryId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, Api, group_id, members::Reader};
use crate::{
    demls::{members as demls_members, subscription as demls},
    error::GatewayError,
    fanout::{Event, Subscription, cursor_error},
    limits::{KNOWN_BRANCH_ENTRIES_MAX, SUBSCRIBER_EVENTS_MAX},
};

type Events = mpsc::Sender<Result<SubscribeResponse, Status>>;

impl Api {
    pub(super) async fn subscribe_group(
        &self,
        client: ClientId,
        request: SubscribeRequest,
    ) -> Result<Answers<SubscribeResponse>, GatewayError> {
        let group_id = group_id(request.group_id)?;
        let (seq, chain) = canonical(request.cursor)?;
        if let Some(registry) = &self.demls
            && registry.kind(&group_id).await? == log::GroupKind::Demls
        {
            let group = registry.used(&group_id).await?;
            let reader = self.demls_reader(&group, client, seq).await?;
            let known = known(&request.known_branch_entries)?;
            let paths = Arc::clone(registry.paths());
            let subscription = demls::Subscription::open(group, paths, seq, chain, known);
            let (events, told) = mpsc::channel(SUBSCRIBER_EVENTS_MAX);
            tokio::spawn(self.clone().feed_demls(subscription, reader, events));
            return Ok(Box::pin(ReceiverStream::new(told)));
        }
        let subscription = Subscription::open(&self.fanout, group_id, seq, chain).await?;
        let (group_id, epoch) = (subscription.group_id(), subscription.epoch());
        let reader = Reader::admit(self, group_id, client, epoch, seq).await?;
        let (events, told) = mpsc::channel(SUBSCRIBER_EVENTS_MAX);
        tokio::spawn(self.clone().feed(subscription, reader, seq, events));
        Ok(Box::pin(ReceiverStream::new(told)))
    }

    /// The same for a DeMLS group.
    async fn feed_demls(
        self,
        mut subscription: demls::Subscription,
        reader: Option<demls_members::Reader>,
        events: Events,
    ) {
        let error = 'told: loop {
            let next = tokio::select! {
                next = subscription.next() => next,
                () = self.drain.begun() => Err(GatewayError::Stopping),
                () = events.closed() => return,
            };
            let told = match next {
                Ok(told) => told,
                Err(error) => break error,
            };
            for event in told {
                match pass_on_demls(event, reader.as_ref(), &events).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => break 'told error,
                }
            }
        };
        let (seq, chain) = subscription.cursor();
        let _ = events.send(Err(error.ending_after(seq, chain))).await;
    }

    /// Passes on what the subscription tells, as fast as this one subscriber takes it, from the entry `from` on.
    async fn feed(self, mut subscription: Subscription, mut reader: Reader, from: u64, events: Events) {
        let (mut is_placed, mut told) = (false, subscription.cursor());
        let error = loop {
            let next = tokio::select! {
                next = subscription.next() => next,
                () = self.drain.begun() => Err(GatewayError::Stopping),
                () = events.closed() => return,
            };
            let event = match next {
                Ok(event) => event,
                Err(error) => break error,
            };
            if !is_placed && !matches!(event, Event::Mode(_)) {
                if let Err(error) = reader.is_at(subscription.epoch(), from).await {
                    break error;
                }
                is_placed = true;
            }
            match pass_on(event, &mut reader, &mut told, &events).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error,
            }
        };
        // The status says where to go on, here or at another gateway.
        let (seq, chain) = told;
        let _ = events.send(Err(error.ending_after(seq, chain))).await;
    }
}

/// Branch entries that a subscriber has.
fn known(ids: &[Bytes]) -> Result<BTreeSet<EntryId>, GatewayError> {
    if ids.len() > KNOWN_BRANCH_ENTRIES_MAX {
        let expected = format!("at most {KNOWN_BRANCH_ENTRIES_MAX}");
        return Err(GatewayError::bad_field("known_branch_entries", expected, ids.len()));
    }
    ids.iter()
        .map(|id| convert::entry_id("known_branch_entries", id).map_err(GatewayError::bad_wire))
        .collect()
}

/// Passes on an event, as far as the reader may see it, and notes the last entry that was. False: the subscriber is gone.
async fn pass_on(
    event: Event,
    reader: &mut Reader,
    told: &mut (u64, Option<ChainHash>),
    events: &Events,
) -> Result<bool, GatewayError> {
    use subscribe_response::Event as Wire;
    let send = async |event| events.send(Ok(SubscribeResponse { event: Some(event) })).await.is_ok();
    match event {
        Event::Entries(entries) => {
            for entry in entries {
                if !send(Wire::Entry(entry.as_ref().clone())).await {
                    return Ok(false);
                }
                *told = (entry.seq, ChainHash::from_slice(&entry.chain_hash).ok());
                reader.has_read(&entry).await?;
            }
            Ok(true)
        }
        Event::CaughtUp(head) if reader.sees_all() => Ok(send(Wire::CaughtUp(head)).await),
        Event::CaughtUp(_) => Ok(true),
        Event::Mode(mode) => Ok(send(Wire::ModeChange(ModeChange { mode: mode.into() })).await),
        Event::Pruned(pruned) if reader.sees_all() => Ok(send(Wire::Pruned(pruned)).await),
        Event::Pruned(_) => Ok(true),
    }
}

/// The same for a DeMLS group.
async fn pass_on_demls(
    event: subscribe_response::Event,
    reader: Option<&demls_members::Reader>,
    events: &Events,
) -> Result<bool, GatewayError> {
    use subscribe_response::Event as Wire;
    let is_seen = match (&event, reader) {
        (Wire::BranchEntry(entry), Some(reader)) => reader.sees(entry).await?,
        (Wire::CaughtUp(_), Some(reader)) => reader.sees_head().await?,
        _ => true,
    };
    if !is_seen {
        return Ok(true);
    }
    let entry = match (&event, reader) {
        (Wire::Entry(entry), Some(reader)) => Some((entry.clone(), reader)),
        _ => None,
    };
    if events.send(Ok(SubscribeResponse { event: Some(event) })).await.is_err() {
        return Ok(false);
    }
    match entry {
        Some((entry, reader)) => reader.has_read(&entry).await.map(|()| true),
        None => Ok(true),
    }
}

/// The place that a cursor names in the canonical log.
pub(super) fn canonical(cursor: Option<log::Cursor>) -> Result<(u64, Option<ChainHash>), GatewayError> {
    let cursor = cursor.map(Cursor::try_from).transpose().map_err(GatewayError::bad_wire)?;
    match cursor.unwrap_or(Cursor::START) {
        Cursor::Canonical { seq, chain } => Ok((seq, chain)),
        Cursor::Branch { fork, .. } => Err(cursor_error(&CursorError::OtherChain { fork })),
    }
}
