//! DiMLS on the published, unmodified OpenMLS: every member owns an MLS group, its Send Group, in which only it commits and sends
//! (draft-xue-distributed-mls). Nobody waits for an agreement, so nothing can fork.
//!
//! [`Session`] is all Send Groups of one DGroup as one member holds them: bytes in, bytes out, everything durable in one transaction.
//! [`graph`], [`waiting`], [`policy`] and [`removal`] are its rules, pure. docs/dimls.md says what is taken literally from the draft
//! and what stands in for it.

mod aad;
mod error;
pub mod follow;
pub mod graph;
mod group;
mod item;
pub mod limits;
pub mod measure;
pub mod policy;
mod psk;
mod record;
pub mod records;
pub mod remote;
pub mod removal;
mod session;
pub mod waiting;

pub use group_log::dimls::{DgroupId, Setup, SetupError};

pub use self::{
    error::{DimlsError, Rejected},
    graph::{Member, Node},
    item::{DgroupMessage, Item},
    policy::Policy,
    records::{MemoryRecords, Records},
    session::{Event, Session, View},
};
