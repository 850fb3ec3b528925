//! What a caller wants to change in a group.

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
    pub(super) add: Vec<ClientId>,
    pub(super) remove: Vec<ClientId>,
    pub(super) update: bool,
    pub(super) proposals: bool,
}

impl Change {
    /// No change yet. What other members have proposed is committed along.
    pub fn new() -> Self {
        Change { proposals: true, ..Change::default() }
    }

    /// Adds a client. If it is a member when the commit is made, there is nothing to do.
    #[must_use]
    pub fn invite(mut self, client: ClientId) -> Self {
        self.add.push(client);
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
