//! What travels: the items of a member's stream.

use bytes::Bytes;
use group_log::ClientId;

/// One item of a member's stream. Within a stream items count from 1 without a gap; across streams there is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Whose stream.
    pub owner: ClientId,
    /// Its number.
    pub seq: u64,
    /// MLSMessage: the member's first KeyPackage, a commit in its Send Group, or an application message.
    pub message: Bytes,
    /// With a commit that adds somebody: MLSMessage with the Welcome; else empty.
    pub welcome: Bytes,
}

impl Item {
    /// What it carries, in bytes.
    pub fn bytes(&self) -> usize {
        self.message.len() + self.welcome.len()
    }
}

/// A message that was received and decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DgroupMessage {
    /// Counts what this member has received, from 1.
    pub number: u64,
    /// Who said it.
    pub sender: ClientId,
    /// Its number in the sender's stream.
    pub seq: u64,
    /// The epoch of the sender's Send Group.
    pub epoch: u64,
    /// What was said.
    pub body: Vec<u8>,
}
