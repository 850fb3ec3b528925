//! Sessions at work through real gateways, with TLS everywhere: between clients and gateways, and between gateways.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{fs, path::Path, sync::Arc, time::Duration};

use concordat_certs::{Authority, Issued, Lifetime};
use mls_client::{
    ClientId, DEFAULT_CIPHERSUITE, Identity, Security, Store,
    dimls::{
        Policy, Session, Setup,
        follow::{Shared, follow},
        remote::Remote,
    },
};
use mls_gateway::{
    mesh::{DimlsParts, MeshGateway, MeshParts},
    secured::{ClientArgs, Secured, TOKEN_AUDIENCE},
};
use service_kit::{
    clock::SystemClock,
    net::tcp_network,
    rng::Randomness,
    tls::{Role, TlsArgs},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

fn put(dir: &Path, name: &str, issued: &Issued) -> (std::path::PathBuf, std::path::PathBuf) {
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")));
    fs::write(&certificate, &issued.certificate).unwrap();
    fs::write(&key, &issued.key).unwrap();
    (certificate, key)
}

async fn gateway(
    dir: &Path,
    authority: &Authority,
    role: Role,
    name: &str,
    peers: Vec<String>,
) -> MeshGateway {
    let hosts = ["127.0.0.1".to_owned()];
    let (certificate, key) = put(dir, name, &authority.issue(&role, &hosts, Lifetime::days(1)).unwrap());
    let tls = TlsArgs {
        tls_cert: Some(certificate),
        tls_key: Some(key),
        tls_ca: Some(dir.join("ca.pem")),
        tls_reload_seconds: 60,
        tls_connection_seconds: None,
        insecure_dev: false,
    };
    let clients = ClientArgs {
        client_tls_cert: None,
        client_tls_key: None,
        token_keys: None,
        token_audience: TOKEN_AUDIENCE.into(),
    };
    let secured = Secured::new(tcp_network(), &tls, &clients).unwrap();
    let parts = MeshParts {
        authenticator: secured.authenticator,
        gatekeeper: secured.gatekeeper,
        ..MeshParts::trusting(
            DimlsParts { peers, ..DimlsParts::new(dir.join(format!("{name}-data"))) },
            secured.clients.listen("127.0.0.1:0".into()).await.unwrap(),
            secured.gateways.listen("127.0.0.1:0".into()).await.unwrap(),
            secured.gateways,
            Randomness::from_os(),
        )
    };
    MeshGateway::start(parts).unwrap()
}

#[tokio::test]
async fn members_at_two_gateways_hear_one_another_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("test.concordat", Lifetime::days(1)).unwrap();
    fs::write(dir.path().join("ca.pem"), authority.certificate()).unwrap();
    let one = Role::Gateway("one".into());
    let first = gateway(dir.path(), &authority, one, "one", Vec::new()).await;
    let peers = vec![first.mesh_address().to_string()];
    let two = Role::Gateway("two".into());
    let second = gateway(dir.path(), &authority, two, "two", peers).await;
    // And back, so that both pull.
    let third_peers = vec![second.mesh_address().to_string(), first.mesh_address().to_string()];
    let third = gateway(dir.path(), &authority, Role::Gateway("three".into()), "three", third_peers).await;

    let ids = ["ann", "bob"].map(|name| ClientId::new(name).unwrap());
    let setup = Setup::new([5; 16], ids.clone(), [u16::from(DEFAULT_CIPHERSUITE)], 32).unwrap();
    let policy = Policy { acknowledge_after_ms: 100, ..Policy::default() };
    let mut members = Vec::new();
    // Both read at the gateways that pull; ann writes at the first, so bob can only hear of it over links.
    for (id, at) in ids.iter().zip([&first, &third]) {
        let name = String::from_utf8(id.as_bytes().to_vec()).unwrap();
        let role = Role::Client(id.as_bytes().to_vec());
        let (certificate, key) =
            put(dir.path(), &name, &authority.issue(&role, &[], Lifetime::days(1)).unwrap());
        let security = Security {
            ca: Some(dir.path().join("ca.pem")),
            certificate: Some((certificate, key)),
            token: None,
        };
        let mut store = Store::in_memory().unwrap();
        let identity = Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE).unwrap();
        let session =
            Session::create(store, identity, &setup, policy, SystemClock::shared().now_ms()).unwrap();
        let shared = Shared::new(session);
        let remote = Remote::new(&format!("https://{}", at.address()), id, &security).unwrap();
        // In the name of the other nobody is let in.
        let other = ids.iter().find(|other| *other != id).unwrap();
        let forged = mls_client::dimls::Item {
            owner: other.clone(),
            seq: 1,
            message: b"forged".to_vec().into(),
            welcome: Default::default(),
        };
        remote.create(&setup).await.unwrap();
        let refused = remote.submit(&setup.id(), &forged).await.unwrap_err();
        assert_eq!(refused.code, tonic::Code::PermissionDenied, "{refused}");
        let (events, mut told) = mpsc::channel(1000);
        let following =
            follow(Arc::clone(&shared), remote, SystemClock::shared(), Duration::from_millis(50), events);
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(async move { _ = following.await })),
            AbortOnDropHandle::new(tokio::spawn(async move { while told.recv().await.is_some() {} })),
        ];
        members.push((shared, tasks));
    }
    // Bob's KeyPackage is at the third gateway, which nobody pulls from: ann, who roams, brings it by following there as well.
    let ann = Security {
        ca: Some(dir.path().join("ca.pem")),
        certificate: Some((dir.path().join("ann.pem"), dir.path().join("ann-key.pem"))),
        token: None,
    };
    let roaming = Remote::new(&format!("https://{}", third.address()), &ids[0], &ann).unwrap();
    let (events, mut told) = mpsc::channel(1000);
    let shared = Arc::clone(&members[0].0);
    let following = follow(shared, roaming, SystemClock::shared(), Duration::from_millis(50), events);
    let _roams = AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::join!(following, async { while told.recv().await.is_some() {} })
    }));
    let soon = |what: &'static str, holds: Box<dyn Fn() -> bool>| async move {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    };
    let all: Vec<_> = members.iter().map(|(shared, _)| Arc::clone(shared)).collect();
    let both = all.clone();
    soon(
        "both are in both Send Groups",
        Box::new(move || {
            both.iter().all(|shared| {
                shared.with(|session| {
                    session.view().peers.iter().all(|peer| peer.in_own_group && peer.entered.is_some())
                })
            })
        }),
    )
    .await;
    all[0].with(|session| session.protect(b"hello, bob")).unwrap();
    let bob = Arc::clone(&all[1]);
    soon(
        "bob reads it",
        Box::new(move || {
            bob.with(|session| session.messages(0, 10)).unwrap().iter().any(|m| m.body == b"hello, bob")
        }),
    )
    .await;
}
