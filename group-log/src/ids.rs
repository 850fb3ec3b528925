//! Names: of groups, clients, states, entries and places in the hash chain.

use std::fmt;

use bytes::Bytes;

use crate::limits::{MAX_CLIENT_ID_BYTES, MAX_GROUP_ID_BYTES, MAX_KEY_PACKAGE_REF_BYTES};

/// An identifier was empty or too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {max} bytes long, got {got}")]
pub struct IdLengthError {
    /// Which identifier.
    pub what: &'static str,
    /// Longest length allowed, in bytes.
    pub max: usize,
    /// Length that came, in bytes.
    pub got: usize,
}

/// A hash did not have 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 32 bytes long, got {got}")]
pub struct HashLengthError {
    /// Which hash.
    pub what: &'static str,
    /// Length that came, in bytes.
    pub got: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Bytes);

        impl $name {
            /// Takes the bytes as they are. Fails when they are empty or too many.
            pub fn new(bytes: impl Into<Bytes>) -> Result<Self, IdLengthError> {
                let bytes = bytes.into();
                if bytes.is_empty() || bytes.len() > $max {
                    return Err(IdLengthError { what: $what, max: $max, got: bytes.len() });
                }
                Ok($name(bytes))
            }

            /// The bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The bytes, shared and not copied.
            pub fn to_bytes(&self) -> Bytes {
                self.0.clone()
            }
        }

        // Identifiers of people and groups must not end up in logs by accident: only the length is shown.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }

        impl TryFrom<Bytes> for $name {
            type Error = IdLengthError;
            fn try_from(bytes: Bytes) -> Result<Self, IdLengthError> {
                $name::new(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

byte_id!(
    /// An MLS group id (RFC 9420 section 8.1): 1 to 256 bytes.
    GroupId,
    "group id",
    MAX_GROUP_ID_BYTES
);
byte_id!(
    /// Who submitted something, as the gateway authenticated it: 1 to 128 bytes.
    ClientId,
    "client id",
    MAX_CLIENT_ID_BYTES
);
byte_id!(
    /// A KeyPackageRef (RFC 9420 section 5.2): 1 to 64 bytes.
    KeyPackageRef,
    "KeyPackageRef",
    MAX_KEY_PACKAGE_REF_BYTES
);

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 32;

            /// Reads exactly 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, HashLengthError> {
                match bytes.try_into() {
                    Ok(array) => Ok($name(array)),
                    Err(_) => Err(HashLengthError { what: $what, got: bytes.len() }),
                }
            }

            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// A copy for the wire.
            pub fn to_bytes(&self) -> Bytes {
                Bytes::copy_from_slice(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str("..)")
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

hash_id!(
    /// Names one exact state of a group: H(parent state id, commit bytes). Computed by servers and clients alike, never claimed.
    StateId,
    "state id"
);
hash_id!(
    /// Names what was submitted, so that it is recognised when it comes again. For a commit it is the state the commit leads to.
    EntryId,
    "entry id"
);
hash_id!(
    /// Names a whole log up to one entry: H(previous chain hash, entry).
    ChainHash,
    "chain hash"
);

impl ChainHash {
    /// The chain hash before the first entry.
    pub const START: ChainHash = ChainHash([0; 32]);
}

impl From<StateId> for EntryId {
    fn from(state: StateId) -> EntryId {
        EntryId(state.0)
    }
}

impl EntryId {
    /// The state that the commit with this id leads to. Meaningful for commits only.
    pub fn as_state(self) -> StateId {
        StateId(self.0)
    }
}
