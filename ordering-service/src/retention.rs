//! Retention: the leader of a shard walks over its groups, and proposes to give up what is older or longer than the limits allow: those of
//! its configuration, and those that a group chose for itself. What really goes is decided when the proposal is applied
//! ([`group_log::prune`]). Every node removes from its disk what went.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::ordering::v1::{Command, GroupPruned, PruneGroup, command, outcome::Outcome as Answer};
use futures::{StreamExt, stream};
use group_log::{Head, Pruned, Retention};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    api::find::blocking, branches::propose::propose, error::ApiError, limits, metrics, node::Node,
    raft::shard::SharedShard,
};

/// What is kept, and how often that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// How long entries are kept of groups that choose nothing. These, and the most, of the node that leads a shard are in force.
    pub limits: Retention,
    /// How long they are kept at most, whatever a group chooses.
    pub most: Retention,
    /// How often every group is looked at.
    pub look_every: Duration,
}

impl Default for Keeping {
    /// Everything is kept.
    fn default() -> Self {
        let everything = Retention::default();
        Keeping { limits: everything, most: everything, look_every: limits::RETENTION_INTERVAL }
    }
}

impl Keeping {
    /// The configuration limits every group.
    fn is_limited(&self) -> bool {
        !self.limits.is_forever() || !self.most.is_forever()
    }
}

/// A group, and the last entry of it that is to go.
type Due = (Bytes, u64);

/// What one look at some groups came to.
struct Looked {
    due: Vec<Due>,
    /// Groups that are longer than the limit, and of which nothing may go.
    held: usize,
    /// Of some, something may have to go one day.
    limited: bool,
    /// The last group looked at, if there may be more.
    last: Option<Bytes>,
}

/// When a shard is looked at whose groups may all be kept for ever: seldom, until one is found that chose otherwise.
#[derive(Default)]
struct Rest {
    looks_left: u32,
}

impl Rest {
    /// Whether this look is left out.
    fn skips(&mut self, keeping: &Keeping) -> bool {
        if keeping.is_limited() || self.looks_left == 0 {
            return false;
        }
        self.looks_left -= 1;
        true
    }

    fn looked(&mut self, found_limits: bool) {
        self.looks_left = if found_limits { 0 } else { limits::RETENTION_IDLE_LOOKS };
    }
}

/// Looks again and again, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let mut ticks = interval(node.config.keeping.look_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rests: HashMap<u32, Rest> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(shards) = node.shards.get() else { continue };
        for shard in shards.iter().skip(1) {
            let rest = rests.entry(shard.id()).or_default();
            if shard.view().leader != Some(node.identity.node_id) {
                // Whoever leads next looks at once.
                *rest = Rest::default();
            }
            let idle = rest.skips(&node.config.keeping);
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = look(&node, shard, idle) => looked,
            };
            match looked {
                Ok(Some(found_limits)) => rest.looked(found_limits),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(shard = shard.id(), "what is too old can not be given up: {error}");
                }
            }
        }
    }
}

/// Gives up what is due, unless the shard is `idle`, and what went before from the disk. Whether groups have limits; nothing if not all were
/// looked at.
async fn look(node: &Arc<Node>, shard: &SharedShard, idle: bool) -> Result<Option<bool>, ApiError> {
    let leads = || shard.view().leader == Some(node.identity.node_id);
    let (mut after, mut held, mut limited, mut all) = (None, 0, false, false);
    while !idle && leads() {
        let (reader, keeping, now_ms) =
            (shard.reader().clone(), node.config.keeping.clone(), node.clock.now_ms());
        let looked = blocking(move || {
            let page = reader.groups_after(after.as_deref(), limits::RETENTION_GROUPS)?;
            let made_at = |group: &Bytes, seq| reader.made_at_ms(group, seq);
            Ok(judge(page, &keeping, now_ms, made_at)?)
        });
        let looked = looked.await?;
        held += looked.held;
        limited |= looked.limited;
        stream::iter(looked.due)
            .for_each_concurrent(limits::PRUNES_AT_ONCE, |due| give_up(node, shard, due))
            .await;
        after = looked.last;
        if after.is_none() {
            all = true;
            break;
        }
        sleep(limits::RETENTION_PAUSE).await;
    }
    if !idle {
        node.metrics.shard(metrics::RETENTION_HELD, shard.id()).set(held as f64);
    }
    let (storage, shard) = (node.storage.clone(), shard.id());
    blocking(move || Ok(storage.sweep(shard)?)).await?;
    Ok(all.then_some(limited))
}

fn judge<E>(
    page: Vec<(Bytes, Head, Pruned)>,
    keeping: &Keeping,
    now_ms: u64,
    mut made_at: impl FnMut(&Bytes, u64) -> Result<Option<u64>, E>,
) -> Result<Looked, E> {
    let last =
        page.last().map(|(group, _, _)| group.clone()).filter(|_| page.len() >= limits::RETENTION_GROUPS);
    let (mut due, mut held, mut limited) = (Vec::new(), 0, false);
    for (group, head, pruned) in page {
        let limits = keeping.limits.of_group(&head.policy, &keeping.most);
        limited |= !limits.is_forever();
        match limits.due(&head, &pruned, now_ms, |seq| made_at(&group, seq))? {
            Some(upto) => due.push((group, upto)),
            None => held += usize::from(limits.max_entries.is_some_and(|max| head.seq - pruned.seq > max)),
        }
    }
    Ok(Looked { due, held, limited, last })
}

/// Step by step. What fails now is due at the next look.
async fn give_up(node: &Node, shard: &SharedShard, (group_id, upto_seq): Due) {
    loop {
        let prune = command::Command::PruneGroup(PruneGroup { group_id: group_id.clone(), upto_seq });
        let answer = propose(node, shard, Command { command: Some(prune) }).await;
        let Some(Answer::GroupPruned(GroupPruned { pruned_seq, entries })) = answer else { return };
        node.metrics.pruned(shard.id(), entries);
        if entries == 0 || pruned_seq >= upto_seq {
            return;
        }
    }
}
