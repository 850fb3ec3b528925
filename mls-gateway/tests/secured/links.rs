//! Links between gateways under TLS: gateways with a certificate of the cluster's CA hear one another, and nobody else is heard or let in.

use std::{fs, path::Path, time::Duration};

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

const DOMAIN: &str = "test.concordat";

/// Where a gateway listens to others, and how it meets them.
struct Relaying {
    secured: Secured,
    incoming: Incoming,
    address: String,
}

async fn relaying(dir: &Path, name: &str, authority: &Authority) -> Relaying {
    let issued =
        authority.issue(&Role::Gateway(name.into()), &["127.0.0.1".to_owned()], Lifetime::days(1)).unwrap();
    let path = |kind: &str| dir.join(format!("{name}-{kind}.pem"));
    fs::write(path("cert"), &issued.certificate).unwrap();
    fs::write(path("key"), &issued.key).unwrap();
    fs::write(path("ca"), authority.certificate()).unwrap();
    let tls = TlsArgs {
        tls_cert: Some(path("cert")),
        tls_key: Some(path("key")),
        tls_ca: Some(path("ca")),
        tls_reload_seconds: 60,
        tls_connection_seconds: None,
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

#[tokio::test(flavor = "multi_thread")]
async fn gateways_of_one_authority_are_linked_and_those_of_another_are_not() {
    let dir = TempDir::new().unwrap();
    let cluster = DevCluster::start(&dir.path().join("nodes"), 1, 1).await.unwrap();
    let nodes = cluster.api_addresses();
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let stranger = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let one = relaying(dir.path(), "one", &authority).await;
    let two = relaying(dir.path(), "two", &authority).await;
    let foreign = relaying(dir.path(), "foreign", &stranger).await;
    let addresses = [&one, &two, &foreign].map(|relaying| relaying.address.clone());
    let but = |own: usize| -> Vec<String> {
        let others = addresses.iter().enumerate().filter(|(n, _)| *n != own);
        others.map(|(_, address)| address.clone()).collect()
    };
    let one = start(dir.path(), &nodes, one, but(0)).await;
    let two = start(dir.path(), &nodes, two, but(1)).await;
    let foreign = start(dir.path(), &nodes, foreign, but(2)).await;
    let linked = async {
        while links(&one) != 1 || links(&two) != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), linked).await.expect("the two are linked");
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
