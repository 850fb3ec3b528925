//! Ends collections of reports and evicts gateways that are gone, in the shards that this node leads. A new leader goes on where the
//! one before stopped, because what is open can be found in the replicated state.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    convert::GroupCommand,
    ordering::v1::{Command, NoteGateways, command, outcome::Outcome as Answer},
};
use futures::{StreamExt, stream};
use group_log::{
    GroupId,
    fork::{Close, Command as ForkCommand, ForkState, GatewayId},
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Waits, gateways, propose::propose};
use crate::{
    api::find::blocking,
    error::ApiError,
    limits, metrics,
    node::Node,
    raft::{shard::SharedShard, types::ShardId},
    storage::{OpenCollection, limits::NOTED_GATEWAYS},
};

/// Why a collection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Reported,
    Deadline,
}

/// Since when this node knows of a collection, and how old it was then.
struct Known {
    since: Instant,
    age: Duration,
}

/// What is counted in a shard now and then.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Groups in which removals are owed.
    owing: usize,
    /// Gateways that keep something from becoming stable.
    holding_stable: usize,
}

struct Keeper {
    node: Arc<Node>,
    known: HashMap<(ShardId, Bytes, u64), Known>,
}

/// Keeps the shards that this node leads, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut keeper = Keeper { node: node.clone(), known: HashMap::new() };
    let mut ticks = interval(limits::COLLECTION_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = None::<Instant>;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(shards) = node.shards.get() else { continue };
        let look = looked.is_none_or(|at| at.elapsed() >= limits::GATEWAYS_INTERVAL);
        if look {
            looked = Some(Instant::now());
        }
        for shard in shards.iter().skip(1) {
            let kept = tokio::select! {
                () = stop.cancelled() => return,
                kept = keeper.keep(shard, look) => kept,
            };
            if let Err(error) = kept {
                tracing::warn!(shard = shard.id(), "branches can not be kept: {error}");
            }
        }
    }
}

impl Keeper {
    async fn keep(&mut self, shard: &SharedShard, look: bool) -> Result<(), ApiError> {
        if shard.view().leader != Some(self.node.identity.node_id) {
            self.known.retain(|(known, _, _), _| *known != shard.id());
            if look {
                self.tell(shard, &[], Counts::default(), &[], &BTreeSet::new());
            }
            return Ok(());
        }
        let live = self.node.live_gateways();
        let reader = shard.reader().clone();
        let read = blocking(move || {
            let open = reader.open_collections(limits::COLLECTIONS_AT_ONCE)?;
            let forks =
                open.iter().map(|open| reader.fork_state(&open.group_id)).collect::<Result<Vec<_>, _>>()?;
            Ok((open, forks))
        });
        let (open, forks) = read.await?;
        self.forget_closed(shard.id(), &open);
        self.close_what_is_due(shard, &open, &forks, &live).await;
        if look {
            let reader = shard.reader().clone();
            let (known, counts, noted_at_ms) = blocking(move || {
                let known = reader.gateways(limits::GATEWAYS_PER_SHARD)?;
                let owing = reader.groups_that_owe(limits::GROUPS_COUNTED)?;
                let holding_stable = gateways::holding_back(&reader, known.len())?;
                Ok((known, Counts { owing, holding_stable }, reader.gateways_noted_at_ms()?))
            })
            .await?;
            self.tell(shard, &open, counts, &known.iter().map(|known| known.id).collect::<Vec<_>>(), &live);
            let now_ms = self.node.clock.now_ms();
            if noted_at_ms.is_none_or(|noted| older(noted, now_ms, limits::NOTE_AFTER)) {
                // Whoever is gone is judged after that, because a time without a quorum counts for nobody.
                let here: Vec<_> =
                    known.iter().map(|known| known.id).filter(|id| live.contains(id)).collect();
                self.note(shard, &here).await;
                return Ok(());
            }
            let after = self.node.config.waits.evict_after;
            let is_gone = |seen_at_ms| after.is_some_and(|after| older(seen_at_ms, now_ms, after));
            for gateway in known.iter().filter(|known| !live.contains(&known.id) && is_gone(known.seen_at_ms))
            {
                let groups = gateways::evict(&self.node, shard, gateway.id).await?;
                let (shard, gateway) = (shard.id(), gateway.id);
                tracing::warn!(shard, groups, ?gateway, "a gateway was gone for too long: evicted");
            }
        }
        Ok(())
    }

    fn forget_closed(&mut self, shard: ShardId, open: &[OpenCollection]) {
        let still: HashSet<_> = open.iter().map(|open| (&open.group_id, open.number)).collect();
        self.known.retain(|(of, group, number), _| *of != shard || still.contains(&(group, *number)));
    }

    async fn close_what_is_due(
        &mut self,
        shard: &SharedShard,
        open: &[OpenCollection],
        forks: &[ForkState],
        live: &BTreeSet<GatewayId>,
    ) {
        let now_ms = self.node.clock.now_ms();
        let mut due = Vec::new();
        for (collection, fork) in open.iter().zip(forks) {
            let waits = &self.node.config.waits;
            let key = (shard.id(), collection.group_id.clone(), collection.number);
            let known = self.known.entry(key).or_insert_with(|| {
                // Clocks differ: another leader's can make a collection at most as old as one that is due.
                let age = Duration::from_millis(now_ms.saturating_sub(collection.opened_at_ms));
                Known { since: Instant::now(), age: age.min(waits.collect_for) }
            });
            let age = known.age + known.since.elapsed();
            if let Some(cause) = why_due(fork, live, age, waits) {
                due.push((collection.clone(), cause));
            }
        }
        let node = &self.node;
        stream::iter(due)
            .for_each_concurrent(limits::CLOSES_AT_ONCE, |(collection, cause)| {
                close(node, shard, collection, cause)
            })
            .await;
    }

