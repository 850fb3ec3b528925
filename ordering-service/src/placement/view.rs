//! What a leader knows about the members of its shard, and what the network would make a commit take under each of them. Pure: no IO,
//! no clock.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    limits::UNMEASURED_ROUND_TRIP,
    raft::{
        round_trips::RoundTrips,
        types::{NodeId, ShardId},
    },
};

/// Submissions by the site that they came from; those of nobody who named one are under the empty name.
pub type Counted = BTreeMap<String, u64>;

/// One node of the shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub id: NodeId,
    /// Where it stands; empty if that is not known.
    pub site: String,
    /// It is a voter, not a learner.
    pub votes: bool,
    /// Log entries that it lacks. None if the leader does not know.
    pub lag: Option<u64>,
    /// How long ago it was last known to be there. None if it never was.
    pub last_contact: Option<Duration>,
    /// It wants no leadership now.
    pub should_not_lead: bool,
}

/// A shard as its leader knows it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The shard.
    pub shard: ShardId,
    /// The leader.
    pub me: NodeId,
    /// All members, the leader among them.
    pub members: Vec<Member>,
    /// Between them.
    pub round_trips: RoundTrips,
    /// A member that was heard within this time is there.
    pub contact_within: Duration,
    /// Where the operator wants the leader.
    pub preferred: Option<String>,
}

/// What the network alone makes a commit take, as the mean over the submissions that were counted: from where they came to the leader,
/// and from there to the slowest voter of the fastest majority, each way and back. Submissions from where nothing is known count as if
/// they came from beside the leader, whoever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// With the present leader.
    pub here: Duration,
    /// With each other voter that is there and may lead, as far as that is known.
    pub there: BTreeMap<NodeId, Duration>,
}

impl Outlook {
    /// The best of all, if not the present leader (None), and what commits take there.
    pub fn best(&self) -> (Option<NodeId>, Duration) {
        let other = self.there.iter().min_by_key(|(id, latency)| (**latency, **id));
        match other {
            Some((id, latency)) if *latency < self.here => (Some(*id), *latency),
            _ => (None, self.here),
        }
    }
}

