//! A development CA: issues certificates that bind their holder to a role ([`service_kit::tls::PeerIdentity`]), and signs tokens for
//! clients. For trying out and for tests; in production a CA of one's own (such as cert-manager) issues the same certificates.

mod authority;
mod folder;
mod token;

pub use authority::{Authority, CertsError, Issued, Lifetime};
pub use folder::{Folder, Plan};
pub use token::TokenSigner;