    /// Remembers in the replicated state that gateways are there.
    async fn note(&self, shard: &SharedShard, live: &[GatewayId]) {
        let parts: Vec<_> = live.chunks(NOTED_GATEWAYS).collect();
        for ids in if parts.is_empty() { vec![&[][..]] } else { parts } {
            let gateway_ids = ids.iter().map(|id| Bytes::copy_from_slice(&id.0)).collect();
            let note = command::Command::NoteGateways(NoteGateways { gateway_ids });
            // What fails now is noted at the next look.
            let _ = propose(&self.node, shard, Command { command: Some(note) }).await;
        }
    }

    fn tell(
        &self,
        shard: &SharedShard,
        open: &[OpenCollection],
        counts: Counts,
        known: &[GatewayId],
        live: &BTreeSet<GatewayId>,
    ) {
        let gauge = |name| self.node.metrics.shard(name, shard.id());
        let waiting: u64 = open.iter().map(|open| u64::from(open.candidates)).sum();
        gauge(metrics::COLLECTIONS_OPEN).set(open.len() as f64);
        gauge(metrics::BRANCH_ENTRIES_WAITING).set(waiting as f64);
        gauge(metrics::GROUPS_OWING).set(counts.owing as f64);
        gauge(metrics::GATEWAYS_HOLDING_STABLE).set(counts.holding_stable as f64);
        gauge(metrics::GATEWAYS_REGISTERED).set(known.len() as f64);
        gauge(metrics::GATEWAYS_AWAY).set(known.iter().filter(|id| !live.contains(id)).count() as f64);
    }
}

/// A time on some leader's wall clock is longer ago than `limit`. One in the future is not.
fn older(at_ms: u64, now_ms: u64, limit: Duration) -> bool {
    Duration::from_millis(now_ms.saturating_sub(at_ms)) > limit
}

/// Whether a collection is to be ended now.
fn why_due(fork: &ForkState, live: &BTreeSet<GatewayId>, age: Duration, waits: &Waits) -> Option<Cause> {
    let everybody = !fork.gateways.is_empty() && fork.ready_to_close(fork.gateways.keys());
    if everybody || (age >= waits.collect_at_least && fork.ready_to_close(live.iter())) {
        return Some(Cause::Reported);
    }
    (age >= waits.collect_for).then_some(Cause::Deadline)
}

async fn close(node: &Node, shard: &SharedShard, collection: OpenCollection, cause: Cause) {
    let OpenCollection { group_id, number, .. } = collection;
    let Ok(group_id) = GroupId::new(group_id) else { return };
    // Drawn now, so that nobody could prepare for it.
    let close = Close { collection: number, nonce: node.randomness.bytes() };
    let command = GroupCommand { group_id, command: ForkCommand::Close(close) };
    let Some(Answer::CollectionClosed(closed)) = propose(node, shard, command.into()).await else { return };
    let outcome = match (closed.adopted, closed.sides) {
        (0, 0) => "not_open",
        (0, _) => "all_side",
        _ => "adopted",
    };
    let cause = match cause {
        Cause::Reported => "reported",
        Cause::Deadline => "deadline",
    };
    node.metrics.collection_closed(outcome, cause);
    tracing::info!(
        shard = shard.id(),
        adopted = closed.adopted,
        sides = closed.sides,
        cause,
        "branches were brought together"
    );
}

#[cfg(test)]
mod tests {
    use group_log::fork::{Collecting, Registration};

    use super::*;

    const A: GatewayId = GatewayId([1; 16]);
    const B: GatewayId = GatewayId([2; 16]);

    fn fork(registered: &[GatewayId], reported: &[GatewayId]) -> ForkState {
        let reported = reported.iter().copied().collect();
        ForkState {
            gateways: registered.iter().map(|id| (*id, Registration::default())).collect(),
            collecting: Some(Collecting { number: 1, reported, candidates: 1 }),
            ..ForkState::default()
        }
    }

    #[test]
    fn a_collection_ends_when_all_that_can_report_have_reported_or_time_is_up() {
        let waits = Waits::default();
        let (soon, later) = (Duration::from_millis(1), waits.collect_at_least);
        let due = |registered: &[_], reported: &[_], live: &[_], age| {
            why_due(&fork(registered, reported), &live.iter().copied().collect(), age, &waits)
        };
        assert_eq!(due(&[A, B], &[A, B], &[], soon), Some(Cause::Reported), "nobody is left to wait for");
        assert_eq!(due(&[A, B], &[A], &[A], soon), None, "the other may be about to connect");
        assert_eq!(due(&[A, B], &[A], &[A], later), Some(Cause::Reported), "the other is not there");
        assert_eq!(due(&[A, B], &[A], &[A, B], later), None);
        assert_eq!(due(&[A, B], &[A], &[A, B], waits.collect_for), Some(Cause::Deadline));
        assert_eq!(due(&[], &[], &[], soon), None, "a report can have several parts");
        assert_eq!(
            due(&[], &[], &[A], later),
            Some(Cause::Reported),
            "who is not registered is not waited for"
        );
        assert_eq!(due(&[A], &[], &[A], waits.collect_for), Some(Cause::Deadline));
    }

    #[test]
    fn only_what_is_long_ago_is_old() {
        let hour = Duration::from_secs(3600);
        assert!(!older(5_000_000, 1_000, hour), "a clock that is behind makes nothing old");
        assert!(!older(0, 3_600_000, hour));
        assert!(older(0, 3_600_001, hour));
    }
}