impl View {
    /// The leader.
    pub fn leader(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.id == self.me)
    }

    /// The member is there: the leader itself, and whoever was heard lately.
    pub fn is_there(&self, member: &Member) -> bool {
        member.id == self.me || member.last_contact.is_some_and(|ago| ago <= self.contact_within)
    }

    /// The member could lead, once it has caught up.
    pub fn may_lead(&self, member: &Member) -> bool {
        member.votes && !member.should_not_lead && self.is_there(member)
    }

    /// What commits take under each leader that is possible. None if nothing was counted, or if the way to a majority is not known.
    pub fn outlook(&self, counted: &Counted) -> Option<Outlook> {
        let leader = self.leader()?;
        let total: u64 = counted.values().sum();
        // Where the way to the present leader is not known, nothing can be said for or against another.
        let known: Vec<(&str, u64)> = counted
            .iter()
            .filter(|(site, _)| self.way_from(site, leader).is_some())
            .map(|(site, count)| (site.as_str(), *count))
            .collect();
        let here = self.expected(leader, &known, total)?;
        let others = self.members.iter().filter(|member| member.id != self.me && self.may_lead(member));
        let there = others.filter_map(|other| Some((other.id, self.expected(other, &known, total)?)));
        Some(Outlook { here, there: there.collect() })
    }

    fn expected(&self, leader: &Member, from: &[(&str, u64)], total: u64) -> Option<Duration> {
        let mut ways = 0_u128;
        for (site, count) in from {
            ways += self.way_from(site, leader)?.as_nanos() * u128::from(*count);
        }
        let mean = ways.checked_div(u128::from(total))?;
        Some(Duration::from_nanos(u64::try_from(mean).ok()?) + self.to_majority(leader)?)
    }

    /// To a node from whichever node is nearest of those that stand where the submissions come from.
    fn way_from(&self, site: &str, to: &Member) -> Option<Duration> {
        let beside = self.members.iter().filter(|member| !site.is_empty() && member.site == site);
        beside.filter(|member| self.is_there(member)).filter_map(|member| self.round_trip(member, to)).min()
    }

    /// Until a majority has an entry, if this voter led: the leader is one of them.
    fn to_majority(&self, leader: &Member) -> Option<Duration> {
        let needed = self.members.iter().filter(|member| member.votes).count() / 2;
        let followers = self.members.iter().filter(|member| member.votes && member.id != leader.id);
        let mut trips: Vec<Duration> = followers
            .filter(|follower| self.is_there(follower))
            .filter_map(|follower| self.round_trip(leader, follower))
            .collect();
        trips.sort_unstable();
        match needed.checked_sub(1) {
            None => Some(Duration::ZERO),
            Some(last) => trips.get(last).copied(),
        }
    }

    /// As measured; as long as nothing at all was measured, equal names of sites stand for a short way and others for a long one.
    fn round_trip(&self, a: &Member, b: &Member) -> Option<Duration> {
        match self.round_trips.is_empty() {
            true if a.id == b.id || (a.site == b.site && !a.site.is_empty()) => Some(Duration::ZERO),
            true => Some(UNMEASURED_ROUND_TRIP),
            false => self.round_trips.between(a.id, b.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Voters 1, 2, ... at these sites, led by node 1.
    fn view(sites: &[&str], round_trips: &[(NodeId, NodeId, u64)]) -> View {
        let members = sites.iter().zip(1..).map(|(site, id)| Member {
            id,
            site: (*site).into(),
            votes: true,
            lag: Some(0),
            last_contact: Some(ms(10)),
            should_not_lead: false,
        });
        let mut trips = RoundTrips::default();
        round_trips.iter().for_each(|(a, b, trip)| trips.note(*a, *b, ms(*trip)));
        View {
            shard: 1,
            me: 1,
            members: members.collect(),
            round_trips: trips,
            contact_within: ms(1000),
            preferred: None,
        }
    }

    fn counted(counts: &[(&str, u64)]) -> Counted {
        counts.iter().map(|(site, count)| ((*site).into(), *count)).collect()
    }

    #[test]
    fn a_commit_takes_the_way_to_the_leader_and_that_to_the_nearest_majority() {
        let view = view(&["a", "b", "c"], &[(1, 2, 20), (1, 3, 80), (2, 3, 70)]);
        let outlook = view.outlook(&counted(&[("a", 1), ("c", 4)])).unwrap();
        assert_eq!(outlook.here, ms(4 * 80 / 5 + 20));
        assert_eq!(outlook.there, BTreeMap::from([(2, ms((20 + 4 * 70) / 5 + 20)), (3, ms(80 / 5 + 70))]));
        assert_eq!(view.outlook(&Counted::new()), None);
    }

    #[test]
    fn the_majority_of_five_needs_the_second_fastest_follower_and_one_voter_needs_none() {
        let five = view(&["a"; 5], &[(1, 2, 9), (1, 3, 3), (1, 4, 5), (1, 5, 7)]);
        assert_eq!(five.outlook(&counted(&[("a", 1)])).map(|o| o.here), Some(ms(5)));
        let alone = view(&["a"], &[(1, 9, 1)]);
        assert_eq!(alone.outlook(&counted(&[("a", 1)])).map(|o| o.here), Some(ms(0)));
    }

    #[test]
    fn where_nobody_knows_the_way_from_nothing_is_said_for_anybody() {
        let view = view(&["a", "b", "c"], &[(1, 2, 20), (1, 3, 80), (2, 3, 70)]);
        let outlook = view.outlook(&counted(&[("", 7), ("d", 2), ("b", 1)])).unwrap();
        assert_eq!(outlook.here, ms(20 / 10 + 20), "nine of ten count without their way");
        assert_eq!(outlook.there[&2], ms(20));
    }

    #[test]
    fn who_is_not_there_is_nobodys_majority_and_nobodys_leader() {
        let mut view = view(&["a", "b", "c"], &[(1, 2, 20), (1, 3, 80), (2, 3, 70)]);
        view.members[1].last_contact = Some(ms(1001));
        let outlook = view.outlook(&counted(&[("c", 1), ("b", 1)])).unwrap();
        assert_eq!(outlook.here, ms(80 / 2 + 80));
        assert_eq!(outlook.there, BTreeMap::from([(3, ms(80))]));
        view.members[2].should_not_lead = true;
        assert_eq!(view.outlook(&counted(&[("c", 1)])).map(|o| o.there), Some(BTreeMap::new()));
        view.members[2].last_contact = None;
        assert_eq!(view.outlook(&counted(&[("c", 1)])), None, "without a majority nothing can be said");
    }

    #[test]
    fn a_learner_leads_nothing_but_tells_how_far_its_site_is() {
        let mut view =
            view(&["a", "b", "c", "d"], &[(1, 2, 20), (1, 3, 30), (1, 4, 40), (2, 4, 4), (2, 3, 9)]);
        view.members[3].votes = false;
        let outlook = view.outlook(&counted(&[("d", 1)])).unwrap();
        assert_eq!(outlook.here, ms(40 + 20));
        // From d to node 3 nothing was measured.
        assert_eq!(outlook.there, BTreeMap::from([(2, ms(4 + 9))]));
    }

    #[test]
    fn before_anything_was_measured_equal_sites_are_near() {
        let view = view(&["a", "b", "b"], &[]);
        let outlook = view.outlook(&counted(&[("b", 1)])).unwrap();
        assert_eq!(outlook.here, UNMEASURED_ROUND_TRIP * 2);
        assert_eq!(outlook.there, BTreeMap::from([(2, ms(0)), (3, ms(0))]));
    }
}
