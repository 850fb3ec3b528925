//! What is wrong with TLS files.

use std::{io, path::PathBuf};

use super::identity::IdentityError;

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}: {source}; check the path and its permissions")]
    Read {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A file does not hold what it must.
    #[error("the {what} {path} is not usable: {problem}")]
    Content {
        /// Which file.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate {path} can not be used with its key: {problem}")]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate does not say whom it stands for.
    #[error("the certificate {path}: {source}")]
    Identity {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The certificate stands for somebody else.
    #[error(
        "the certificate {path} must be for {expected}, it is for {got}: give this process a certificate of its own"
    )]
    WrongIdentity {
        /// The certificate.
        path: PathBuf,
        /// Whom it must stand for.
        expected: String,
        /// Whom it stands for.
        got: String,
    },
    /// The certificate does not hold against one's own CA: expired, not valid yet, of another CA, or not meant for TLS clients.
    #[error("the certificate {path} does not hold against the CA file: {problem}")]
    Unverified {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The command line names some TLS files, but not all.
    #[error("{0}")]
    Arguments(&'static str),
}
