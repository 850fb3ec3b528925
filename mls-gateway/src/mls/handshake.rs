//! What is validated, and what comes of it.

use group_log::GroupId;
use openmls::prelude::PublicMessageIn;

use super::{
    parse::{GroupInfoIn, MessageKind},
    public_state::Checked,
};

/// A public handshake to validate, and what came with it.
pub struct Handshake<'a> {
    /// The group.
    pub group_id: &'a GroupId,
    /// The epoch that it was made in.
    pub epoch: u64,
    /// A commit or a proposal.
    pub kind: MessageKind,
    /// The message.
    pub message: &'a PublicMessageIn,
    /// With a commit: the GroupInfo after it.
    pub group_info: Option<&'a GroupInfoIn>,
    /// With a commit: the KeyPackageRefs of its Welcome.
    pub welcome: Option<&'a [Vec<u8>]>,
}

/// What was validated, to be handed back when the cluster has accepted it. Dropped otherwise.
pub struct Ticket {
    /// The identity in the leaf that made it; nothing if no leaf did.
    pub(super) author: Option<Vec<u8>>,
    pub(super) group_id: GroupId,
    pub(super) epoch: u64,
    pub(super) generation: u64,
    pub(super) checked: Checked,
}

impl Ticket {
    /// It is a commit that adds or removes members and does nothing else.
    pub fn changes_members_only(&self) -> bool {
        match &self.checked {
            Checked::Commit(staged) => staged.changes_members_only(),
            Checked::Proposal(_) => false,
        }
    }

    /// The identity in the leaf that made the handshake; nothing if no leaf did (an external sender, or one that asks to be added).
    pub fn author(&self) -> Option<&[u8]> {
        self.author.as_deref()
    }
}
