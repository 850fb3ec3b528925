//! Whether a shard's leader hands over, and to whom. Pure: no IO, no clock; times and counts are passed in.

use std::time::Duration;

use super::view::{Counted, Member, Outlook, View};
use crate::{
    limits,
    raft::types::{NodeId, ShardId},
};

/// How much better another leader must be, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Commits must take so much less time there, in percent of what they take here, ...
    pub gain_percent: u32,
    /// ... and at least so much.
    pub gain: Duration,
    /// In so many windows in a row, by what was counted in each.
    pub windows: u32,
    /// A window goes on until so many submissions were counted in it.
    pub submissions: u64,
    /// The shard stays where it is for so long after its leader changed.
    pub rest: Duration,
    /// Log entries that the new leader may lack.
    pub max_lag: u64,
}

impl Rule {
    /// The rule for windows of this length.
    pub fn for_windows(window: Duration) -> Self {
        Self {
            gain_percent: limits::PLACEMENT_GAIN_PERCENT,
            gain: limits::PLACEMENT_GAIN,
            windows: limits::PLACEMENT_WINDOWS,
            submissions: limits::PLACEMENT_SUBMISSIONS,
            rest: window * limits::PLACEMENT_REST_WINDOWS,
            max_lag: limits::TRANSFER_LAG,
        }
    }

    /// Commits that take `here` now are worth a move if they take `there` after it.
    pub fn pays(&self, here: Duration, there: Duration) -> bool {
        let least = here.saturating_mul(self.gain_percent) / 100;
        here.saturating_sub(there) >= least.max(self.gain)
    }

    fn may_take_over(&self, view: &View, member: &Member) -> bool {
        member.id != view.me && view.may_lead(member) && member.lag.is_some_and(|lag| lag <= self.max_lag)
    }
}

/// Why a leader hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The operator prefers that site.
    Preferred,
    /// Commits take less time there.
    Latency,
}

/// What a leader does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Stay,
    /// It hands over.
    Move {
        /// To this voter.
        to: NodeId,
        /// Because of this.
        reason: Reason,
    },
}

/// For so many windows in a row this voter was the better one.
#[derive(Debug, Clone, Copy)]
struct Streak {
    to: NodeId,
    windows: u32,
}

/// What a leader remembers of one shard between two judgements. It begins anew with every leader.
#[derive(Debug, Default)]
pub struct Course {
    /// Of the window that is open.
    counted: Counted,
    preferred: Option<Streak>,
    better: Option<Streak>,
    outlook: Option<Outlook>,
}

impl Course {
    /// What the network made a commit take in the last window that had enough submissions.
    pub fn outlook(&self) -> Option<&Outlook> {
        self.outlook.as_ref()
    }

    /// Forgets which voters were better: after a move that failed.
    pub fn start_over(&mut self) {
        (self.preferred, self.better) = (None, None);
    }

    /// Judges at the end of a window: `counted` came in since the last judgement, and the leader did not change for `unmoved`.
    pub fn judge(&mut self, rule: &Rule, view: &View, counted: Counted, unmoved: Duration) -> Decision {
        let closed = self.close_window(rule, view, counted);
        let outlook = closed.as_ref().and_then(|counted| view.outlook(counted));
        if closed.is_some() {
            self.outlook.clone_from(&outlook);
        }
        let Some(leader) = view.leader() else { return Decision::Stay };
        let (streak, reason) = match &view.preferred {
            Some(home) if leader.site == *home => {
                self.start_over();
                return Decision::Stay;
            }
            Some(home) if view.members.iter().any(|m| m.site == *home && rule.may_take_over(view, m)) => {
                self.better = None;
                (self.towards(rule, view, home), Reason::Preferred)
            }
            // Nobody at the preferred site could take over: then the best of the others leads.
            _ => {
                self.preferred = None;
                match (closed, outlook) {
                    (None, _) => return Decision::Stay,
                    (Some(_), None) => {
                        self.better = None;
                        return Decision::Stay;
                    }
                    (Some(_), Some(outlook)) => (self.go_on(rule, view, &outlook), Reason::Latency),
                }
            }
        };
        let may_take_over =
            |id| view.members.iter().any(|member| member.id == id && rule.may_take_over(view, member));
        match streak {
            Some(streak)
                if streak.windows >= rule.windows && unmoved >= rule.rest && may_take_over(streak.to) =>
            {
                Decision::Move { to: streak.to, reason }
            }
            _ => Decision::Stay,
        }
    }

    /// The counts of the window, if it is over. Sites without a member count as unknown, so that their number is bounded.
    fn close_window(&mut self, rule: &Rule, view: &View, counted: Counted) -> Option<Counted> {
        for (site, count) in counted {
            let is_known = view.members.iter().any(|member| member.site == site);
            let sum = self.counted.entry(if is_known { site } else { String::new() }).or_default();
            *sum = sum.saturating_add(count);
        }
        let enough = self.counted.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        (enough >= rule.submissions.max(1)).then(|| std::mem::take(&mut self.counted))
    }

    /// One more window in which a voter at the preferred site can take over: the same one as long as it can, else the best.
    fn towards(&mut self, rule: &Rule, view: &View, home: &str) -> Option<Streak> {
        let can = |member: &&Member| member.site == home && rule.may_take_over(view, member);
        let before =
            self.preferred.filter(|streak| view.members.iter().filter(can).any(|m| m.id == streak.to));
        self.preferred = match before {
            Some(streak) => Some(Streak { windows: streak.windows.saturating_add(1), ..streak }),
            None => {
                let latency = |id| self.outlook.as_ref().and_then(|o| o.there.get(&id).copied());
                let known = view.members.iter().filter(can);
                let candidates = known.map(|m| (latency(m.id).unwrap_or(Duration::MAX), m.id));
                best(candidates.collect(), view.shard).map(|to| Streak { to, windows: 1 })
            }
        };
        self.preferred
    }

    /// One more window in which another voter is better: the same one as long as it is, else the best.
    fn go_on(&mut self, rule: &Rule, view: &View, outlook: &Outlook) -> Option<Streak> {
        let pays = |there: &Duration| rule.pays(outlook.here, *there);
        let before = self.better.filter(|streak| outlook.there.get(&streak.to).is_some_and(pays));
        self.better = match before {
            Some(streak) => Some(Streak { windows: streak.windows.saturating_add(1), ..streak }),
            None => {
                let members = view.members.iter().filter(|member| rule.may_take_over(view, member));
                let better = members.filter_map(|m| Some((*outlook.there.get(&m.id)?, m.id)));
                let better = better.filter(|(there, _)| pays(there)).collect();
                best(better, view.shard).map(|to| Streak { to, windows: 1 })
            }
        };
        self.better
    }
}

/// The fastest. Of those that are within the same millisecond the shards choose in turn, so that one does not lead them all.
fn best(mut candidates: Vec<(Duration, NodeId)>, shard: ShardId) -> Option<NodeId> {
    let fastest = candidates.iter().map(|(latency, _)| latency.as_millis()).min()?;
    candidates.retain(|(latency, _)| latency.as_millis() == fastest);
    candidates.sort_unstable_by_key(|(_, id)| *id);
    let turn = usize::try_from(shard).ok()? % candidates.len();
    candidates.get(turn).map(|(_, id)| *id)
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
