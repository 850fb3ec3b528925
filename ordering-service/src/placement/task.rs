//! Asks the rule about every shard that this node leads, window after window, and hands over what belongs elsewhere.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use concordat_proto::raft::v1::administer_request::Change;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    LeaderPlacement,
    rule::{Course, Decision, Reason, Rule},
    view::{Counted, Member, Outlook, View},
};
use crate::{
    cluster::{change, leader::Answer},
    metrics,
    node::Node,
    raft::{
        shard::Shard,
        types::{NodeId, ShardId},
    },
};

/// A shard that this node leads.
struct Led {
    term: u64,
    /// Since this node leads it, as far as it has noticed, or since it failed to hand it over.
    unmoved_since: Instant,
    course: Course,
}

/// Places the leaders of the shards that this node leads, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    if node.config.placing.leaders == LeaderPlacement::Off {
        return;
    }
    let rule = Rule::for_windows(node.config.placing.window);
    let mut ticks = interval(node.config.placing.window);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut led = BTreeMap::new();
    let mut checked = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(shards) = node.shards.get() else { continue };
        if !std::mem::replace(&mut checked, true) {
            warn_of_missing(&node, shards.data_shards());
        }
        for shard in shards.iter() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = place(&node, shard, &rule, &mut led) => {}
            }
        }
        node.placement.tally.forget_gone();
    }
}

fn warn_of_missing(node: &Node, data_shards: u32) {
    for (shard, site) in node.config.placing.preferred.iter().filter(|(shard, _)| **shard > data_shards) {
        tracing::warn!(
            shard,
            site,
            "prefer_leader names a shard that this cluster does not have: it has 0 to {data_shards}"
        );
    }
}

async fn place(node: &Node, shard: &Shard, rule: &Rule, led: &mut BTreeMap<ShardId, Led>) {
    // Taken whoever leads: what came before this node did is no measure.
    let counted = node.placement.tally.take(shard.id());
    let view = shard.view();
    if view.leader != Some(node.identity.node_id) {
        led.remove(&shard.id());
        return tell(node, shard.id(), None);
    }
    let is_new = led.get(&shard.id()).is_none_or(|led| led.term != view.term);
    if is_new {
        let begun = Led { term: view.term, unmoved_since: Instant::now(), course: Course::default() };
        led.insert(shard.id(), begun);
        return tell(node, shard.id(), None);
    }
    let Some(led) = led.get_mut(&shard.id()) else { return };
    let decision = judge(node, shard, rule, led, counted);
    tell(node, shard.id(), led.course.outlook());
    let Decision::Move { to, reason } = decision else { return };
    let why = match reason {
        Reason::Preferred => "preferred",
        Reason::Latency => "latency",
    };
    let deadline = Instant::now() + node.timing.election_max * 2;
    let moved = change::carry_out(node, shard, Change::HandOver(to), deadline).await;
    let is_done = matches!(moved, Ok(Answer::Done));
    node.metrics.leader_moved(shard.id(), why, is_done);
    match moved {
        Ok(Answer::Done) => tracing::info!(shard = shard.id(), to, why, "the leadership was moved"),
        Ok(Answer::NotLeader) => {}
        Err(error) => tracing::warn!(shard = shard.id(), to, why, "the leadership was not moved: {error}"),
    }
    led.course.start_over();
    led.unmoved_since = Instant::now();
}

fn judge(node: &Node, shard: &Shard, rule: &Rule, led: &mut Led, counted: Counted) -> Decision {
    let membership = shard.membership();
    // While voters change or the node stops, others decide who leads.
    let busy = membership.get_joint_config().len() != 1 || node.should_not_lead();
    let last_contacts = node.reach.last_contacts();
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    let members = membership.nodes().map(|(id, info)| Member {
        id: *id,
        site: info.site.clone(),
        votes: voters.contains(id),
        lag: change::lag(shard, *id),
        last_contact: last_contacts.get(id).copied(),
        should_not_lead: node.reach.should_not_lead(*id),
    });
    let contact_within = node.timing.alive_within();
    let view = View {
        shard: shard.id(),
        me: node.identity.node_id,
        members: members.collect(),
        round_trips: node.reach.round_trips(node.identity.node_id, contact_within),
        contact_within,
        preferred: node.config.placing.preferred.get(&shard.id()).cloned(),
    };
    let unmoved = led.unmoved_since.elapsed();
    match led.course.judge(rule, &view, counted, unmoved) {
        Decision::Move { .. } if busy => Decision::Stay,
        decision => decision,
    }
}

/// Shows what was measured, in the status and the metrics.
fn tell(node: &Node, shard: ShardId, outlook: Option<&Outlook>) {
    node.placement.note(shard, outlook);
    let here = outlook.map_or(Duration::ZERO, |outlook| outlook.here);
    let best = outlook.map_or(Duration::ZERO, |outlook| outlook.best().1);
    node.metrics.shard(metrics::EXPECTED_COMMIT_SECONDS, shard).set(here.as_secs_f64());
    node.metrics.shard(metrics::BEST_COMMIT_SECONDS, shard).set(best.as_secs_f64());
}
