//! The keys of rows. All of a group begin with a byte for what it is, the length of the group's id (2 bytes) and the id.

use group_log::GroupId;

use super::StoreError;

/// Who the gateway is, and its cluster.
pub(super) const MARKER: &[u8] = b"\0marker";

/// The group itself: its shard and what was promised.
pub(super) const GROUP: u8 = b'g';
/// The head of the copied log.
pub(super) const HEAD: u8 = b'h';
/// The fork state.
pub(super) const FORK: u8 = b'f';
/// An entry of the log with its bodies, by number.
pub(super) const ENTRY: u8 = b'e';
/// A record, by number.
pub(super) const RECORD: u8 = b'r';
/// The commit that ended an epoch.
pub(super) const COMMIT: u8 = b'c';
/// The number of a recent entry, by id.
pub(super) const RECENT: u8 = b'n';
/// What the log says about an entry, by id.
pub(super) const RECORDED: u8 = b'k';
/// A leaf that is a member at the head.
pub(super) const MEMBER: u8 = b'm';
/// An entry of the branch tree, by id.
pub(super) const BRANCH: u8 = b'b';
/// The leaves of a canonical state, by epoch.
pub(super) const LEAVES: u8 = b'l';
/// The leaves of a state on a branch, by its id.
pub(super) const BRANCH_LEAVES: u8 = b'L';

/// Every kind of row that belongs to a group.
pub(super) const OF_A_GROUP: [u8; 12] =
    [GROUP, HEAD, FORK, ENTRY, RECORD, COMMIT, RECENT, RECORDED, MEMBER, BRANCH, LEAVES, BRANCH_LEAVES];

/// The beginning of every key of a kind in a group.
pub(super) fn prefix(kind: u8, group: &GroupId) -> Vec<u8> {
    let id = group.as_bytes();
    let mut key = Vec::with_capacity(3 + id.len() + 32);
    key.push(kind);
    // A group id has 1 to 256 bytes.
    key.extend_from_slice(&(id.len() as u16).to_be_bytes());
    key.extend_from_slice(id);
    key
}

/// A row with a number in its key.
pub(super) fn numbered(kind: u8, group: &GroupId, number: u64) -> Vec<u8> {
    let mut key = prefix(kind, group);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// A row with an id in its key.
pub(super) fn named(kind: u8, group: &GroupId, id: &[u8; 32]) -> Vec<u8> {
    let mut key = prefix(kind, group);
    key.extend_from_slice(id);
    key
}

/// The group whose key this is.
pub(super) fn group_of(key: &[u8]) -> Result<GroupId, StoreError> {
    let damaged = || StoreError::damaged("the groups", "a key is cut off");
    let length = key.get(1..3).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    let id = key.get(3..3 + usize::from(length.ok_or_else(damaged)?)).ok_or_else(damaged)?;
    GroupId::new(id.to_vec()).map_err(|error| StoreError::damaged("the groups", error))
}
