//! What one gateway takes from another: which items it lacks, and when it goes on without those that are gone there. Knows the storage,
//! but neither network nor clock: times are since any moment, the same for all calls.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::gateway::v1::DimlsItem;
use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
};

use super::{
    check::{Item, check},
    limits::SETUP_BYTES_MAX,
    store::{MeshStore, StoreError, Stored},
    stream::Stream,
};
use crate::{error::GatewayError, metrics};

/// What another gateway tells.
#[derive(Debug, Default)]
pub struct Told {
    /// Which storage tells it.
    pub storage_id: Bytes,
    /// Everything up to this mark of it was told.
    pub mark: u64,
    /// Encoded setups of DGroups.
    pub setups: Vec<Bytes>,
    /// Streams as they are there now.
    pub streams: Vec<(DgroupId, ClientId, Stream)>,
    /// Items that came with the news.
    pub items: Vec<(DgroupId, DimlsItem)>,
}

/// Items to be fetched: from .. to, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of which DGroup.
    pub dgroup: DgroupId,
    /// Whose.
    pub owner: ClientId,
    /// The first one.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// Why nothing more is taken from the other for now.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// This gateway's storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An item that does not belong there.
    #[error("the other gateway hands out an item that does not belong there: {0}")]
    Item(#[from] GatewayError),
    /// Something that cannot be.
    #[error("the other gateway said something that cannot be: {0}")]
    Nonsense(&'static str),
}

/// One gateway's side of its link to another.
pub struct Puller {
    store: Arc<MeshStore>,
    /// The other's storage, and the mark up to which everything was taken in.
    known: (Bytes, u64),
    /// Streams of which the other has dropped what is lacking here: until when a third gateway may bring it, and what the other has.
    behind: HashMap<(DgroupId, ClientId), (Duration, Stream)>,
    /// How long that is.
    patience: Duration,
    /// DGroups that the last news was about.
    setups: HashMap<DgroupId, Setup>,
}

impl Puller {
    /// Nothing is known of the other yet.
    pub fn new(store: Arc<MeshStore>, patience: Duration) -> Self {
        Self { store, known: (Bytes::new(), 0), behind: HashMap::new(), patience, setups: HashMap::new() }
    }

    /// The other's storage, and the mark in it from which on it is to tell what has changed.
    pub fn known(&self) -> (Bytes, u64) {
        self.known.clone()
    }

    /// When [`Puller::overdue`] has something to say; nothing if it has not.
    pub fn due(&self) -> Option<Duration> {
        self.behind.values().map(|(until, _)| *until).min()
    }

    /// Takes in what the other tells. Returns what is to be fetched; when that has come, [`Puller::taken_in`] is to be called.
    pub fn news(&mut self, told: &Told, now: Duration) -> Result<Vec<Wanted>, PullError> {
        self.setups.clear();
        for setup in &told.setups {
            if setup.len() > SETUP_BYTES_MAX {
                return Err(PullError::Nonsense("a setup that is too long"));
            }
            let setup =
                Setup::decode(setup).map_err(|_| PullError::Nonsense("a setup that does not decode"))?;
            match self.store.create(&setup) {
                Err(StoreError::Full) => tracing::warn!(
                    "this gateway keeps as many DiMLS groups as it may, and takes no more from others"
                ),
                other => _ = other?,
            }
        }
        self.keep_next(&told.items)?;
        let mut wanted = Vec::new();
        for (id, owner, theirs) in &told.streams {
            if theirs.first == 0
                || theirs.last.saturating_add(1) < theirs.first
                || theirs.last > group_log::limits::MAX_SEQ
            {
                return Err(PullError::Nonsense("a stream that ends before it begins"));
            }
            wanted.extend(self.lacking(*id, owner, *theirs, now)?);
        }
        Ok(wanted)
    }

    /// Keeps items that came with the news, as far as nothing is missing in front of them: the others are fetched in order.
    fn keep_next(&mut self, items: &[(DgroupId, DimlsItem)]) -> Result<(), PullError> {
        let mut ends: HashMap<(DgroupId, ClientId), u64> = HashMap::new();
        let mut next = Vec::new();
        for (id, item) in items {
            // Of a DGroup that there was no room for nothing is kept.
            let Some(setup) = self.setup(*id)? else { continue };
            let item = check(id, &setup, item.clone())?;
            let end = match ends.entry((*id, item.owner.clone())) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.store.stream(id, &item.owner)?.last),
            };
            if item.seq == *end + 1 {
                *end = item.seq;
                next.push((*id, item));
            }
        }
        self.keep(&next)
    }

    /// Goes on without what no gateway has brought in time. Returns what is to be fetched instead.
    pub fn overdue(&mut self, now: Duration) -> Result<Vec<Wanted>, PullError> {
        let over: Vec<_> = self.behind.iter().filter(|(_, (until, _))| *until <= now).collect();
        let over: Vec<_> = over.into_iter().map(|(key, (_, theirs))| (key.clone(), *theirs)).collect();
        let mut wanted = Vec::new();
        for ((id, owner), theirs) in over {
            wanted.extend(self.lacking(id, &owner, theirs, now)?);
        }
        Ok(wanted)
    }

    /// Everything that was wanted has come.
    pub fn taken_in(&mut self, told: Told) {
        self.known = (told.storage_id, told.mark);
    }

    /// Checks an item that was fetched.
    pub fn check(&mut self, id: DgroupId, item: DimlsItem) -> Result<(DgroupId, Item), PullError> {
        let setup = self.setup(id)?.ok_or(PullError::Nonsense("items that were not asked for"))?;
        Ok((id, check(&id, &setup, item)?))
    }

    /// Keeps items of the other that were checked.
    pub fn keep(&self, items: &[(DgroupId, Item)]) -> Result<(), PullError> {
        if items.is_empty() {
            return Ok(());
        }
        let stored = self.store.insert(items)?;
        metrics::mesh_items("gateway", items.len());
        let conflicts = stored.iter().filter(|stored| **stored == Stored::Conflict).count();
        if conflicts > 0 {
            // An owner that numbers two items alike harms its own Send Group only: some members have the one, some the other.
            tracing::warn!(conflicts, "an owner gave one number to two items; the first stays");
        }
        Ok(())
    }

    fn setup(&mut self, id: DgroupId) -> Result<Option<Setup>, PullError> {
        if let Entry::Vacant(entry) = self.setups.entry(id) {
            let Some(setup) = self.store.setup(&id)? else { return Ok(None) };
            entry.insert(setup);
        }
        Ok(self.setups.get(&id).cloned())
    }

    /// What the other has of a stream that is lacking here.
    fn lacking(
        &mut self,
        id: DgroupId,
        owner: &ClientId,
        theirs: Stream,
        now: Duration,
    ) -> Result<Option<Wanted>, PullError> {
        // One that there was no room for.
        let Some(setup) = self.setup(id)? else { return Ok(None) };
        if setup.number(owner).is_none() {
            return Err(PullError::Nonsense("a stream of somebody who is no member"));
        }
        let mut ours = self.store.stream(&id, owner)?;
        let key = (id, owner.clone());
        if ours.is_behind(&theirs) {
            let (until, known) = self.behind.entry(key.clone()).or_insert((now + self.patience, theirs));
            *known = theirs;
            if *until > now && ours != Stream::EMPTY {
                // Another gateway may still have it.
                return Ok(None);
            }
            // Nobody has brought it for so long, or this gateway has just begun: the stream goes on without it.
            self.store.skip_to(&id, owner, theirs.first)?;
            metrics::mesh_skipped();
            ours = self.store.stream(&id, owner)?;
        }
        self.behind.remove(&key);
        let wanted = |(from, to)| Wanted { dgroup: id, owner: owner.clone(), from, to };
        Ok(ours.lacks(&theirs).map(wanted))
    }
}

#[cfg(test)]
#[path = "pull_tests.rs"]
mod tests;
