//! Everything that can go wrong with a DeMLS group, as the caller should see it.

use openmls_traits::types::{Ciphersuite, CryptoError};

use super::{key_schedule::DmlsEpoch, kv::KvError, pprf::PprfError, states::StoreError, wire::DecodeError};

/// Why an operation on a DeMLS group failed. Unless said otherwise, the state it was tried on is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum DemlsError {
    /// The commit was already processed in this state, and its init secret deleted. Use the state that it led to.
    #[error(
        "the commit was processed in this state before and cannot be processed again: use the state it led to"
    )]
    AlreadyProcessed,
    /// A commit without an update path adds no secret to its confirmation. DeMLS groups do not accept such commits.
    #[error("the commit has no update path; in a DeMLS group every commit needs one")]
    CommitWithoutPath,
    /// The path secret that the commit secret is derived from was never seen.
    #[error("the commit secret was not derived from a path secret of this commit")]
    PathSecretUnknown,
    /// The state is only retained: its external secret is gone, so nobody can join at it by an external commit.
    #[error("this state is only retained and no longer accepts external commits; join at a newer state")]
    NoExternalCommits,
    /// OpenMLS did something with a placeholder that the key schedule has no place for.
    #[error(
        "openmls used a placeholder of the key schedule in an unexpected way ({0}): this version of openmls is not supported"
    )]
    UnexpectedUse(&'static str),
    /// The state that OpenMLS holds does not belong to the epoch keys beside it.
    #[error("the state of openmls and the epoch keys beside it do not belong together")]
    KeysMismatch,
    /// The message names another state than the one it was given to.
    #[error("the message belongs to state {got:?}, not to {expected:?}")]
    WrongEpoch {
        /// The state it was given to.
        expected: DmlsEpoch,
        /// The state that it names.
        got: DmlsEpoch,
    },
    /// No state that is kept has this name.
    #[error("no state with {0:?} is kept")]
    UnknownEpoch(DmlsEpoch),
    /// The ciphersuite is not one that DeMLS supports here.
    #[error("ciphersuite {0:?} is not supported; expected one of 0x0001, 0x0002, 0x0003")]
    UnsupportedCiphersuite(Ciphersuite),
    /// The message is one's own. An own commit cannot be processed: use the state that was kept when it was made.
    #[error("the message is one's own; for a commit, use the state that was kept when it was made")]
    OwnMessage,
    /// This member was removed in this state, which is the end of it.
    #[error("this member is not part of the group in this state any more")]
    Removed,
    /// The state handed over is not the outcome of an own commit made in this state.
    #[error("the state is not the unsettled outcome of an own commit made here")]
    NotPending,
    /// Bytes from outside could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The PPRF could not be evaluated or punctured.
    #[error(transparent)]
    Pprf(PprfError),
    /// The crypto provider failed.
    #[error("the crypto provider failed: {0}")]
    Crypto(#[from] CryptoError),
    /// The state could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value of OpenMLS could not be read or written.
    #[error(transparent)]
    Value(#[from] KvError),
    /// OpenMLS refused the operation.
    #[error("{operation}: {source}")]
    Mls {
        /// What was being done.
        operation: &'static str,
        /// The error of OpenMLS.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DemlsError {
    pub(crate) fn mls(
        operation: &'static str,
    ) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> DemlsError {
        move |source| DemlsError::Mls { operation, source }
    }
}

impl From<PprfError> for DemlsError {
    fn from(error: PprfError) -> Self {
        match error {
            PprfError::Punctured => DemlsError::AlreadyProcessed,
            PprfError::Crypto(error) => DemlsError::Crypto(error),
            other => DemlsError::Pprf(other),
        }
    }
}
