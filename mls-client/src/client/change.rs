//! What a caller wants to change in a group.

use bytes::Bytes;
use group_log::ClientId;

/// A change of a group's members, to be made by one commit.
///
/// ```
/// # use mls_client::{Change, ClientId};
/// # let (ann, bob) = (ClientId::new("ann").unwrap(), ClientId::new("bob").unwrap());
/// let change = Change::new().invite(ann).remove(bob);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub(super) add: Vec<Add>,
    pub(super) remove: Vec<ClientId>,
    pub(super) update: bool,
    pub(super) proposals: bool,
}

/// Somebody to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Add {
    pub(super) client: ClientId,
    /// The KeyPackage to add it with, if one is at hand.
    pub(super) key_package: Option<Bytes>,
}

impl Change {
    /// No change yet. What other members have proposed is committed along.
    pub fn new() -> Self {
        Change { proposals: true, ..Change::default() }
    }

    /// Adds a client. If it is a member when the commit is made, there is nothing to do.
    #[must_use]
    pub fn invite(mut self, client: ClientId) -> Self {
        self.add.push(Add { client, key_package: None });
        self
    }

    /// Adds a client with a KeyPackage that is at hand: from [`Client::claim_key_package`](super::Client::claim_key_package), or handed
    /// over by the client itself. So somebody can be added while no quorum is there to claim one from.
    #[must_use]
    pub fn invite_with(mut self, client: ClientId, key_package: impl Into<Bytes>) -> Self {
        self.add.push(Add { client, key_package: Some(key_package.into()) });
        self
    }

    /// Removes a member. If it is gone when the commit is made, there is nothing to do.
    #[must_use]
    pub fn remove(mut self, client: ClientId) -> Self {
        self.remove.push(client);
        self
    }

    /// Renews this client's own keys, which heals the group after a compromise of this client (RFC 9420 section 16.6).
    #[must_use]
    pub fn update(mut self) -> Self {
        self.update = true;
        self
    }
}
