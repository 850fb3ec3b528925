//! The rules of a group's log.
//!
//! Pure: no IO, no clock, no randomness, no tasks, no unordered collections. The same code decides in the cluster's replicated state
//! machine, on a gateway's branch, in a client that checks what it was shown, and in tests that try everything.
//!
//! A [`Submission`] comes in; [`apply`] reads the group through a [`View`] and gives a [`Decision`] and, for a new entry, the
//! [`Change`] to store. Losing a race is a decision, not an error; the same bytes again get the same decision again.

mod chain;
mod codec;
mod content;
mod cursor;
mod head;
mod ids;
mod memory;
mod refusal;
mod retention;
mod rules;
mod turns;
mod validate;
mod view;

pub mod dimls;
pub mod fork;
pub mod hash;
pub mod limits;

pub use chain::{ChainError, ChainVerifier, verify_entry};
pub use codec::DecodeError;
pub use content::{
    Commit, CommitRef, Content, Create, Entry, EntryKind, GroupKind, Policy, Record, Submission,
    WelcomeRecipient,
};
pub use cursor::{Cursor, CursorError, check_cursor};
pub use head::Head;
pub use ids::{
    ChainHash, ClientId, EntryId, GroupId, HashLengthError, IdLengthError, KeyPackageRef, StateId,
};
pub use limits::Limits;
pub use memory::MemoryLog;
pub use refusal::Refusal;
pub use retention::{Prune, Pruned, Retention, prunable, prune};
pub use rules::{Accepted, Change, Decision, WelcomeNote, admit, apply};
pub use turns::{Offer, Turn, Turns};
pub use validate::{size as commit_size, validate};
pub use view::{ReadError, View};
