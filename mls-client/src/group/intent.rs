//! What a commit is meant to do, so that it can be built again in another epoch.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::store::hexed;

/// What a commit is meant to do. Members are named by client id, not by leaf: a member that came back under another leaf meanwhile is
/// still the one that was meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Clients to add, with the KeyPackages that were claimed for them.
    pub add: Vec<Invitee>,
    /// Members to remove.
    pub remove: Vec<MemberId>,
    /// Renew this client's own keys, even if nothing else is left to do.
    pub update: bool,
    /// Commit what others have proposed, if something waits.
    pub proposals: bool,
}

/// A client to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitee {
    /// The client.
    pub client_id: MemberId,
    /// MLSMessage with a KeyPackage of it.
    #[serde(with = "hexed")]
    pub key_package: Vec<u8>,
}

/// A client id in a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(#[serde(with = "hexed")] pub Vec<u8>);

impl Intent {
    /// What is left to do in a group with these members: an Add of somebody who is there, or a Remove of somebody who is not, has
    /// been done by somebody else.
    pub(crate) fn rest(&self, members: &BTreeSet<Vec<u8>>) -> Intent {
        let mut seen = BTreeSet::new();
        Intent {
            add: self
                .add
                .iter()
                .filter(|i| !members.contains(&i.client_id.0) && seen.insert(i.client_id.clone()))
                .cloned()
                .collect(),
            remove: self.remove.iter().filter(|id| members.contains(&id.0)).cloned().collect(),
            update: self.update,
            proposals: self.proposals,
        }
    }

    /// Members that it names.
    pub(crate) fn len(&self) -> usize {
        self.add.len() + self.remove.len()
    }

    /// Whether it names nobody and demands no update.
    pub(crate) fn is_done(&self) -> bool {
        self.len() == 0 && !self.update
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> MemberId {
        MemberId(name.as_bytes().to_vec())
    }

    #[test]
    fn what_somebody_else_has_done_is_dropped() {
        let invitee = |name| Invitee { client_id: id(name), key_package: Vec::new() };
        let intent = Intent {
            add: vec![invitee("ann"), invitee("bob"), invitee("bob")],
            remove: vec![id("cy"), id("dan")],
            update: false,
            proposals: true,
        };
        let members: BTreeSet<_> = [b"ann".to_vec(), b"cy".to_vec()].into();
        let rest = intent.rest(&members);
        assert_eq!(rest.add, [invitee("bob")]);
        assert_eq!(rest.remove, [id("cy")]);
        assert!(!rest.is_done() && rest.proposals);
        let all: BTreeSet<_> = [b"ann".to_vec(), b"bob".to_vec()].into();
        assert!(intent.rest(&all).is_done());
    }
}
