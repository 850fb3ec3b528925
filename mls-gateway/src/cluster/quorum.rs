//! What every node says about every shard: who leads it, and whether a quorum answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use concordat_proto::ordering::v1::{NotLeader, QuorumState, ShardQuorum};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::{
    limits::{DEAFNESS_EXCUSED_MAX, QUORUM_REPORT_TTL, SHARDS_MAX},
    metrics,
};

/// The newest reports of all nodes, and who is believed to lead.
pub struct QuorumBoard {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    cluster_id: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    /// By the address that the gateway reaches the node at.
    reports: BTreeMap<String, Report>,
    leaders: BTreeMap<u32, Leader>,
    proofs: BTreeMap<u32, Proof>,
}

/// A quorum of a shard answered its leader.
struct Proof {
    /// When, at the latest.
    at: Instant,
    /// So much of the time since then does not count as silence.
    excused: Duration,
}

struct Report {
    at: Instant,
    shards: BTreeMap<u32, ShardQuorum>,
}

#[derive(Default)]
struct Leader {
    term: u64,
    address: Option<String>,
    /// Where it stands; empty if nobody says.
    site: String,
}

impl QuorumBoard {
    /// Nothing is known yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            cluster_id: watch::Sender::new(None),
        })
    }

    /// Takes in a node's report. Returns the addresses of the leaders it names.
    pub fn report(&self, from: &str, state: QuorumState, now: Instant) -> Vec<String> {
        if !state.cluster_id.is_empty() {
            self.cluster_id.send_if_modified(|known| {
                let is_new = known.as_ref() != Some(&state.cluster_id);
                if is_new {
                    *known = Some(state.cluster_id.clone());
                }
                is_new
            });
        }
        let shards: BTreeMap<u32, ShardQuorum> =
            state.shards.into_iter().filter(|s| s.shard < SHARDS_MAX).map(|s| (s.shard, s)).collect();
        let mut board = self.state.lock();
        for shard in shards.values() {
            let Some(at) = now.checked_sub(Duration::from_millis(shard.quorum_age_ms)) else { continue };
            if board.proofs.get(&shard.shard).is_none_or(|proof| proof.at < at) {
                board.proofs.insert(shard.shard, Proof { at, excused: Duration::ZERO });
            }
        }
        let mut changed = false;
        let mut named = Vec::new();
        for shard in shards.values().filter(|s| s.leader_node_id != 0 && !s.leader_address.is_empty()) {
            let leader = board.leaders.entry(shard.shard).or_default();
            // There is one leader a term, so a report of the same term also corrects a hint.
            if shard.term >= leader.term {
                leader.site.clone_from(&shard.leader_site);
                if leader.address.as_ref() != Some(&shard.leader_address) {
                    leader.address = Some(shard.leader_address.clone());
                    changed = true;
                    metrics::leader_change(shard.shard);
                }
            }
            leader.term = leader.term.max(shard.term);
            named.push(shard.leader_address.clone());
        }
        let known = board.reports.contains_key(from);
        board.reports.insert(from.to_owned(), Report { at: now, shards });
        drop(board);
        if changed || !known {
            self.changed.send_replace(());
        }
        named
    }

    /// A node can no longer be heard.
    pub fn forget(&self, from: &str) {
        self.state.lock().reports.remove(from);
    }

    /// The address of the node that is believed to lead a shard.
    pub fn leader(&self, shard: u32) -> Option<String> {
        self.state.lock().leaders.get(&shard).and_then(|l| l.address.clone())
    }

    /// The site of the node that is believed to lead a shard; empty if nobody says.
    pub fn leader_site(&self, shard: u32) -> String {
        self.state.lock().leaders.get(&shard).map(|l| l.site.clone()).unwrap_or_default()
    }

    /// Takes in that the node at `asked` does not lead a shard.
    pub fn not_leader(&self, shard: u32, asked: &str, hint: &NotLeader) {
        let mut board = self.state.lock();
        let leader = board.leaders.entry(shard).or_default();
        let named = Some(hint.leader_address.clone()).filter(|a| !a.is_empty());
        // Somebody else may have corrected the belief meanwhile.
        if leader.address.as_deref() == Some(asked) || leader.address.is_none() {
            let new = named.filter(|a| a != asked);
            if new.is_some() {
                metrics::leader_change(shard);
            }
            leader.address = new;
            leader.site.clear();
        }
    }

    /// Completes when a leader changes or a node reports for the first time.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Every shard that a node has reported.
    pub fn shards(&self) -> BTreeSet<u32> {
        self.state.lock().reports.values().flat_map(|r| r.shards.keys().copied()).collect()
    }

    /// Some node has lately reported a quorum for the shard.
    pub fn has_quorum(&self, shard: u32, now: Instant) -> bool {
        self.state.lock().reports.values().any(|r| r.is_fresh(now) && r.quorum_of(shard))
    }

    /// Shards whose quorum has answered within `ttl`, as far as any node has told. What a node thinks of that age is not asked: it is the
    /// same age for everybody, and nobody's limit but the reader's ends it.
    pub fn quorum_of_shards(&self, now: Instant, ttl: Duration) -> BTreeSet<u32> {
        let board = self.state.lock();
        let silence = |proof: &Proof| now.saturating_duration_since(proof.at).saturating_sub(proof.excused);
        board.proofs.iter().filter(|(_, proof)| silence(proof) <= ttl).map(|(shard, _)| *shard).collect()
    }

    /// For so long this process did not get to listen: that is no silence of the nodes. At most [`DEAFNESS_EXCUSED_MAX`] is excused until
    /// the next proof, so that a loss is noticed in time on a busy machine, too.
    pub fn excuse(&self, deaf: Duration) {
        for proof in self.state.lock().proofs.values_mut() {
            proof.excused = (proof.excused + deaf).min(DEAFNESS_EXCUSED_MAX);
        }
    }

    /// The cluster that the nodes belong to, once one has said so.
    pub fn cluster_id(&self) -> watch::Receiver<Option<String>> {
        self.cluster_id.subscribe()
    }

    /// The node at `address` is in touch with a quorum of every shard that anybody is in touch with.
    pub fn is_current(&self, address: &str, now: Instant) -> bool {
        let board = self.state.lock();
        let fresh = || board.reports.values().filter(|r| r.is_fresh(now));
        match board.reports.get(address).filter(|r| r.is_fresh(now)) {
            Some(own) => {
                let served: BTreeSet<u32> = fresh().flat_map(|r| r.shards.keys().copied()).collect();
                served.into_iter().all(|shard| own.quorum_of(shard) || !fresh().any(|r| r.quorum_of(shard)))
            }
            None => fresh().next().is_none(),
        }
    }
}

