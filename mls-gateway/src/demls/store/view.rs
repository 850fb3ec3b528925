//! The rows of one group: the log as the rules read it, and the branches.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::{convert, log::v1 as pb, relay::v1::FetchLogResponse};
use group_log::{
    ClientId, CommitRef, Content, EntryId, GroupId, Head, Record, StateId, View,
    fork::{BranchEntry, Candidate, ForkChange, ForkState, ForkView, LeafId, LogEntry, Recorded, follow},
};
use prost::Message;
use rocksdb::WriteBatch;

use super::{Promise, Store, StoreError, keys};
use crate::demls::leaves::Leaves;

/// One group in the storage. Reads what was written last, durable or not.
#[derive(Clone)]
pub struct GroupRows {
    store: Arc<Store>,
    group: GroupId,
}

/// An entry of the log as it is stored: as it came, with the entries that it names if it is a Side or a Late.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntry {
    /// The entry.
    pub entry: pb::Entry,
    /// What it names.
    pub bodies: Vec<pb::BranchEntry>,
}

impl GroupRows {
    /// The rows of a group.
    pub fn new(store: Arc<Store>, group: GroupId) -> Self {
        Self { store, group }
    }

    /// The storage that they are in.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// What was promised, if the group is known.
    pub fn promise(&self) -> Result<Option<Promise>, StoreError> {
        let row = self.store.get(&keys::prefix(keys::GROUP, &self.group))?;
        row.map(|row| Promise::decode(&row)).transpose()
    }

    /// Notes a promise. It binds once it is synced.
    pub fn set_promise(&self, promise: &Promise) -> Result<(), StoreError> {
        Ok(self.store.db.put(keys::prefix(keys::GROUP, &self.group), promise.encode())?)
    }

    /// Forgets the group, at once and with everything. Where the disk fails before the next sync, it may be there again.
    pub fn delete_all(&self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for kind in keys::OF_A_GROUP {
            let prefix = self.prefix(kind);
            // The longest key ends with 32 bytes after the prefix.
            let end = [&prefix[..], &[0xff; 33]].concat();
            batch.delete_range(prefix, end);
        }
        self.store.write(batch)
    }

    /// Takes in the next entry of the log, if the rules say that it follows. Returns its leaves, if they are known.
    pub fn append(&self, stored: &StoredEntry) -> Result<LogEntry, StoreError> {
        let damaged = |error: convert::WireError| StoreError::damaged("the log shown", error);
        let entry = convert::log_entry(stored.entry.clone(), stored.bodies.clone()).map_err(damaged)?;
        let change = follow(self, &self.group, &entry)??;
        let mut batch = WriteBatch::default();
        self.put_change(&mut batch, &change);
        let StoredEntry { entry: wire, bodies } = stored.clone();
        let row = FetchLogResponse { entries: vec![wire], bodies, more: false };
        batch.put(self.numbered(keys::ENTRY, entry.seq), row.encode_to_vec());
        self.put_leaves(&mut batch, &change, &entry)?;
        self.store.write(batch)?;
        Ok(entry)
    }

    fn put_change(&self, batch: &mut WriteBatch, change: &ForkChange) {
        for appended in &change.appended {
            let change = &appended.change;
            batch.put(self.prefix(keys::HEAD), change.head.encode());
            batch.put(self.numbered(keys::RECORD, change.seq), change.record.encode());
            if let Some((epoch, commit)) = &change.commit_ending {
                batch.put(self.numbered(keys::COMMIT, *epoch), commit.encode());
            }
            if let Some(id) = change.recent_delete {
                batch.delete(self.named(keys::RECENT, &id.0));
            }
            if let Some(id) = change.recent_put {
                batch.put(self.named(keys::RECENT, &id.0), change.seq.to_be_bytes());
            }
        }
        if let Some(fork) = &change.fork {
            batch.put(self.prefix(keys::FORK), fork.encode());
        }
        for (id, recorded) in &change.recorded {
            batch.put(self.named(keys::RECORDED, &id.0), recorded.encode());
        }
        for (leaf, is_member) in &change.members {
            if *is_member {
                batch.put(self.named(keys::MEMBER, &leaf.0), []);
            } else {
                batch.delete(self.named(keys::MEMBER, &leaf.0));
            }
        }
    }

