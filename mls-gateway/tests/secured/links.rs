//! Links between gateways under TLS: gateways with a certificate of the cluster's CA hear one another, and nobody else is heard or let in.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use concordat_certs::{Authority, Lifetime, TokenSigner};
use mls_gateway::{
    secured::{ClientArgs, Secured, TOKEN_AUDIENCE},
    server::{DemlsParts, Gateway, Parts},
};
use ordering_service::dev::DevCluster;
use service_kit::{
    net::{Incoming, tcp_network},
    rng::Randomness,
    tls::{Role, TlsArgs},
};
use tempfile::TempDir;
use time::OffsetDateTime;

const DOMAIN: &str = "test.concordat";

/// Where a gateway listens to others, and how it meets them.
struct Relaying {
    secured: Secured,
    incoming: Incoming,
    address: String,
}

/// Where a gateway's credentials are.
fn path(dir: &Path, name: &str, kind: &str) -> PathBuf {
    dir.join(format!("{name}-{kind}.pem"))
}

/// Gives a gateway a certificate, in place of the one that it has.
fn certify(dir: &Path, name: &str, authority: &Authority, lifetime: Lifetime) {
    let issued = authority.issue(&Role::Gateway(name.into()), &["127.0.0.1".to_owned()], lifetime).unwrap();
    // Whoever reads in between finds a pair that does not fit, and looks again.
    for (kind, text) in
        [("ca", authority.certificate()), ("key", issued.key.as_str()), ("cert", issued.certificate.as_str())]
    {
        let new = path(dir, name, &format!("{kind}-new"));
        fs::write(&new, text).unwrap();
        fs::rename(&new, path(dir, name, kind)).unwrap();
    }
}

/// A gateway that looks every second whether it has a new certificate, and replaces connections after `age` (seconds).
async fn relaying(dir: &Path, name: &str, age: Option<u64>) -> Relaying {
    let path = |kind: &str| path(dir, name, kind);
    let tls = TlsArgs {
        tls_cert: Some(path("cert")),
        tls_key: Some(path("key")),
        tls_ca: Some(path("ca")),
        tls_reload_seconds: 1,
        tls_connection_seconds: age,
        insecure_dev: false,
    };
    fs::write(path("tokens"), TokenSigner::new().unwrap().public_key()).unwrap();
    let clients = ClientArgs {
        client_tls_cert: None,
        client_tls_key: None,
        token_keys: Some(path("tokens")),
        token_audience: TOKEN_AUDIENCE.into(),
    };
    let secured = Secured::new(tcp_network(), &tls, &clients).unwrap();
    let incoming = secured.gateways.listen("127.0.0.1:0".into()).await.unwrap();
    let address = incoming.local_addr().to_string();
    Relaying { secured, incoming, address }
}

/// The nodes are reached in plaintext here: it is about the links only.
async fn start(dir: &Path, nodes: &[String], relaying: Relaying, peers: Vec<String>) -> Gateway {
    let Relaying { secured, incoming, address } = relaying;
    let api = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
    let mut parts = Parts::new(nodes.to_vec(), api, tcp_network(), Randomness::from_os());
    parts.demls = Some(DemlsParts {
        relay: Some(incoming),
        peers,
        network: Some(secured.gateways),
        gatekeeper: secured.gatekeeper,
        ..DemlsParts::new(dir.join(address.replace(':', "-")))
    });
    Gateway::start(parts).unwrap()
}

fn links(gateway: &Gateway) -> usize {
    gateway.demls().unwrap().paths().relay.links()
}

async fn until_linked(one: &Gateway, two: &Gateway) {
    let linked = async {
        while links(one) != 1 || links(two) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), linked).await.expect("the two are linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_of_one_authority_are_linked_and_those_of_another_are_not() {
    let dir = TempDir::new().unwrap();
    let cluster = DevCluster::start(&dir.path().join("nodes"), 1, 1).await.unwrap();
    let nodes = cluster.api_addresses();
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let stranger = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    for (name, issuer) in [("one", &authority), ("two", &authority), ("foreign", &stranger)] {
        certify(dir.path(), name, issuer, Lifetime::days(1));
    }
    let one = relaying(dir.path(), "one", None).await;
    let two = relaying(dir.path(), "two", None).await;
    let foreign = relaying(dir.path(), "foreign", None).await;
    let addresses = [&one, &two, &foreign].map(|relaying| relaying.address.clone());
    let but = |own: usize| -> Vec<String> {
        let others = addresses.iter().enumerate().filter(|(n, _)| *n != own);
        others.map(|(_, address)| address.clone()).collect()
    };
    let one = start(dir.path(), &nodes, one, but(0)).await;
    let two = start(dir.path(), &nodes, two, but(1)).await;
    let foreign = start(dir.path(), &nodes, foreign, but(2)).await;
    until_linked(&one, &two).await;
    // Both have tried the third, and it them, several times by now.
    for _ in 0..20 {
        assert!(links(&one) <= 1 && links(&two) <= 1 && links(&foreign) == 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for gateway in [one, two, foreign] {
        gateway.stop().await;
    }
    cluster.stop().await;
}

/// A connection is cut when a certificate that made it ends. Links have moved to another one by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_moves_to_new_certificates_and_is_not_cut_when_the_old_ones_end() {
    const LIFETIME: Duration = Duration::from_secs(8);
    let dir = TempDir::new().unwrap();
    let cluster = DevCluster::start(&dir.path().join("nodes"), 1, 1).await.unwrap();
    let nodes = cluster.api_addresses();
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let short = Lifetime { not_after: OffsetDateTime::now_utc() + LIFETIME, ..Lifetime::days(1) };
    for name in ["one", "two"] {
        certify(dir.path(), name, &authority, short);
    }
    let one = relaying(dir.path(), "one", Some(1)).await;
    let two = relaying(dir.path(), "two", Some(1)).await;
    let (to_one, to_two) = (one.address.clone(), two.address.clone());
    let one = start(dir.path(), &nodes, one, vec![to_two]).await;
    let two = start(dir.path(), &nodes, two, vec![to_one]).await;
    until_linked(&one, &two).await;
    assert!(
        OffsetDateTime::now_utc() < short.not_after,
        "the machine is too slow for certificates this short"
    );
    for name in ["one", "two"] {
        certify(dir.path(), name, &authority, Lifetime::days(1));
    }
    // A link that is cut is down for longer than the pause in between.
    while OffsetDateTime::now_utc() < short.not_after + Duration::from_secs(2) {
        assert_eq!((links(&one), links(&two)), (1, 1), "a link was cut");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for gateway in [one, two] {
        gateway.stop().await;
    }
    cluster.stop().await;
}
