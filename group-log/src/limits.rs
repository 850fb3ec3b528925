//! Every bound of the rules, with its unit.
//!
//! The constants are part of the replicated rules: two nodes that disagreed about one of them would disagree about what was
//! accepted. [`Limits`] is for a node that wants to refuse earlier, before anything is replicated.

/// Longest group id, in bytes. The shortest is 1.
pub const MAX_GROUP_ID_BYTES: usize = 256;

/// Longest client id, in bytes. The shortest is 1.
pub const MAX_CLIENT_ID_BYTES: usize = 128;

/// Longest KeyPackageRef (RFC 9420 section 5.2), in bytes. The shortest is 1.
pub const MAX_KEY_PACKAGE_REF_BYTES: usize = 64;

/// Longest proposal or application message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A commit, its Welcome, its GroupInfo and its recipients together, in bytes.
///
/// A command on the wire is at most 4 MiB; this leaves 64 KiB for the framing around the payload.
pub const MAX_COMMIT_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

/// The GroupInfo that creates a group, in bytes.
pub const MAX_GROUP_INFO_BYTES: usize = MAX_COMMIT_BYTES;

/// Clients that one Welcome may be for.
pub const MAX_WELCOME_RECIPIENTS: usize = 1024;

/// What one recipient counts for beside its two byte strings when a commit is measured, in bytes.
pub const RECIPIENT_OVERHEAD_BYTES: usize = 16;

/// Highest epoch of a group. Far beyond use, and far enough below 2^64 that arithmetic on epochs never overflows.
pub const MAX_EPOCH: u64 = 1 << 62;

/// Highest number of an entry. See [`MAX_EPOCH`].
pub const MAX_SEQ: u64 = 1 << 62;

/// Highest value of [`Policy::past_epochs`](crate::Policy::past_epochs), in epochs.
pub const MAX_PAST_EPOCHS: u32 = 64;

/// Value of [`Policy::past_epochs`](crate::Policy::past_epochs) for a creator that chooses none, in epochs.
pub const DEFAULT_PAST_EPOCHS: u32 = 5;

/// Highest value of [`Policy::retain_hours`](crate::Policy::retain_hours), in hours: a century.
pub const MAX_RETAIN_HOURS: u32 = 876_000;

/// Shortest [`Turns::turn_ms`](crate::Turns::turn_ms), in milliseconds.
pub const MIN_TURN_MS: u32 = 10;

/// Longest [`Turns::turn_ms`](crate::Turns::turn_ms), in milliseconds: a day.
pub const MAX_TURN_MS: u32 = 24 * 60 * 60 * 1000;

/// Clients in one [`Turns::order`](crate::Turns::order).
pub const MAX_TURN_MEMBERS: usize = 1024;

/// How many turns ahead is looked for that of somebody who has to wait. Whoever comes later asks again after as many.
pub const TURNS_AHEAD: u32 = 64;

/// How far back, in entries of the group, a proposal, an application message or a policy change is recognised when it is
/// submitted again. Commits, the create and the close are recognised forever.
pub const DEDUPE_WINDOW: u64 = 4096;

/// Entries that one command gives up.
pub const MAX_PRUNED_AT_ONCE: u64 = 512;

/// Size bounds that a submission is held against, in bytes and items.
///
/// The replicated rules use [`Limits::REPLICATED`]; a node may be configured to admit less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest proposal or application message, in bytes.
    pub message_bytes: usize,
    /// A commit with all that belongs to it, in bytes.
    pub commit_bytes: usize,
    /// The GroupInfo that creates a group, in bytes.
    pub group_info_bytes: usize,
    /// Recipients of one Welcome.
    pub welcome_recipients: usize,
}

impl Limits {
    /// The bounds that every node applies.
    pub const REPLICATED: Limits = Limits {
        message_bytes: MAX_MESSAGE_BYTES,
        commit_bytes: MAX_COMMIT_BYTES,
        group_info_bytes: MAX_GROUP_INFO_BYTES,
        welcome_recipients: MAX_WELCOME_RECIPIENTS,
    };

    /// These bounds, but none above [`Limits::REPLICATED`].
    #[must_use]
    pub fn capped(self) -> Limits {
        let top = Limits::REPLICATED;
        Limits {
            message_bytes: self.message_bytes.min(top.message_bytes),
            commit_bytes: self.commit_bytes.min(top.commit_bytes),
            group_info_bytes: self.group_info_bytes.min(top.group_info_bytes),
            welcome_recipients: self.welcome_recipients.min(top.welcome_recipients),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::REPLICATED
    }
}

/// Gateways that may be registered for one group.
pub const MAX_GATEWAYS: usize = 64;

/// Entries that wait for the close of a collection. Beyond that a report is refused; the gateway keeps its entries and reports
/// again after the close.
pub const MAX_CANDIDATES: usize = 65_536;

/// Entries of one report. A longer branch is reported in several.
pub const MAX_REPORT_ENTRIES: usize = 1024;

/// Entries of one report together, in bytes as [`BranchEntry::size`](crate::fork::BranchEntry::size) counts them; a single larger
/// entry is reported alone. Leaves room for the framing in a command of at most 4 MiB.
pub const MAX_REPORT_BYTES: usize = MAX_COMMIT_BYTES;

/// What an entry of a branch counts for beside its payload and its facts: parent, author and framing, in bytes.
pub const BRANCH_ENTRY_OVERHEAD_BYTES: usize = 256;

/// What a leaf counts for when facts are measured: its id and its framing, in bytes.
pub const LEAF_BYTES: usize = 34;

/// Ids in one [`Side`](crate::fork::Mark::Side) or [`Late`](crate::fork::Mark::Late) entry.
pub const MAX_MARK_IDS: usize = 1024;

/// Leaves that one commit may add, and that it may remove.
pub const MAX_COMMIT_LEAVES: usize = 4096;

/// Entries with side branches that are remembered above the stable position, only to know when it is worth to move it.
pub const MAX_PENDING_MARKS: usize = 1024;

/// Entries that one branch store of a gateway holds for one group.
pub const MAX_BRANCH_ENTRIES: usize = MAX_CANDIDATES;

/// Members of one DGroup. Every member holds as many Send Groups.
pub const MAX_DGROUP_MEMBERS: usize = 256;

/// Ciphersuites that one DGroup may allow.
pub const MAX_DGROUP_CIPHERSUITES: usize = 16;
