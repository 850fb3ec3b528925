//! The public states of one group, wherever a commit may follow: at the head, and at the ends of branches. They tell whether members
//! could process a public handshake, and what a commit does to the membership.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
};

use bytes::Bytes;
use group_log::{
    ClientId, Content, EntryId, EntryKind, Record, StateId, View,
    fork::{BranchEntry, CommitFacts, ForkView, Recorded},
};
use lru::LruCache;
use openmls_rust_crypto::RustCrypto;

use super::{
    leaves::Leaves,
    store::{GroupRows, StoreError},
};
use crate::{
    limits::{MEMBERS_PER_GROUP_MAX, PROPOSAL_SEARCH_ENTRIES_MAX, REPLAY_COMMITS_MAX, STATES_PER_GROUP_MAX},
    mls::{
        self, Checked, CommitInvalid, GroupInfoIn, MessageIn, MessageKind, ParseError, PublicState,
        after_commit, take_in_proposal,
    },
};

/// What a handshake is, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// For a commit, what it does to the membership; empty where that is not known.
    pub facts: CommitFacts,
    /// For a commit, the leaves after it.
    pub leaves: Option<Leaves>,
    /// The identity in the leaf that made it, if it was held against the tree.
    pub author: Option<Vec<u8>>,
}

/// Why a handshake is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LookError {
    /// No member could process it.
    #[error(transparent)]
    Invalid(#[from] CommitInvalid),
    /// What came with it does not fit.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A handshake and what came with it.
pub struct Handshake<'a> {
    /// The state it was made in.
    pub parent: StateId,
    /// Its id.
    pub id: EntryId,
    /// The message.
    pub message: &'a MessageIn,
    /// With a commit: the GroupInfo after it.
    pub group_info: Option<&'a GroupInfoIn>,
    /// With a commit: the KeyPackageRefs of its Welcome.
    pub welcome: Option<&'a [Vec<u8>]>,
}

/// The public states that are kept, and what is needed to make others.
pub struct States {
    crypto: RustCrypto,
    rows: GroupRows,
    kept: LruCache<StateId, PublicState>,
    /// Who is in states.
    members: LruCache<StateId, Members>,
    /// Proposals on branches, by the state they were made in.
    proposals: BTreeMap<StateId, BTreeSet<EntryId>>,
    branch: BTreeMap<EntryId, BranchEntry>,
}

/// The clients in a state.
pub type Members = Arc<BTreeSet<ClientId>>;

/// Where a state comes from.
struct Source {
    group_info: Bytes,
    /// The commit that leads to it, and the state before; absent for the first state.
    commit: Option<(Bytes, StateId)>,
    /// Number of its entry, if it is canonical.
    seq: Option<u64>,
}

impl States {
    /// None yet.
    pub fn new(rows: GroupRows) -> Self {
        let most = const { NonZeroUsize::new(STATES_PER_GROUP_MAX).expect("the bound is not zero") };
        let (proposals, branch) = (BTreeMap::new(), BTreeMap::new());
        let remembered = const { NonZeroUsize::new(MEMBERS_PER_GROUP_MAX).expect("the bound is not zero") };
        let (kept, members) = (LruCache::new(most), LruCache::new(remembered));
        Self { crypto: RustCrypto::default(), rows, kept, members, proposals, branch }
    }

    /// Who is in a state, if that was asked for before.
    pub fn known_members(&mut self, at: &StateId) -> Option<Members> {
        self.members.get(at).cloned()
    }

    /// Who is in a state, if its tree can be seen.
    pub fn members(&mut self, at: &StateId) -> Result<Option<Members>, StoreError> {
        if let Some(known) = self.known_members(at) {
            return Ok(Some(known));
        }
        if self.keep_state(at)?.is_none() {
            return Ok(None);
        }
        let Some(members) = self.kept.get(at).map(|state| Arc::new(mls::members_of(state))) else {
            return Ok(None);
        };
        self.members.put(*at, Arc::clone(&members));
        Ok(Some(members))
    }

