//! Commits that compete for one epoch of one group: one is under way to Raft at a time, the others wait for its end, so that a
//! contended group does not fill the log with commits that lose.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::outbox::Outbox;
use crate::{
    limits,
    raft::{
        responder::ResultSink,
        types::{ShardId, TypeConfig},
    },
};

/// An epoch of a group, which one commit can end.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Race {
    /// Where the group lives.
    pub(crate) shard: ShardId,
    /// The group.
    pub(crate) group_id: Bytes,
    /// The epoch.
    pub(crate) epoch: u64,
}

/// A submission on its way to a decision.
pub(crate) struct Waiting {
    /// Takes the answer.
    pub(crate) outbox: Arc<Outbox>,
    /// Names the submission there.
    pub(crate) token: u64,
    /// The shard it came for.
    pub(crate) shard: ShardId,
    /// The encoded command.
    pub(crate) command: Bytes,
}

/// The races of a node.
pub(crate) struct Races {
    running: Mutex<HashMap<Race, VecDeque<Waiting>>>,
    /// Those that waited for a race that is decided. Unbounded, but everything in it is counted as under way.
    again: mpsc::UnboundedSender<VecDeque<Waiting>>,
}

/// What to do with a commit.
pub(crate) enum Entered {
    /// It is the first: propose it, and answer through the sink.
    First(Arc<Runner>, Waiting),
    /// It waits.
    Waits,
    /// Too many wait already.
    Full(Waiting),
}

impl Races {
    /// None yet. The receiver gets those that have waited, to be decided anew.
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<VecDeque<Waiting>>) {
        let (again, waited) = mpsc::unbounded_channel();
        (Arc::new(Self { running: Mutex::default(), again }), waited)
    }

    /// Enters a commit into a race.
    pub(crate) fn enter(self: &Arc<Self>, race: Race, commit: Waiting) -> Entered {
        match self.running.lock().entry(race) {
            Entry::Occupied(mut running) => {
                let waiting = running.get_mut();
                if waiting.len() >= limits::WAITING_COMMITS_PER_GROUP {
                    return Entered::Full(commit);
                }
                waiting.push_back(commit);
                Entered::Waits
            }
            Entry::Vacant(free) => {
                let race = free.key().clone();
                free.insert(VecDeque::new());
                let outbox = commit.outbox.clone();
                Entered::First(Arc::new(Runner { races: self.clone(), race, outbox }), commit)
            }
        }
    }

    /// Commits that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.running.lock().values().map(VecDeque::len).sum()
    }

    fn over(&self, race: &Race) {
        let waited = self.running.lock().remove(race).unwrap_or_default();
        if !waited.is_empty() {
            // The receiver is gone only when the node has stopped; then the streams are, too.
            let _ = self.again.send(waited);
        }
    }
}

/// The commit of a race that is under way to Raft. The race is over when this is dropped: whatever became of the commit.
pub(crate) struct Runner {
    races: Arc<Races>,
    race: Race,
    outbox: Arc<Outbox>,
}

impl ResultSink<ClientWriteResult<TypeConfig>> for Runner {
    fn complete(&self, token: u64, result: ClientWriteResult<TypeConfig>) {
        self.outbox.complete(token, result);
    }

    fn abandoned(&self, token: u64) {
        ResultSink::<ClientWriteResult<TypeConfig>>::abandoned(&*self.outbox, token);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.races.over(&self.race);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::submit::outbox::NodeLoad, metrics::NodeMetrics};

    fn commit(token: u64) -> Waiting {
        let outbox = Outbox::new(Arc::new(NodeLoad::default()), Arc::new(NodeMetrics::new(1)));
        Waiting { outbox, token, shard: 1, command: Bytes::new() }
    }

    fn race(epoch: u64) -> Race {
        Race { shard: 1, group_id: Bytes::from_static(b"g"), epoch }
    }

    #[test]
    fn one_commit_of_an_epoch_is_under_way_and_the_others_are_decided_after_it() {
        let (races, mut again) = Races::new();
        let Entered::First(runner, _) = races.enter(race(1), commit(1)) else { panic!("the first runs") };
        assert!(matches!(races.enter(race(1), commit(2)), Entered::Waits));
        assert!(
            matches!(races.enter(race(2), commit(3)), Entered::First(..)),
            "another epoch is another race"
        );
        assert_eq!(races.waiting(), 1);
        drop(runner);
        let waited = again.try_recv().expect("the one that waited");
        assert_eq!(waited.iter().map(|w| w.token).collect::<Vec<_>>(), [2]);
        assert!(matches!(races.enter(race(1), commit(4)), Entered::First(..)));
    }

    #[test]
    fn not_more_than_a_bounded_number_waits() {
        let (races, _again) = Races::new();
        let Entered::First(_runner, _) = races.enter(race(1), commit(0)) else { panic!("the first runs") };
        for token in 0..limits::WAITING_COMMITS_PER_GROUP as u64 {
            assert!(matches!(races.enter(race(1), commit(token)), Entered::Waits));
        }
        assert!(matches!(races.enter(race(1), commit(9)), Entered::Full(_)));
    }
}
