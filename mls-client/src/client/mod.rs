//! The facade: one client with its groups, its gateway and its state file.

mod branches;
mod change;
mod commits;
mod counters;
mod create;
mod in_turn;
mod inbox;
mod key_packages;
mod messages;
mod retry;
mod run;
mod sync;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use group_log::{ClientId, GroupId};
use openmls_rust_crypto::RustCrypto;
use service_kit::rng::Randomness;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Notify, broadcast, watch},
};

use self::counters::Tally;
pub use self::{
    change::Change, commits::Committed, counters::Counters, create::NewGroup, key_packages::KeyPackageCount,
    messages::Sent, run::Running,
};
use crate::{
    error::Error,
    event::Event,
    group::{GroupView, GroupWork},
    identity::Identity,
    limits::{BACKOFF_MAX, BACKOFF_MIN, EVENT_QUEUE, MAX_COMMIT_ATTEMPTS, ONE_TIME_KEY_PACKAGES},
    store::{GroupRecord, Store, StoredMessage},
    transport::Transport,
};

/// How a client behaves. The default suits a person's client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a call is made again while the gateway cannot answer. What was begun stays stored, and goes on later.
    pub patience: Duration,
    /// Pauses before trying again: the first one. Each is drawn at random around its length.
    pub first_pause: Duration,
    /// Pauses before trying again: they double up to this one.
    pub longest_pause: Duration,
    /// How often a commit is built again on a winner, in attempts.
    pub max_commit_attempts: u32,
    /// One-time KeyPackages kept with the gateway.
    pub one_time_key_packages: u32,
    /// Handshake messages are encrypted. Gateways cannot validate commits then, and do not see who does what.
    pub private_handshakes: bool,
    /// While running: commit what other members have proposed.
    pub commit_proposals: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            patience: Duration::from_secs(60),
            first_pause: BACKOFF_MIN,
            longest_pause: BACKOFF_MAX,
            max_commit_attempts: MAX_COMMIT_ATTEMPTS,
            one_time_key_packages: ONE_TIME_KEY_PACKAGES,
            private_handshakes: false,
            commit_proposals: true,
        }
    }
}

/// One client. Clones are handles of the same one; every method may be called from any task.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    store: Mutex<Store>,
    identity: Identity,
    crypto: Arc<RustCrypto>,
    transport: Arc<dyn Transport>,
    options: Options,
    rng: Randomness,
    events: broadcast::Sender<Event>,
    tally: Tally,
    /// Something about the set of groups, or what they wait for, has changed.
    changed: Notify,
    /// Counts what gateways have said about how groups are served from now on.
    decisions: watch::Sender<u64>,
    turns: Mutex<HashMap<GroupId, Arc<Turns>>>,
}

/// One operation of a kind at a time in each group. What is under way is in the store, so these guard order, not state.
#[derive(Default)]
struct Turns {
    commit: tokio::sync::Mutex<()>,
    send: tokio::sync::Mutex<()>,
}

impl Client {
    /// A client over the identity in `store`, reaching a gateway through `transport`. Does not connect yet.
    pub fn new(
        store: Store,
        transport: Arc<dyn Transport>,
        options: Options,
        rng: Randomness,
    ) -> Result<Client, Error> {
        let identity = Identity::load(&store)?.ok_or(Error::NoIdentity)?;
        let inner = Inner {
            store: Mutex::new(store),
            identity,
            crypto: Arc::default(),
            transport,
            options,
            rng,
            events: broadcast::channel(EVENT_QUEUE).0,
            tally: Tally::default(),
            changed: Notify::new(),
            decisions: watch::Sender::new(0),
            turns: Mutex::default(),
        };
        Ok(Client { inner: Arc::new(inner) })
    }

    /// Names this client.
    pub fn id(&self) -> &ClientId {
        self.inner.identity.client_id()
    }

    /// Everything that happens from now on. A receiver that lags behind misses events, never messages: those stay in the store.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// What this client has counted.
    pub fn counters(&self) -> Counters {
        self.inner.tally.read()
    }

    /// All groups that this client knows, also those that it has left.
    pub fn groups(&self) -> Result<Vec<GroupView>, Error> {
        let ids = self.with_store(|store| store.group_ids())?;
        ids.iter().map(|id| self.group(id)).collect()
    }

    /// One group as this client has it.
    pub fn group(&self, group: &GroupId) -> Result<GroupView, Error> {
        if self.has_branches(group) {
            return self.branch_view(group);
        }
        self.with_store(|store| {
            Ok(GroupWork::load(store, &self.inner.crypto, group)?.ok_or(Error::UnknownGroup)?.view())
        })
    }

    /// Decrypted messages of a group after the one with the number `after_seq`, one's own among them, in the order in which this
    /// client came to know them, at most `max`.
    pub fn messages(&self, group: &GroupId, after_seq: u64, max: usize) -> Result<Vec<StoredMessage>, Error> {
        Ok(self.with_store(|store| store.messages(group, after_seq, max))?)
    }

    /// Deletes decrypted messages of a group up to and including the one with the number `up_to_seq`.
    pub fn forget_messages(&self, group: &GroupId, up_to_seq: u64) -> Result<(), Error> {
        Ok(self.with_store(|store| store.forget_messages(group, up_to_seq))?)
    }

    /// Forgets a group that this client has left, with its messages.
    pub fn forget_group(&self, group: &GroupId) -> Result<(), Error> {
        let record = self.record(group)?;
        if record.held_state().is_some() {
            return Err(Error::Invalid("this client is a member of the group; leave it first".into()));
        }
        Ok(self.with_store(|store| store.delete_group(group))?)
    }

    fn options(&self) -> &Options {
        &self.inner.options
    }

    fn rng(&self) -> &Randomness {
        &self.inner.rng
    }

    fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    fn transport(&self) -> &dyn Transport {
        &*self.inner.transport
    }

    fn me(&self) -> &Identity {
        &self.inner.identity
    }

    fn turns(&self, group: &GroupId) -> Arc<Turns> {
        Arc::clone(lock(&self.inner.turns).entry(group.clone()).or_default())
    }

    fn record(&self, group: &GroupId) -> Result<GroupRecord, Error> {
        self.with_store(|store| store.group_record(group))?.ok_or(Error::UnknownGroup)
    }

    /// Works on the store. Disk and cryptography take their time, so other tasks get a thread of their own meanwhile where there are
    /// several.
    fn with_store<T>(&self, work: impl FnOnce(&mut Store) -> T) -> T {
        let run = || work(&mut lock(&self.inner.store));
        match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(run),
            _ => run(),
        }
    }

    /// Loads a group, works on it, and stores all of it; or nothing, if the work fails.
    fn with_group<T>(
        &self,
        group: &GroupId,
        work: impl FnOnce(&mut GroupWork) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (result, events) = self.with_store(|store| {
            let mut loaded = GroupWork::load(store, &self.inner.crypto, group)?.ok_or(Error::UnknownGroup)?;
            let result = work(&mut loaded)?;
            Ok::<_, Error>((result, loaded.save(store)?))
        })?;
        self.publish(events);
        Ok(result)
    }

    /// Tells what was stored.
    fn publish(&self, events: Vec<Event>) {
        for event in events {
            self.tally().event(&event.kind);
            // Nobody has to listen.
            let _ = self.inner.events.send(event);
        }
        self.inner.changed.notify_waiters();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", self.id()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left half-done is in memory only; the store holds whole transactions.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
