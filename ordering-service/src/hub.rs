//! Who follows which group and inbox on this node. A change only leaves a mark; readers fetch entries themselves, at their own
//! pace, so that a slow reader costs a mark and a cursor.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    limits,
    raft::types::ShardId,
    storage::{Advanced, ApplyObserver},
};

/// Parts of the table, each with a lock of its own.
const PARTS: usize = 16;

/// What can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A group's log.
    Group,
    /// A client's inbox.
    Inbox,
}

/// Everything that is followed on a node.
pub struct Hub {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
    count: AtomicUsize,
    streams: AtomicUsize,
}

#[derive(Default)]
struct Part {
    groups: HashMap<Bytes, Vec<Follower>>,
    inboxes: HashMap<Bytes, Vec<Follower>>,
}

#[derive(Clone)]
struct Follower {
    marks: Arc<Marks>,
    id: u64,
}

/// The ids of one stream that have something new.
#[derive(Default)]
pub struct Marks {
    state: Mutex<MarkState>,
    marked: Notify,
}

#[derive(Default)]
struct MarkState {
    queue: VecDeque<u64>,
    queued: HashSet<u64>,
}

impl Marks {
    /// Marks an id. Marking it twice is marking it once.
    pub fn mark(&self, id: u64) {
        let mut state = self.state.lock();
        if state.queued.insert(id) {
            state.queue.push_back(id);
            drop(state);
            self.marked.notify_one();
        }
    }

    /// The id that was marked first, once there is one. Its mark is taken away.
    pub async fn next(&self) -> u64 {
        loop {
            if let Some(id) = self.take() {
                return id;
            }
            self.marked.notified().await;
        }
    }

    /// The same, if there is one already.
    pub fn take(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let id = state.queue.pop_front()?;
        state.queued.remove(&id);
        Some(id)
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            parts: Default::default(),
            count: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
        }
    }
}

impl Hub {
    /// From now on every change of `key` marks `id`.
    pub fn follow(&self, topic: Topic, key: Bytes, marks: &Arc<Marks>, id: u64) {
        let follower = Follower { marks: marks.clone(), id };
        self.part(&key).lock().table(topic).entry(key).or_default().push(follower);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends what [`Hub::follow`] began.
    pub fn unfollow(&self, topic: Topic, key: &Bytes, marks: &Arc<Marks>, id: u64) {
        let mut part = self.part(key).lock();
        let table = part.table(topic);
        let Some(followers) = table.get_mut(key) else { return };
        let Some(at) = followers.iter().position(|f| f.id == id && Arc::ptr_eq(&f.marks, marks)) else {
            return;
        };
        followers.swap_remove(at);
        if followers.is_empty() {
            table.remove(key);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Something new can be read.
    pub fn changed(&self, topic: Topic, key: &[u8]) {
        if self.count() == 0 {
            return;
        }
        if let Some(followers) = self.part(key).lock().table(topic).get(key) {
            for follower in followers {
                follower.marks.mark(follower.id);
            }
        }
    }

    /// Anything may have changed: a snapshot was installed.
    pub fn all_changed(&self) {
        for part in &self.parts {
            let part = part.lock();
            for follower in part.groups.values().chain(part.inboxes.values()).flatten() {
                follower.marks.mark(follower.id);
            }
        }
    }

    /// Counts one more stream. False if there are too many.
    pub fn open_stream(&self) -> bool {
        let more = |open| (open < limits::SUBSCRIBE_STREAMS).then_some(open + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Counts one stream less.
    pub fn close_stream(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// How much is followed.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn part(&self, key: &[u8]) -> &Mutex<Part> {
        let hash = self.hasher.hash_one(key);
        &self.parts[usize::try_from(hash % PARTS as u64).unwrap_or(0)]
    }
}

impl ApplyObserver for Hub {
    fn applied(&self, _shard: ShardId, _last_applied: u64, advanced: &[Advanced]) {
        if self.count() == 0 {
            return;
        }
        for advanced in advanced {
            match advanced {
                Advanced::Group { group_id, .. } => self.changed(Topic::Group, group_id),
                Advanced::Inbox { client_id, .. } => self.changed(Topic::Inbox, client_id),
            }
        }
    }

    fn installed(&self, _shard: ShardId, _last_applied: u64) {
        self.all_changed();
    }
}

impl Part {
    fn table(&mut self, topic: Topic) -> &mut HashMap<Bytes, Vec<Follower>> {
        match topic {
            Topic::Group => &mut self.groups,
            Topic::Inbox => &mut self.inboxes,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_change_marks_its_followers_once_until_they_look() {
        let hub = Hub::default();
        let marks = Arc::new(Marks::default());
        let key = Bytes::from_static(b"group");
        hub.changed(Topic::Group, &key);
        hub.follow(Topic::Group, key.clone(), &marks, 3);
        hub.changed(Topic::Group, &key);
        hub.changed(Topic::Group, &key);
        hub.changed(Topic::Group, b"another");
        hub.changed(Topic::Inbox, &key);
        assert_eq!(marks.next().now_or_never(), Some(3));
        assert_eq!(marks.next().now_or_never(), None);
        hub.all_changed();
        assert_eq!(marks.next().now_or_never(), Some(3));
        hub.unfollow(Topic::Group, &key, &marks, 3);
        hub.changed(Topic::Group, &key);
        assert_eq!(marks.next().now_or_never(), None);
        assert_eq!(hub.count(), 0);
    }

    #[test]
    fn marks_come_in_the_order_of_the_first_change() {
        let marks = Marks::default();
        for id in [5, 1, 5, 9] {
            marks.mark(id);
        }
        let order: Vec<_> = std::iter::from_fn(|| marks.take()).collect();
        assert_eq!(order, [5, 1, 9]);
    }
}
