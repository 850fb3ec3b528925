//! Who was a member of a group in which epoch, as its founder sees it: what the proof compares everybody's messages with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mls_client::{Event, EventKind, GroupId};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
};

use crate::world::Member;

/// The members after each commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    /// By epoch: the members in it, and the entry that began it.
    epochs: BTreeMap<u64, (BTreeSet<Vec<u8>>, u64)>,
    /// Events were missed; nothing can be proved any more.
    pub(crate) incomplete: bool,
}

impl Timeline {
    /// The members in `epoch`.
    pub(crate) fn members(&self, epoch: u64) -> Option<&BTreeSet<Vec<u8>>> {
        self.epochs.get(&epoch).map(|(members, _)| members)
    }

    /// The members when entry `seq` came into the log.
    pub(crate) fn members_at(&self, seq: u64) -> Option<&BTreeSet<Vec<u8>>> {
        self.epochs.values().rev().find(|(_, begun)| *begun < seq).map(|(members, _)| members)
    }

    /// The newest epoch and its members.
    pub(crate) fn newest(&self) -> Option<(u64, &BTreeSet<Vec<u8>>)> {
        self.epochs.last_key_value().map(|(epoch, (members, _))| (*epoch, members))
    }
}

/// Keeps a timeline up to date.
pub(crate) struct Roster {
    timeline: Arc<Mutex<Timeline>>,
    task: JoinHandle<()>,
}

/// Events that were subscribed to and not read yet.
pub(crate) struct Listener {
    founder: Vec<u8>,
    events: Receiver<Event>,
}

impl Roster {
    pub(crate) fn listen(founder: &Member) -> Listener {
        Listener { founder: founder.id().as_bytes().to_vec(), events: founder.client.events() }
    }

    pub(crate) fn timeline(&self) -> Timeline {
        lock(&self.timeline).clone()
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Listener {
    pub(crate) fn follow(self, group: &GroupId) -> Roster {
        let timeline = Arc::new(Mutex::new(Timeline::default()));
        let task = tokio::spawn(follow(self, group.clone(), Arc::clone(&timeline)));
        Roster { timeline, task }
    }
}

async fn follow(mut listener: Listener, group: GroupId, timeline: Arc<Mutex<Timeline>>) {
    let mut members = BTreeSet::from([listener.founder]);
    loop {
        let event = match listener.events.recv().await {
            Ok(event) if event.group == group => event.kind,
            Ok(_) => continue,
            Err(RecvError::Lagged(_)) => {
                lock(&timeline).incomplete = true;
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        match event {
            EventKind::Joined { epoch } => {
                lock(&timeline).epochs.insert(epoch, (members.clone(), 0));
            }
            EventKind::MemberAdded { member } => {
                members.insert(member);
            }
            EventKind::MemberRemoved { member } => {
                members.remove(&member);
            }
            // Told after the changes that it brought.
            EventKind::EpochChanged { seq, epoch, .. } => {
                lock(&timeline).epochs.insert(epoch, (members.clone(), seq));
            }
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_of_the_last_commit_before_an_entry() {
        let set = |names: &[&str]| names.iter().map(|n| n.as_bytes().to_vec()).collect::<BTreeSet<_>>();
        let mut timeline = Timeline::default();
        timeline.epochs.insert(0, (set(&["a"]), 0));
        timeline.epochs.insert(1, (set(&["a", "b"]), 2));
        assert_eq!(timeline.members_at(2), Some(&set(&["a"])));
        assert_eq!(timeline.members_at(3), Some(&set(&["a", "b"])));
        assert_eq!(timeline.newest().map(|(epoch, _)| epoch), Some(1));
    }
}
