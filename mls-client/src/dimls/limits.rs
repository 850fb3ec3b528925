//! Every bound of a DiMLS session, with its unit.

/// Members of one DGroup. Every member holds as many Send Groups.
pub const MAX_MEMBERS: usize = group_log::limits::MAX_DGROUP_MEMBERS;

/// Items of one member that wait for an earlier one, or for a PSK. What does not fit is fetched again from the cursor.
pub const WAITING_ITEMS: usize = 512;

/// Bytes of those items.
pub const WAITING_BYTES: usize = 8 * 1024 * 1024;

/// PSKs of one Send Group that are kept for commits still to come; the oldest beyond are deleted. A Send Group may so go through that many
/// epochs while a commit that takes one of them is on its way.
pub const PSKS_KEPT: usize = 512;

/// How long the next item of a member may wait for a PSK, in milliseconds. After that its Send Group counts as lost, until its owner
/// replaces this member's leaf.
pub const WAIT_MS: u64 = 24 * 60 * 60 * 1000;

/// KeyPackages of this member that wait until every owner has used a newer one. The oldest beyond are deleted.
pub const GENERATIONS_KEPT: usize = 64;

/// Items of this member that no gateway has confirmed.
pub const OUTBOX_ITEMS: usize = 4096;

/// Longest application message before encryption, in bytes.
pub const BODY_BYTES: usize = crate::limits::MAX_BODY_BYTES;

/// Received messages that are kept; the oldest beyond are deleted.
pub const MESSAGES_KEPT: u64 = 100_000;