    /// Which leaf is where in the states that were reached; those before the stable one are needed no more.
    fn put_leaves(
        &self,
        batch: &mut WriteBatch,
        change: &ForkChange,
        entry: &LogEntry,
    ) -> Result<(), StoreError> {
        use group_log::EntryKind::{Commit, Create, Late, Side};
        let kind = entry.item.kind();
        if let (Create | Commit, Some(appended)) = (kind, change.appended.first()) {
            let epoch = appended.change.record.epoch_after;
            let before = match (kind, epoch.checked_sub(1)) {
                (Commit, Some(before)) => self.leaves_at_epoch(before)?,
                _ => Some(Leaves::default()),
            };
            if let Some(leaves) = before.and_then(|before| before.after(&entry.facts, &entry.state_id)) {
                batch.put(self.numbered(keys::LEAVES, epoch), leaves.encode());
            }
        }
        // What hangs below a branch that has lost can still be uploaded.
        if matches!(kind, Side | Late) {
            for body in entry.bodies.iter().filter(|body| body.is_commit()) {
                if let Some(leaves) = self.leaves(&body.parent)?
                    && let Some(leaves) = leaves.after(&body.facts, &body.id().as_state())
                {
                    batch.put(self.named(keys::BRANCH_LEAVES, &body.id().0), leaves.encode());
                }
            }
        }
        if let Some(fork) = &change.fork
            && fork.stable_epoch > self.fork()?.stable_epoch
        {
            let end = self.numbered(keys::LEAVES, fork.stable_epoch);
            batch.delete_range(self.numbered(keys::LEAVES, 0), end);
        }
        Ok(())
    }

    /// An entry of the log.
    pub fn entry(&self, seq: u64) -> Result<Option<StoredEntry>, StoreError> {
        let row = self.store.get(&self.numbered(keys::ENTRY, seq))?;
        row.map(|row| decode_entry(&row)).transpose()
    }

    /// The oldest entry that is kept with its payload, if there is any.
    pub fn oldest(&self) -> Result<Option<u64>, StoreError> {
        let prefix = self.prefix(keys::ENTRY);
        let first = self.store.scan(&prefix, &prefix).next().transpose()?;
        Ok(first.map(|(_, row)| decode_entry(&row)).transpose()?.map(|stored| stored.entry.seq))
    }

    /// Deletes the payload of the entries from `from` up to `before`. What the rules read of them stays.
    pub fn prune_log(&self, from: u64, before: u64) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.delete_range(self.numbered(keys::ENTRY, from), self.numbered(keys::ENTRY, before));
        self.store.write(batch)
    }

    /// Entries of the log after `seq`, at most `max`, and no more once they are beyond `bytes`. None may be missing.
    pub fn entries(&self, seq: u64, max: usize, bytes: usize) -> Result<Vec<StoredEntry>, StoreError> {
        let prefix = self.prefix(keys::ENTRY);
        let from = self.numbered(keys::ENTRY, seq.saturating_add(1));
        let (mut entries, mut size) = (Vec::new(), 0);
        for row in self.store.scan(&prefix, &from).take(max) {
            let (_, row) = row?;
            size += row.len();
            if size > bytes && !entries.is_empty() {
                break;
            }
            let stored = decode_entry(&row)?;
            if entries.is_empty() && stored.entry.seq != seq.saturating_add(1) {
                return Err(StoreError::NotKept { oldest: stored.entry.seq });
            }
            entries.push(stored);
        }
        Ok(entries)
    }

    /// The GroupInfo that came with the commit (or the create) which led to the head, if one did.
    pub fn group_info(&self, head: &Head) -> Result<Option<Bytes>, StoreError> {
        let led_here = match head.epoch.checked_sub(1) {
            Some(before) => self.commit_ending(before)?.map(|commit| commit.seq),
            None => Some(1),
        };
        // A group may begin in a later epoch.
        let Some(stored) = self.entry(led_here.unwrap_or(1))? else { return Ok(None) };
        let content = stored.entry.content.and_then(|content| content.content);
        let info = match content {
            Some(pb::content::Content::Commit(commit)) => commit.group_info,
            Some(pb::content::Content::Create(create)) => create.group_info,
            _ => Bytes::new(),
        };
        Ok(Some(info).filter(|info| !info.is_empty()))
    }

    /// A branch entry that the log calls dead.
    pub fn dead_body(&self, id: &EntryId) -> Result<Option<pb::BranchEntry>, StoreError> {
        let Some(Recorded::Dead(dead)) = self.recorded(id)? else { return Ok(None) };
        let mark = self.entry(dead.seq)?;
        let is_wanted =
            |body: &pb::BranchEntry| BranchEntry::try_from(body.clone()).is_ok_and(|b| b.id() == *id);
        Ok(mark.and_then(|mark| mark.bodies.into_iter().find(is_wanted)))
    }

    /// Keeps an entry of a branch, and for a commit the leaves after it.
    pub fn put_branch(&self, entry: &BranchEntry, leaves: Option<&Leaves>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let id = entry.id();
        let row = pb::BranchEntry::from(entry.clone()).encode_to_vec();
        batch.put(self.named(keys::BRANCH, &id.0), row);
        if let Some(leaves) = leaves {
            batch.put(self.named(keys::BRANCH_LEAVES, &id.0), leaves.encode());
        }
        self.store.write(batch)
    }

    /// Drops entries of branches.
    pub fn drop_branch(&self, ids: &[EntryId]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for id in ids {
            batch.delete(self.named(keys::BRANCH, &id.0));
            batch.delete(self.named(keys::BRANCH_LEAVES, &id.0));
        }
        self.store.write(batch)
    }

    /// Every entry of a branch, in no order.
    pub fn branch(&self) -> Result<Vec<BranchEntry>, StoreError> {
        let prefix = self.prefix(keys::BRANCH);
        let rows = self.store.scan(&prefix, &prefix).map(|row| {
            let entry =
                pb::BranchEntry::decode(&*row?.1).map_err(|e| StoreError::damaged("the branches", e))?;
            BranchEntry::try_from(entry).map_err(|e| StoreError::damaged("the branches", e))
        });
        rows.collect()
    }

    /// Which leaf is where in a state; nothing if that is not known (any more).
    pub fn leaves(&self, state: &StateId) -> Result<Option<Leaves>, StoreError> {
        match self.recorded(&(*state).into())? {
            Some(Recorded::Canonical { epoch, is_state: true, .. }) => self.leaves_at_epoch(epoch),
            _ => self.leaves_row(&self.named(keys::BRANCH_LEAVES, &state.0)),
        }
    }

    fn leaves_at_epoch(&self, epoch: u64) -> Result<Option<Leaves>, StoreError> {
        self.leaves_row(&self.numbered(keys::LEAVES, epoch))
    }

    fn leaves_row(&self, key: &[u8]) -> Result<Option<Leaves>, StoreError> {
        self.store.get(key)?.map(|row| Leaves::decode(&row)).transpose()
    }

    fn prefix(&self, kind: u8) -> Vec<u8> {
        keys::prefix(kind, &self.group)
    }

    fn numbered(&self, kind: u8, number: u64) -> Vec<u8> {
        keys::numbered(kind, &self.group, number)
    }

    fn named(&self, kind: u8, id: &[u8; 32]) -> Vec<u8> {
        keys::named(kind, &self.group, id)
    }
}

