//! What the rules must know about a commit and can not read from its bytes. The caller supplies it.
//!
//! Where handshakes are public (RFC 9420 section 6.2) a gateway derives the facts by following the group's tree. Where they are
//! private, nothing is known but the authenticated submitter: then facts are empty, no removal is ever owed, and clients enforce
//! removals themselves.

use std::fmt;

use crate::{
    content::{Content, EntryKind},
    hash::Parts,
    ids::StateId,
    limits::{LEAF_BYTES, Limits, MAX_COMMIT_BYTES, MAX_COMMIT_LEAVES},
    refusal::Refusal,
    validate::size as commit_size,
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
    /// Nothing is known, or nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == CommitFacts::default()
    }

    /// What the facts count for against [`MAX_COMMIT_BYTES`], in bytes.
    pub fn size(&self) -> usize {
        let leaves = usize::from(self.author.is_some()) + self.removes.len() + self.adds.len();
        leaves * LEAF_BYTES
    }

    /// Checks the bounds, together with what the commit itself counts for: all of it travels in one message.
    pub fn validate(&self, content: &Content) -> Result<(), Refusal> {
        for (field, leaves) in [("facts.removes", &self.removes), ("facts.adds", &self.adds)] {
            if leaves.len() > MAX_COMMIT_LEAVES {
                let (limit, got) = (MAX_COMMIT_LEAVES as u64, leaves.len() as u64);
                return Err(Refusal::TooLarge { field, limit, got });
            }
        }
        let size = self.size() + content_size(content);
        if !self.is_empty() && size > MAX_COMMIT_BYTES {
            let field = "the commit and its facts together";
            return Err(Refusal::TooLarge { field, limit: MAX_COMMIT_BYTES as u64, got: size as u64 });
        }
        Ok(())
    }
}

/// Bytes of a content that grow with what its author put into it.
pub(super) fn content_size(content: &Content) -> usize {
    match content {
        Content::Create(create) => create.group_info.len(),
        Content::Commit(commit) => commit_size(commit),
        Content::Proposal { message } | Content::Application { message } => message.len(),
        Content::PolicyChange { .. } | Content::Close => 0,
    }
}

/// Checks what travels on a branch: a message or a commit within its limits.
pub(super) fn validate_branch_content(content: &Content, facts: &CommitFacts) -> Result<(), Refusal> {
    match content.kind() {
        EntryKind::Commit | EntryKind::Proposal | EntryKind::Application => {
            facts.validate(content)?;
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