    /// Holds a handshake against the state that it was made in.
    pub fn look(&mut self, handshake: &Handshake<'_>) -> Result<Looked, LookError> {
        let Some(public) = &handshake.message.public else { return Ok(Looked::default()) };
        let kind = handshake.message.kind;
        // A state that has followed others may be poisoned; one that was just made from the nearest GroupInfo is not.
        let mut fresh = false;
        let (staged, author) = loop {
            let Some(is_new) = self.keep_state(&handshake.parent)? else { return Ok(Looked::default()) };
            let Some(state) = self.kept.get(&handshake.parent) else { return Ok(Looked::default()) };
            fresh |= is_new;
            if state.epoch() != handshake.message.epoch {
                let detail =
                    format!("it is for epoch {}, its state is of {}", handshake.message.epoch, state.epoch());
                return Err(CommitInvalid { kind, detail }.into());
            }
            let hidden = state.hidden_proposals;
            match check(&self.crypto, state, handshake, public.clone()) {
                Ok(checked) => {
                    let author = state.author(public, &checked);
                    match checked {
                        Checked::Proposal(_) => return Ok(Looked { author, ..Looked::default() }),
                        Checked::Commit(staged) => break (staged, author),
                    }
                }
                Err(_) if hidden => return Ok(Looked::default()),
                Err(error) if fresh => return Err(error),
                Err(_) => {
                    self.kept.clear();
                    fresh = true;
                }
            }
        };
        let unknown = Looked { author, ..Looked::default() };
        let Some(before) = self.rows.leaves(&handshake.parent)? else { return Ok(unknown) };
        let after = handshake.id.as_state();
        let Some(facts) = before.facts(&staged.membership(), &after) else { return Ok(unknown) };
        let leaves = before.after(&facts, &after);
        Ok(Looked { facts, leaves, ..unknown })
    }

    /// Takes in an entry of a branch.
    pub fn took_branch(&mut self, entry: &BranchEntry) {
        let id = entry.id();
        if let Content::Proposal { message } = &entry.content {
            self.proposals.entry(entry.parent).or_default().insert(id);
            take_in_proposal(&self.crypto, self.kept.peek_mut(&entry.parent), message);
        }
        if entry.content.kind() != EntryKind::Application {
            self.branch.insert(id, entry.clone());
        }
    }

    /// Forgets entries of branches.
    pub fn dropped(&mut self, ids: &[EntryId]) {
        for id in ids {
            if let Some(entry) = self.branch.remove(id)
                && let Some(proposals) = self.proposals.get_mut(&entry.parent)
            {
                proposals.remove(id);
                if proposals.is_empty() {
                    self.proposals.remove(&entry.parent);
                }
            }
        }
    }

    /// Takes in a proposal of the log.
    pub fn took_proposal(&mut self, state: &StateId, message: &Bytes) {
        take_in_proposal(&self.crypto, self.kept.peek_mut(state), message);
    }

    /// Sees to it that a state is kept, if it can be seen. Returns whether it was made afresh from its GroupInfo.
    fn keep_state(&mut self, at: &StateId) -> Result<Option<bool>, StoreError> {
        if self.kept.contains(at) {
            return Ok(Some(false));
        }
        let Some((state, is_new)) = self.make(at)? else { return Ok(None) };
        self.kept.put(*at, state);
        Ok(Some(is_new))
    }

    /// Goes back to the nearest state that is kept or whose GroupInfo shows the tree, and forward from there.
    fn make(&mut self, wanted: &StateId) -> Result<Option<(PublicState, bool)>, StoreError> {
        let (mut at, mut way) = (*wanted, Vec::new());
        let (mut state, is_new) = loop {
            let Some(source) = self.source(&at)? else { return Ok(None) };
            if let Some(kept) = self.kept.pop(&at) {
                break (kept, false);
            }
            if let Some(mut built) = self.build(&source) {
                self.add_proposals(&mut built, &at, source.seq)?;
                break (built, way.is_empty());
            }
            let Some((commit, parent)) = source.commit else { return Ok(None) };
            if way.len() >= REPLAY_COMMITS_MAX {
                return Ok(None);
            }
            way.push((commit, at, source.seq));
            at = parent;
        };
        for (commit, reached, seq) in way.into_iter().rev() {
            let Some(next) = after_commit(&self.crypto, state, &commit) else { return Ok(None) };
            state = next;
            self.add_proposals(&mut state, &reached, seq)?;
        }
        Ok(Some((state, is_new)))
    }

    /// The entry that the states from this one on are built from, if they can be seen: what comes before it is not needed for them.
    pub(super) fn base(&self, state: &StateId) -> Result<Option<u64>, StoreError> {
        let mut at = *state;
        for _ in 0..=REPLAY_COMMITS_MAX {
            let Some(source) = self.source(&at)? else { return Ok(None) };
            if self.build(&source).is_some() {
                return Ok(source.seq);
            }
            let Some((_, parent)) = source.commit else { return Ok(None) };
            at = parent;
        }
        Ok(None)
    }