fn decode_entry(row: &[u8]) -> Result<StoredEntry, StoreError> {
    let damaged = |detail: &dyn ToString| StoreError::damaged("the log", detail.to_string());
    let row = FetchLogResponse::decode(row).map_err(|e| damaged(&e))?;
    let entry = row.entries.into_iter().next().ok_or_else(|| damaged(&"an entry is empty"))?;
    Ok(StoredEntry { entry, bodies: row.bodies })
}

impl View for GroupRows {
    type Error = StoreError;

    fn head(&self) -> Result<Option<Head>, StoreError> {
        let row = self.store.get(&self.prefix(keys::HEAD))?;
        Ok(row.map(|row| Head::decode(&row)).transpose()?)
    }

    fn commit_ending(&self, epoch: u64) -> Result<Option<CommitRef>, StoreError> {
        let row = self.store.get(&self.numbered(keys::COMMIT, epoch))?;
        Ok(row.map(|row| CommitRef::decode(&row)).transpose()?)
    }

    fn recent(&self, id: &EntryId) -> Result<Option<u64>, StoreError> {
        let Some(row) = self.store.get(&self.named(keys::RECENT, &id.0))? else { return Ok(None) };
        let number =
            row.try_into().map_err(|_| StoreError::damaged("recent entries", "a number is cut off"))?;
        Ok(Some(u64::from_be_bytes(number)))
    }

    fn turn_holder(&self, _: u32) -> Result<Option<ClientId>, StoreError> {
        // Groups that may be split take no turns.
        Ok(None)
    }

    fn record(&self, seq: u64) -> Result<Option<Record>, StoreError> {
        let row = self.store.get(&self.numbered(keys::RECORD, seq))?;
        Ok(row.map(|row| Record::decode(&row)).transpose()?)
    }
}

impl ForkView for GroupRows {
    fn fork(&self) -> Result<ForkState, StoreError> {
        let row = self.store.get(&self.prefix(keys::FORK))?;
        Ok(row.map(|row| ForkState::decode(&row)).transpose()?.unwrap_or_default())
    }

    fn recorded(&self, id: &EntryId) -> Result<Option<Recorded>, StoreError> {
        let row = self.store.get(&self.named(keys::RECORDED, &id.0))?;
        Ok(row.map(|row| Recorded::decode(&row)).transpose()?)
    }

    // A follower of the log sees no reports, only what became of them.
    fn candidate(&self, _: &EntryId) -> Result<Option<Candidate>, StoreError> {
        Ok(None)
    }

    fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        Ok(Vec::new())
    }

    fn candidate_content(&self, _: &EntryId) -> Result<Option<Content>, StoreError> {
        Ok(None)
    }

    fn is_member(&self, leaf: &LeafId) -> Result<bool, StoreError> {
        Ok(self.store.get(&self.named(keys::MEMBER, &leaf.0))?.is_some())
    }
}
