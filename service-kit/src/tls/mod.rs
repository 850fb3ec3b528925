//! TLS between the parts and towards clients, and who is on the other side.
//!
//! A certificate binds its holder to one role of one trust domain by a SAN URI ([`PeerIdentity`]). [`TlsNetwork`] is a
//! [`crate::net::Network`]: what is dialed and accepted through it is encrypted, and every request carries its connection's identity
//! in [`crate::net::PeerInfo`]. [`Credentials`] are read from files and read again when these change. [`Gatekeeper`] lets in by role.

mod access;
mod args;
mod config;
mod credentials;
mod error;
mod identity;
mod metrics;
mod network;

pub use access::Gatekeeper;
pub use args::{Security, TlsArgs};
pub use credentials::{Credentials, Files};
pub use error::TlsError;
pub use identity::{IdentityError, PeerIdentity, Role, RoleKind};
pub use metrics::{DESCRIPTIONS, describe};
pub use network::{ClientProof, TlsNetwork, public_client_network};

/// Chooses the cryptography of every TLS connection of this process. Called by everything here; more than once does no harm.
pub fn install_crypto_provider() {
    // Fails only if one is installed already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