    fn build(&self, source: &Source) -> Option<PublicState> {
        let info = mls::group_info(&source.group_info).ok()?;
        // Whoever accepted the entry has held its GroupInfo against the commit.
        PublicState::build(&self.crypto, info).ok().flatten()
    }

    fn source(&self, state: &StateId) -> Result<Option<Source>, StoreError> {
        let id = EntryId::from(*state);
        if let Some(Recorded::Canonical { seq, is_state: true, .. }) = self.rows.recorded(&id)? {
            let Some(stored) = self.rows.entry(seq)? else { return Ok(None) };
            let content = stored.entry.content.map(Content::try_from);
            let before = |record: Record| record.state_after;
            return Ok(match content {
                Some(Ok(Content::Create(create))) => {
                    Some(Source { group_info: create.group_info, commit: None, seq: Some(seq) })
                }
                Some(Ok(Content::Commit(commit))) => self.rows.record(seq.saturating_sub(1))?.map(|record| {
                    let (group_info, commit) = (commit.group_info, Some((commit.message, before(record))));
                    Source { group_info, commit, seq: Some(seq) }
                }),
                _ => None,
            });
        }
        let entry = match self.branch.get(&id) {
            Some(entry) => Some(entry.clone()),
            None => self.rows.dead_body(&id)?.and_then(|body| body.try_into().ok()),
        };
        Ok(entry.and_then(|BranchEntry { parent, content, .. }| match content {
            Content::Commit(commit) => Some(Source {
                group_info: commit.group_info,
                commit: Some((commit.message, parent)),
                seq: None,
            }),
            _ => None,
        }))
    }

    /// Adds the proposals that were made in a state: a commit may refer to them.
    fn add_proposals(
        &self,
        state: &mut PublicState,
        at: &StateId,
        seq: Option<u64>,
    ) -> Result<(), StoreError> {
        if let Some(seq) = seq {
            let ends = self.rows.commit_ending(state.epoch())?.map(|commit| commit.seq);
            let newest = self.rows.head()?.map_or(0, |head| head.seq);
            let end = ends.unwrap_or(newest);
            if end.saturating_sub(seq) > PROPOSAL_SEARCH_ENTRIES_MAX {
                state.hidden_proposals = true;
            }
            for number in (seq + 1..=end).take(PROPOSAL_SEARCH_ENTRIES_MAX as usize) {
                let Some(record) = self.rows.record(number)? else { break };
                if record.kind != EntryKind::Proposal || record.state_id != *at {
                    continue;
                }
                let content = self.rows.entry(number)?.and_then(|stored| stored.entry.content);
                if let Some(Ok(Content::Proposal { message })) = content.map(Content::try_from) {
                    take_in_proposal(&self.crypto, Some(&mut *state), &message);
                }
            }
        }
        for id in self.proposals.get(at).into_iter().flatten() {
            if let Some(Content::Proposal { message }) = self.branch.get(id).map(|entry| &entry.content) {
                take_in_proposal(&self.crypto, Some(&mut *state), message);
            }
        }
        state.has_all_proposals = true;
        Ok(())
    }
}

/// The membership of the state that a new group begins in, and who that is, if its GroupInfo shows the tree.
pub fn first_members(
    info: GroupInfoIn,
    state: &StateId,
) -> Result<(CommitFacts, Option<BTreeSet<ClientId>>), ParseError> {
    let Some(public) = PublicState::build(&RustCrypto::default(), info)? else {
        return Ok((CommitFacts::default(), None));
    };
    let adds = Leaves::first(state, public.occupied()).all();
    let facts = CommitFacts { author: None, removes: Vec::new(), adds };
    Ok((facts, Some(mls::members_of(&public))))
}

fn check(
    crypto: &RustCrypto,
    state: &PublicState,
    handshake: &Handshake<'_>,
    public: openmls::prelude::PublicMessageIn,
) -> Result<Checked, LookError> {
    let kind: MessageKind = handshake.message.kind;
    let checked = state.check(crypto, kind, public)?;
    if let Checked::Commit(staged) = &checked {
        if let Some(info) = handshake.group_info {
            staged.check_group_info(crypto, info)?;
        }
        if let Some(refs) = handshake.welcome {
            staged.check_welcome(crypto, refs)?;
        }
    }
    Ok(checked)
}
