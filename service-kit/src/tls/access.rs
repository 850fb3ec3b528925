//! Who may call what, by role.

use std::sync::Arc;

use tonic::{Code, Extensions, Status};

use super::identity::{PeerIdentity, RoleKind};
use crate::{net::PeerInfo, status::StatusBuilder};

/// Lets callers in by the role in their certificate. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Gatekeeper {
    /// Absent: everything is plaintext on loopback, and everybody is let in.
    domain: Option<Arc<str>>,
}

impl Gatekeeper {
    /// Lets in holders of certificates of `domain`.
    pub fn of_domain(domain: &str) -> Self {
        Self { domain: Some(domain.into()) }
    }

    /// Lets everybody in: development on loopback.
    pub fn open() -> Self {
        Self { domain: None }
    }

    /// Whether everybody is let in.
    pub fn is_open(&self) -> bool {
        self.domain.is_none()
    }

    /// The caller of a request with these extensions, if it has one of the roles. Nothing if everybody is let in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: the connection showed no certificate that names a role. `PERMISSION_DENIED`: it is of another trust domain
    /// or role.
    pub fn admit(
        &self,
        extensions: &Extensions,
        roles: &[RoleKind],
    ) -> Result<Option<Arc<PeerIdentity>>, Status> {
        let Some(domain) = self.domain.as_deref() else { return Ok(None) };
        let identity = extensions.get::<PeerInfo>().and_then(|info| info.identity.clone());
        let expected = || roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(" or ");
        let Some(identity) = identity else {
            let message =
                format!("show a certificate of the trust domain {domain} with the role {}", expected());
            return Err(StatusBuilder::new(Code::Unauthenticated, "UNAUTHENTICATED", message).build());
        };
        if identity.domain != domain {
            return Err(denied("trust domain", domain, &identity.domain));
        }
        if !roles.contains(&identity.role.kind()) {
            return Err(denied("role", &expected(), identity.role.kind().name()));
        }
        Ok(Some(identity))
    }
}

fn denied(what: &str, expected: &str, got: &str) -> Status {
    let message = format!(
        "expected a certificate with the {what} {expected}, got {got}: use one that was issued for this"
    );
    StatusBuilder::new(Code::PermissionDenied, "PERMISSION_DENIED", message)
        .fact("expected", expected)
        .fact("got", got)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Role;

    fn request(domain: &str, role: Role) -> Extensions {
        let identity = PeerIdentity { domain: domain.into(), role, expires_at: 0 };
        let mut extensions = Extensions::new();
        extensions.insert(PeerInfo { address: None, identity: Some(Arc::new(identity)) });
        extensions
    }

    #[test]
    fn only_the_roles_asked_for_of_the_same_domain_pass() {
        let keeper = Gatekeeper::of_domain("a");
        let roles = [RoleKind::Node, RoleKind::Operator];
        assert!(keeper.admit(&request("a", Role::Node(Some(1))), &roles).unwrap().is_some());
        assert!(keeper.admit(&request("a", Role::Operator("o".into())), &roles).is_ok());
        for (domain, role) in
            [("b", Role::Node(Some(1))), ("a", Role::Gateway("g".into())), ("a", Role::Client(b"c".to_vec()))]
        {
            let status = keeper.admit(&request(domain, role), &roles).unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
        }
        assert_eq!(keeper.admit(&Extensions::new(), &roles).unwrap_err().code(), Code::Unauthenticated);
        assert!(Gatekeeper::open().admit(&Extensions::new(), &roles).unwrap().is_none());
    }
}
