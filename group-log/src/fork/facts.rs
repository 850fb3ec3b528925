//! What the rules must know about a commit and can not read from its bytes. The caller supplies it.
//!
//! Where handshakes are public (RFC 9420 section 6.2) a gateway derives the facts by following the group's tree. Where they are
//! private, nothing is known but the authenticated submitter: then facts are empty, no removal is ever owed, and clients enforce
//! removals themselves.

use std::fmt;

use crate::{
    content::EntryKind,
    hash::Parts,
    ids::StateId,
    limits::{Limits, MAX_COMMIT_LEAVES},
    refusal::Refusal,
};

/// One membership of one member: a leaf from the commit that added it to the commit that removes it. Somebody who is removed and
/// added again has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId(pub [u8; 32]);

impl LeafId {
    /// The leaf at `index` that appeared in the state `added_in`: H("concordat leaf v1", state, index).
    pub fn new(added_in: &StateId, index: u32) -> LeafId {
        LeafId(Parts::new("concordat leaf v1").fixed(&added_in.0).int(index.into()).finish())
    }
}

impl fmt::Debug for LeafId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeafId(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// One installation of a gateway with its disk. A wiped or restored disk is another gateway.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub [u8; 16]);

impl fmt::Debug for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayId(")?;
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("..)")
    }
}

/// What a commit does to the membership. For a create: `adds` are the first members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitFacts {
    /// The leaf that made it; absent for an external commit, and where it is not known.
    pub author: Option<LeafId>,
    /// Leaves it removes, by its own proposals and by those it refers to.
    pub removes: Vec<LeafId>,
    /// Leaves it adds, that of an external joiner included.
    pub adds: Vec<LeafId>,
}

impl CommitFacts {
    /// Checks the bounds.
    pub fn validate(&self) -> Result<(), Refusal> {
        for (field, leaves) in [("facts.removes", &self.removes), ("facts.adds", &self.adds)] {
            if leaves.len() > MAX_COMMIT_LEAVES {
                let (limit, got) = (MAX_COMMIT_LEAVES as u64, leaves.len() as u64);
                return Err(Refusal::TooLarge { field, limit, got });
            }
        }
        Ok(())
    }
}

/// Checks what travels on a branch: a message or a commit within its limits.
pub(super) fn validate_branch_content(content: &crate::Content, facts: &CommitFacts) -> Result<(), Refusal> {
    match content.kind() {
        EntryKind::Commit | EntryKind::Proposal | EntryKind::Application => {
            facts.validate()?;
            crate::validate::validate_content(content, &Limits::REPLICATED)
        }
        kind => Err(crate::validate::malformed(
            kind,
            "content",
            "a commit, a proposal or an application message",
            "something else",
        )),
    }
}
