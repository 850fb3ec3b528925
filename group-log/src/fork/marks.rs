//! Entries that the cluster itself writes into a group's log, beside what clients submitted.

use crate::{
    chain::{ChainError, ChainVerifier},
    content::{Content, EntryKind},
    fork::facts::LeafId,
    hash::Parts,
    ids::{ChainHash, EntryId, StateId},
};

/// What an entry of the canonical log of a DeMLS group carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// What a client submitted, to the cluster or on a branch.
    Content(Content),
    /// What the cluster wrote.
    Mark(Mark),
}

impl Item {
    /// Which kind of entry it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Item::Content(content) => content.kind(),
            Item::Mark(mark) => mark.kind(),
        }
    }
}

/// What became of branches, and how far everybody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// These entries lost. They stay readable, and nothing may follow them.
    Side {
        /// The entries, parents before children.
        ids: Vec<EntryId>,
        /// After this entry, members that must be removed before anything else happens, in order.
        owed: Vec<LeafId>,
    },
    /// These entries came so late that the states to read them with may be gone. Their authors send again.
    Late {
        /// The entries, parents before children.
        ids: Vec<EntryId>,
    },
    /// Every registered gateway has read up to here and has nothing unreported below: states that do not descend from the state
    /// after this position can be deleted, and those that were on the side by then.
    Stable {
        /// Number of an earlier entry.
        position: u64,
    },
}

impl Mark {
    /// Which kind of entry it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Mark::Side { .. } => EntryKind::Side,
            Mark::Late { .. } => EntryKind::Late,
            Mark::Stable { .. } => EntryKind::Stable,
        }
    }

    /// Id of the entry with this number that carries the mark: H("concordat mark v1", seq, kind, fields).
    pub fn id(&self, seq: u64) -> EntryId {
        EntryId(self.parts(Parts::new("concordat mark v1").int(seq)).finish())
    }

    fn parts(&self, parts: Parts) -> Parts {
        let parts = parts.int(self.kind().tag().into());
        let ids_of = |parts: Parts, ids: &[EntryId]| {
            ids.iter().fold(parts.int(ids.len() as u64), |parts, id| parts.fixed(&id.0))
        };
        match self {
            Mark::Side { ids, owed } => owed
                .iter()
                .fold(ids_of(parts, ids).int(owed.len() as u64), |parts, leaf| parts.fixed(&leaf.0)),
            Mark::Late { ids } => ids_of(parts, ids),
            Mark::Stable { position } => parts.int(*position),
        }
    }

    /// The chain hash after an entry with this mark:
    /// H("concordat chain v1", previous, seq, kind, epoch, state id, no author, every field of the mark).
    pub fn chain_hash(&self, previous: &ChainHash, seq: u64, epoch: u64, state_id: &StateId) -> ChainHash {
        let parts = Parts::new("concordat chain v1")
            .fixed(&previous.0)
            .int(seq)
            .int(self.kind().tag().into())
            .int(epoch)
            .fixed(&state_id.0)
            .bytes(&[]);
        ChainHash(self.parts(parts).finish())
    }
}

impl ChainVerifier {
    /// Checks the next entry, which the cluster wrote.
    pub fn push_mark(
        &mut self,
        seq: u64,
        chain: ChainHash,
        epoch: u64,
        state_id: StateId,
        mark: &Mark,
    ) -> Result<(), ChainError> {
        let expected_seq = self.seq().saturating_add(1);
        if seq != expected_seq {
            return Err(ChainError::Seq { expected: expected_seq, got: seq });
        }
        let expected = mark.chain_hash(&self.chain(), seq, epoch, &state_id);
        if expected != chain {
            return Err(ChainError::Chain { seq, expected, got: chain });
        }
        *self = ChainVerifier::after(seq, chain, self.position());
        Ok(())
    }
}