impl Report {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) <= QUORUM_REPORT_TTL
    }

    fn quorum_of(&self, shard: u32) -> bool {
        self.shards.get(&shard).is_some_and(|s| s.has_quorum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(term: u64, leader: &str, has_quorum: bool) -> QuorumState {
        let shard = ShardQuorum {
            shard: 1,
            term,
            leader_node_id: u64::from(!leader.is_empty()),
            leader_address: leader.into(),
            has_quorum,
            quorum_age_ms: 0,
            leader_site: String::new(),
        };
        QuorumState { node_id: 1, cluster_id: "c".into(), shards: vec![shard] }
    }

    #[tokio::test]
    async fn the_leader_of_the_highest_term_is_believed() {
        let (board, now) = (QuorumBoard::new(), Instant::now());
        board.report("a", state(2, "b", true), now);
        board.report("c", state(1, "a", true), now);
        assert_eq!(board.leader(1).as_deref(), Some("b"));
        board.report("c", state(3, "c", true), now);
        assert_eq!(board.leader(1).as_deref(), Some("c"));
        board.report("a", state(3, "", true), now);
        assert_eq!(board.leader(1).as_deref(), Some("c"));
    }

    #[tokio::test]
    async fn a_node_that_does_not_lead_corrects_the_belief_only_about_itself() {
        let (board, now) = (QuorumBoard::new(), Instant::now());
        board.report("a", state(2, "b", true), now);
        board.not_leader(1, "a", &NotLeader { leader_node_id: 3, leader_address: "c".into() });
        assert_eq!(board.leader(1).as_deref(), Some("b"));
        board.not_leader(1, "b", &NotLeader { leader_node_id: 0, leader_address: String::new() });
        assert_eq!(board.leader(1), None);
        board.report("a", state(2, "b", true), now);
        assert_eq!(board.leader(1).as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn the_site_of_a_leader_is_known_as_long_as_the_leader_is() {
        let (board, now) = (QuorumBoard::new(), Instant::now());
        let at = |term, leader: &str, site: &str| {
            let mut state = state(term, leader, true);
            state.shards[0].leader_site = site.into();
            state
        };
        assert_eq!(board.leader_site(1), "");
        board.report("a", at(1, "a", "north"), now);
        board.report("a", at(2, "b", "south"), now);
        assert_eq!(board.leader_site(1), "south");
        board.not_leader(1, "b", &NotLeader { leader_node_id: 1, leader_address: "a".into() });
        assert_eq!(board.leader_site(1), "", "a hint names no site");
        board.report("a", at(3, "a", "north"), now);
        assert_eq!(board.leader_site(1), "north");
        board.report("a", at(3, "c", ""), now);
        assert_eq!(board.leader_site(1), "");
    }

    #[tokio::test]
    async fn a_quorum_counts_from_when_it_answered_whoever_tells() {
        let (board, now, ms) =
            (QuorumBoard::new(), Instant::now() + QUORUM_REPORT_TTL, Duration::from_millis);
        let aged = |age, has_quorum| {
            let mut state = state(1, "a", has_quorum);
            state.shards[0].quorum_age_ms = age;
            state
        };
        let ttl = ms(500);
        assert!(board.quorum_of_shards(now, ttl).is_empty());
        board.report("a", aged(u64::MAX, false), now);
        assert!(board.quorum_of_shards(now, ttl).is_empty(), "no quorum was ever seen there");
        // It is the reader who says how old is too old.
        board.report("a", aged(300, false), now);
        board.report("b", aged(400, false), now);
        assert_eq!(board.quorum_of_shards(now + ms(200), ttl), [1].into());
        assert!(board.quorum_of_shards(now + ms(201), ttl).is_empty());
        board.report("b", aged(u64::MAX, false), now);
        board.forget("a");
        assert_eq!(board.quorum_of_shards(now + ms(200), ttl), [1].into(), "an election does not undo it");
    }

    #[tokio::test]
    async fn time_in_which_nobody_listened_is_no_silence_but_not_for_ever() {
        let (board, now, ms) = (QuorumBoard::new(), Instant::now(), Duration::from_millis);
        board.report("a", state(1, "a", true), now);
        let ttl = ms(500);
        board.excuse(ms(100));
        assert_eq!(board.quorum_of_shards(now + ms(600), ttl), [1].into());
        assert!(board.quorum_of_shards(now + ms(601), ttl).is_empty());
        board.excuse(ms(60_000));
        let most = ttl + DEAFNESS_EXCUSED_MAX;
        assert_eq!(board.quorum_of_shards(now + most, ttl), [1].into());
        assert!(board.quorum_of_shards(now + most + ms(1), ttl).is_empty());
        board.report("a", state(1, "a", true), now);
        assert_eq!(
            board.quorum_of_shards(now + most, ttl),
            [1].into(),
            "the same proof again changes nothing"
        );
        board.report("a", state(1, "a", true), now + ms(1));
        assert!(board.quorum_of_shards(now + ms(502), ttl).is_empty(), "a new one begins anew");
    }

    #[tokio::test]
    async fn a_quorum_counts_while_its_report_is_fresh() {
        let (board, now) = (QuorumBoard::new(), Instant::now());
        board.report("a", state(1, "a", true), now);
        board.report("b", state(1, "a", false), now);
        assert!(board.has_quorum(1, now) && !board.has_quorum(2, now));
        assert!(board.is_current("a", now) && !board.is_current("b", now) && !board.is_current("c", now));
        assert!(!board.has_quorum(1, now + QUORUM_REPORT_TTL * 2));
        board.forget("a");
        assert!(!board.has_quorum(1, now) && board.is_current("b", now));
    }
}
