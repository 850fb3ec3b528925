//! DeMLS on the published, unmodified OpenMLS: MLS groups whose members can keep several states side by side without giving up
//! forward secrecy (draft-kohbrok-mls-dmls, FREEK).
//!
//! [`DmlsGroup`] is a group in one state; [`BranchStates`] keeps the states of a group on disk. docs/demls.md describes the key
//! schedule, the encodings, what the draft leaves open and the test vectors.

pub mod crypto;
pub mod epoch_keys;
mod error;
pub mod group;
pub mod kdf;
pub mod key_schedule;
pub mod kv;
pub mod limits;
pub mod message;
pub mod pprf;
mod provider;
pub(crate) mod secret;
mod state;
pub mod states;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

pub use self::{
    crypto::{Backend, CIPHERSUITES},
    error::DemlsError,
    group::{DmlsGroup, ExternalJoin, Merged, OwnCommit, Processed, StagedDmlsCommit, epoch_in},
    key_schedule::DmlsEpoch,
    message::DmlsMessage,
    provider::DmlsProvider,
    secret::Secret,
    state::EpochState,
    states::{BranchStates, StateId},
    wire::DecodeError,
};
