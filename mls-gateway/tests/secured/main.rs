//! Every RPC of every service, over real TLS sockets, called by those who must not: nobody, somebody whose proof has expired, somebody
//! of another CA, somebody in another role, somebody of another group, and a member that was removed. A new RPC without a row fails.

#![allow(clippy::unwrap_used, unreachable_pub)] // A panic in a test is its report; what files share is public.

mod expiry;
mod links;
#[path = "../gateway/support/member.rs"]
#[allow(dead_code)] // What the tests of groups need beside this.
mod member;
mod raw;
mod story;
mod table;
mod world;

use std::collections::BTreeSet;

use bytes::Bytes;
use concordat_certs::Lifetime;
use concordat_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use service_kit::tls::{Role, RoleKind};
use tonic::Code;

use crate::{
    raw::Outcome,
    story::Story,
    table::{ROWS, Row, Server},
    world::{Caller, World},
};

/// The roles in whose name others are called.
fn roles() -> [(RoleKind, Role); 4] {
    [
        (RoleKind::Node, Role::Node(None)),
        (RoleKind::Gateway, Role::Gateway("other".into())),
        (RoleKind::Operator, Role::Operator("ops".into())),
        (RoleKind::Client, Role::Client(b"ann".to_vec())),
    ]
}

#[test]
fn every_rpc_has_a_row() {
    let described = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut rpcs = BTreeSet::new();
    for file in &described.file {
        for service in &file.service {
            for method in &service.method {
                rpcs.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    let rows: BTreeSet<String> = ROWS.iter().map(Row::path).collect();
    assert_eq!(rows, rpcs, "each RPC needs one row in table.rs that says who may call it");
}

/// Each row at each place where it is served.
fn walk(world: &World) -> impl Iterator<Item = (&'static Row, String)> {
    ROWS.iter().flat_map(|row| world.places(row.server).into_iter().map(move |place| (row, place)))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_refuses_strangers_and_wrong_roles() {
    let world = World::start().await;
    for (row, place) in walk(&world) {
        let (path, at) = (format!("{} at {place}", row.path()), row.server);
        let may = row.server.role();
        let call = async |caller: Caller| world.call(&caller, row, &place, Bytes::new()).await;

        // Nobody: nodes and relays already end the handshake, gateways may be waiting for a token.
        let nobody = call(Caller::Nobody).await;
        match at.takes_tokens() {
            true => assert_eq!(
                nobody,
                Outcome::Refused(Code::Unauthenticated, "UNAUTHENTICATED".into()),
                "{path}"
            ),
            false => assert_eq!(nobody, Outcome::NoConnection, "{path} called by nobody"),
        }

        // The right role, but the certificate has expired or is of another CA.
        let role = roles().into_iter().find(|(kind, _)| *kind == may).unwrap().1;
        let expired = world.authority.issue(&role, &world.hosts, Lifetime::expired()).unwrap();
        let outcome = call(Caller::Certificate(expired)).await;
        assert_eq!(outcome, Outcome::NoConnection, "{path} with an expired certificate");
        let foreign = world.stranger.issue(&role, &world.hosts, Lifetime::days(1)).unwrap();
        let outcome = call(Caller::Certificate(foreign)).await;
        assert_eq!(outcome, Outcome::NoConnection, "{path} with another CA's certificate");

        // Another role.
        for (kind, role) in roles() {
            let issued = world.authority.issue(&role, &world.hosts, Lifetime::days(1)).unwrap();
            let outcome = call(Caller::Certificate(issued)).await;
            if kind == may {
                assert!(!outcome.is_refusal(), "{path} refused the role {}: {outcome:?}", kind.name());
            } else {
                let denied = Outcome::Refused(Code::PermissionDenied, "PERMISSION_DENIED".into());
                assert_eq!(outcome, denied, "{path} called by the role {}", kind.name());
            }
        }

        if at.takes_tokens() {
            let unauthenticated = Outcome::Refused(Code::Unauthenticated, "UNAUTHENTICATED".into());
            let token =
                |audience, seconds| Caller::Token(world.tokens.sign("ann", audience, seconds).unwrap());
            assert!(!call(token("concordat", 60)).await.is_refusal(), "{path} with a token");
            let other_key = concordat_certs::TokenSigner::new().unwrap();
            for bad in [
                token("concordat", -1),
                token("another", 60),
                Caller::Token(other_key.sign("ann", "concordat", 60).unwrap()),
                Caller::Token("junk".into()),
            ] {
                assert_eq!(call(bad).await, unauthenticated, "{path} with a bad token");
            }
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_about_a_group_refuses_strangers_and_removed_members() {
    let world = World::start().await;
    let story = Story::tell(&world).await;
    for (row, place) in walk(&world) {
        let path = format!("{} at {place}", row.path());
        let Some(request) = row.foreign else {
            let is_group = row.server == Server::Gateway || row.server == Server::Dimls;
            let own =
                ["ListDgroups", "ClaimKeyPackage", "GetKeyPackageStatus", "WatchWelcomes", "AckWelcomes"];
            let names_none = own.iter().any(|method| row.path().ends_with(method));
            assert!(!is_group || names_none, "{path} names no group");
            continue;
        };
        let call = async |caller: Caller| world.call(&caller, row, &place, request(&story)).await;
        let denied = Outcome::Refused(Code::PermissionDenied, "PERMISSION_DENIED".into());
        for name in ["mallory", "bob"] {
            let outcome = call(world.client(name)).await;
            assert_eq!(outcome, denied, "{path} called by {name}");
        }
        let outcome = call(world.client("ann")).await;
        assert!(!outcome.is_refusal(), "{path} refused a member: {outcome:?}");
        if row.server.takes_tokens() {
            let token = |name| Caller::Token(world.tokens.sign(name, "concordat", 60).unwrap());
            assert_eq!(call(token("mallory")).await, denied, "{path}");
            assert!(!call(token("ann")).await.is_refusal(), "{path}");
        }
    }
    world.stop().await;
}
