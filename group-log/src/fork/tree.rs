//! A gateway's branches of one group: a tree of entries that hangs from the canonical chain. Nothing in it is ever overwritten, or
//! dropped before the log has it: what this gateway answered for must reach the log, and so must what others may have answered for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    content::GroupKind,
    fork::{
        facts::{GatewayId, LeafId, validate_branch_content},
        obligations::covers,
        report::Report,
        state::{BranchEntry, Dead, Recorded},
        view::ForkView,
    },
    ids::{EntryId, StateId},
    limits::{MAX_BRANCH_ENTRIES, MAX_REPORT_BYTES, MAX_REPORT_ENTRIES},
    refusal::Refusal,
    view::ReadError,
};

/// The entries that a gateway accepted or heard of, recorded in the log or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BranchTree {
    entries: BTreeMap<EntryId, BranchEntry>,
    /// Commits by the state they were made in.
    commits: BTreeMap<StateId, BTreeSet<EntryId>>,
}

/// Why an entry is not accepted on a branch here and now. Never a reason for a client to drop a pending commit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BranchRefusal {
    /// The group has no branches.
    #[error("a group of kind {got:?} is never continued without a quorum: try again later")]
    WrongKind {
        /// The group's kind.
        got: GroupKind,
    },
    /// The group was closed.
    #[error("the group was closed by entry {closed_seq}: create a new group")]
    GroupClosed {
        /// Number of the entry that closed it.
        closed_seq: u64,
    },
    /// It can not be on any branch.
    #[error(transparent)]
    Impossible(#[from] Refusal),
    /// This gateway does not know the state it was made in.
    #[error("state {parent} is not known here: upload the entries that lead to it first")]
    UnknownParent {
        /// The state.
        parent: StateId,
    },
    /// It departs from the canonical chain below what this gateway promised.
    #[error(
        "the branch departs at epoch {got}, but this gateway promised to accept nothing before epoch {promised}: follow the log"
    )]
    BelowPromise {
        /// Epoch after the position that was promised.
        promised: u64,
        /// Epoch of the nearest canonical ancestor.
        got: u64,
    },
    /// It follows something that has lost already.
    #[error("the branch was put aside by entry {seq}: follow the log")]
    DeadBranch {
        /// Number of the entry that says so.
        seq: u64,
    },
    /// Another commit follows the same state.
    #[error("commit {child} follows the same state: process it, but keep this commit until the log decides")]
    NotALeaf {
        /// The other commit.
        child: EntryId,
    },
    /// Removals are owed.
    #[error("{} members must be removed first: make a commit that does it", owed.len())]
    RemoveFirst {
        /// Whom the next commit must remove.
        owed: Vec<LeafId>,
    },
    /// The store is full.
    #[error("the branch store holds {limit} {what}, its limit: try again when the quorum is back")]
    Full {
        /// Of what: entries or bytes.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// What a gateway can say about a state it knows.
struct Ancestry {
    /// Epoch of the nearest canonical ancestor.
    anchor_epoch: u64,
    /// The state itself is canonical.
    is_canonical: bool,
    /// An entry that puts it, or an ancestor, aside.
    dead: Option<u64>,
}

impl BranchTree {
    /// No branch.
    pub fn new() -> Self {
        BranchTree::default()
    }

    /// An entry of the tree.
    pub fn get(&self, id: &EntryId) -> Option<&BranchEntry> {
        self.entries.get(id)
    }

    /// Entries, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&EntryId, &BranchEntry)> {
        self.entries.iter()
    }

    /// Entries in the tree.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes in what this gateway accepted, or another gateway or a client brought, whatever has become of it meanwhile. Returns
    /// whether it is new. Its ancestors must be known, up to the log: an entry that could never be reported would keep this gateway
    /// from acknowledging anything.
    pub fn insert<V: ForkView>(
        &mut self,
        view: &V,
        entry: BranchEntry,
    ) -> Result<Result<bool, BranchRefusal>, ReadError<V::Error>> {
        let id = entry.id();
        if self.entries.contains_key(&id) || view.recorded(&id)?.is_some() {
            return Ok(Ok(false));
        }
        if let Err(refusal) = validate_branch_content(&entry.content, &entry.facts) {
            return Ok(Err(refusal.into()));
        }
        // Whatever is in the tree came in this way: so the parent alone tells.
        let in_tree = self.entries.get(&entry.parent.into()).is_some_and(BranchEntry::is_commit);
        if !in_tree && !leads_to_state(view.recorded(&entry.parent.into())?) {
            return Ok(Err(BranchRefusal::UnknownParent { parent: entry.parent }));
        }
        if self.entries.len() >= MAX_BRANCH_ENTRIES {
            return Ok(Err(BranchRefusal::Full { what: "entries", limit: MAX_BRANCH_ENTRIES as u64 }));
        }
        if entry.is_commit() {
            self.commits.entry(entry.parent).or_default().insert(id);
        }
        self.entries.insert(id, entry);
        Ok(Ok(true))
    }

    /// Drops what the log records at or below its stable position: every gateway and every client has it from there. Returns what
    /// was dropped.
    pub fn prune<V: ForkView>(&mut self, view: &V) -> Result<Vec<EntryId>, ReadError<V::Error>> {
        let stable = view.fork()?.stable;
        let mut settled = Vec::new();
        for id in self.entries.keys() {
            match view.recorded(id)? {
                Some(Recorded::Canonical { seq, .. } | Recorded::Dead(Dead { seq, .. })) if seq <= stable => {
                    settled.push(*id);
                }
                _ => {}
            }
        }
        for id in &settled {
            let Some(entry) = self.entries.remove(id) else { continue };
            if let Some(siblings) = self.commits.get_mut(&entry.parent) {
                siblings.remove(id);
                if siblings.is_empty() {
                    self.commits.remove(&entry.parent);
                }
            }
        }
        Ok(settled)
    }

    /// Whether this gateway may accept an entry on a branch. `view` is its copy of the canonical log, `promised` the position below
    /// which it promised not to fork. What it has accepted before is accepted again. After `Ok` the caller inserts it, makes it
    /// durable, and only then answers.
    pub fn admit<V: ForkView>(
        &self,
        view: &V,
        promised: u64,
        entry: &BranchEntry,
    ) -> Result<Result<(), BranchRefusal>, ReadError<V::Error>> {
        let missing = ReadError::Missing { what: "the head of a group with branches" };
        let head = view.head()?.ok_or(missing)?;
        if head.kind != GroupKind::Demls {
            return Ok(Err(BranchRefusal::WrongKind { got: head.kind }));
        }
        if let Some(closed_seq) = head.closed {
            return Ok(Err(BranchRefusal::GroupClosed { closed_seq }));
        }
        if let Err(refusal) = validate_branch_content(&entry.content, &entry.facts) {
            return Ok(Err(refusal.into()));
        }
        let id = entry.id();
        let Some(Ancestry { anchor_epoch, is_canonical, dead }) = self.ancestry(view, &entry.parent)? else {
            return Ok(Err(BranchRefusal::UnknownParent { parent: entry.parent }));
        };
        let dead = dead.or(self.dead_at(view, &id)?);
        if let Some(seq) = dead {
            return Ok(Err(BranchRefusal::DeadBranch { seq }));
        }
        if self.entries.contains_key(&id) || view.recorded(&id)?.is_some() {
            return Ok(Ok(()));
        }
        let promised_epoch = match promised {
            0 => head.first_epoch,
            seq => crate::rules::record(view, seq)?.epoch_after,
        };
        if anchor_epoch < promised_epoch {
            let refusal = BranchRefusal::BelowPromise { promised: promised_epoch, got: anchor_epoch };
            return Ok(Err(refusal));
        }
        if !entry.is_commit() {
            return Ok(Ok(()));
        }
        if let Some(child) = self.known_child(view, &entry.parent, anchor_epoch, is_canonical)? {
            return Ok(Err(BranchRefusal::NotALeaf { child }));
        }
        let fork = view.fork()?;
        if is_canonical && !covers(&fork, &entry.facts) {
            return Ok(Err(BranchRefusal::RemoveFirst { owed: fork.owed.into_iter().collect() }));
        }
        Ok(Ok(()))
    }

    /// A commit that follows the state: in the canonical chain, or on a branch that has not lost. One that has lost is in nobody's way.
    fn known_child<V: ForkView>(
        &self,
        view: &V,
        parent: &StateId,
        epoch: u64,
        is_canonical: bool,
    ) -> Result<Option<EntryId>, ReadError<V::Error>> {
        if is_canonical && let Some(commit) = view.commit_ending(epoch)? {
            return Ok(Some(commit.state_id.into()));
        }
        for child in self.commits.get(parent).into_iter().flatten() {
            if self.dead_at(view, child)?.is_none() {
                return Ok(Some(*child));
            }
        }
        Ok(None)
    }

    /// Follows a state to the canonical chain, or gives nothing if the way there is not known.
    fn ancestry<V: ForkView>(
        &self,
        view: &V,
        state: &StateId,
    ) -> Result<Option<Ancestry>, ReadError<V::Error>> {
        let mut at = *state;
        let mut is_canonical = true;
        // Ids are hashes of their parents, so there is no way round in a circle.
        loop {
            match view.recorded(&at.into())? {
                Some(Recorded::Canonical { epoch, is_state: true, .. }) => {
                    return Ok(Some(Ancestry { anchor_epoch: epoch, is_canonical, dead: None }));
                }
                Some(Recorded::Dead(Dead { seq, anchor_epoch, is_state: true, .. })) => {
                    return Ok(Some(Ancestry { anchor_epoch, is_canonical: false, dead: Some(seq) }));
                }
                Some(_) => return Ok(None),
                None => {}
            }
            match self.entries.get(&at.into()) {
                Some(entry) if entry.is_commit() => at = entry.parent,
                _ => return Ok(None),
            }
            is_canonical = false;
        }
    }

    fn dead_at<V: ForkView>(&self, view: &V, id: &EntryId) -> Result<Option<u64>, ReadError<V::Error>> {
        Ok(match view.recorded(id)? {
            Some(Recorded::Dead(dead)) => Some(dead.seq),
            _ => None,
        })
    }

    /// Entries that the log does not record. As long as there are any, the gateway does not acknowledge anything.
    pub fn unrecorded<V: ForkView>(&self, view: &V) -> Result<Vec<EntryId>, ReadError<V::Error>> {
        let mut unrecorded = Vec::new();
        for id in self.entries.keys() {
            if view.recorded(id)?.is_none() {
                unrecorded.push(*id);
            }
        }
        Ok(unrecorded)
    }

    /// What to report now: every entry that the log does not record, parents before children, in as many reports as needed for
    /// [`MAX_REPORT_ENTRIES`] and [`MAX_REPORT_BYTES`]. One without entries if there is nothing: it tells the cluster not to wait for
    /// this gateway.
    pub fn reports<V: ForkView>(
        &self,
        view: &V,
        gateway: GatewayId,
    ) -> Result<Vec<Report>, ReadError<V::Error>> {
        let mut depths = Vec::new();
        let mut known = BTreeMap::new();
        for id in self.unrecorded(view)? {
            let Some(entry) = self.entries.get(&id) else { continue };
            if let Some(depth) = self.depth(view, &entry.parent, &mut known)? {
                depths.push((depth, id));
            }
        }
        depths.sort();
        let empty = || Report { gateway, entries: Vec::new(), complete: false };
        let (mut reports, mut current, mut bytes) = (Vec::new(), empty(), 0);
        for entry in depths.iter().filter_map(|(_, id)| self.entries.get(id)) {
            let size = entry.size();
            let is_full = current.entries.len() >= MAX_REPORT_ENTRIES || bytes + size > MAX_REPORT_BYTES;
            if is_full && !current.entries.is_empty() {
                reports.push(std::mem::replace(&mut current, empty()));
                bytes = 0;
            }
            bytes += size;
            current.entries.push(entry.clone());
        }
        reports.push(Report { complete: true, ..current });
        Ok(reports)
    }

    /// Unrecorded commits between a state and the log, or nothing if the way there is not known. Each state is looked up once.
    fn depth<V: ForkView>(
        &self,
        view: &V,
        state: &StateId,
        known: &mut BTreeMap<StateId, Option<u32>>,
    ) -> Result<Option<u32>, ReadError<V::Error>> {
        let mut way = Vec::new();
        let mut at = *state;
        let mut depth = loop {
            if let Some(depth) = known.get(&at) {
                break *depth;
            }
            if view.recorded(&at.into())?.is_some() {
                break Some(0);
            }
            match self.entries.get(&at.into()) {
                Some(entry) if entry.is_commit() => {
                    way.push(at);
                    at = entry.parent;
                }
                _ => break None,
            }
        };
        known.insert(at, depth);
        for state in way.into_iter().rev() {
            depth = depth.map(|depth| depth + 1);
            known.insert(state, depth);
        }
        Ok(depth)
    }
}

fn leads_to_state(recorded: Option<Recorded>) -> bool {
    match recorded {
        Some(Recorded::Canonical { is_state, .. } | Recorded::Dead(Dead { is_state, .. })) => is_state,
        None => false,
    }
}
