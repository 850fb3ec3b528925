//! TLS over real sockets: who gets through, and what happens when certificates are replaced.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{fs, path::Path, time::Duration};

use concordat_certs::{Authority, Issued, Lifetime};
use futures::StreamExt;
use service_kit::{
    clock::SystemClock,
    net::{Incoming, Io, SharedNetwork, tcp_network},
    tls::{ClientProof, Credentials, Files, PeerIdentity, Role, RoleKind, TlsNetwork, public_client_network},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

const DOMAIN: &str = "test.concordat";
const LOOK: Duration = Duration::from_millis(20);

fn hosts() -> Vec<String> {
    vec!["127.0.0.1".into()]
}

struct Party {
    dir: TempDir,
    files: Files,
}

impl Party {
    fn new(authority: &Authority, issued: &Issued) -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let files = Files { certificate: path("cert.pem"), key: path("key.pem"), ca: path("ca.pem") };
        let party = Self { dir, files };
        party.replace(issued, authority.certificate());
        party
    }

    fn role(authority: &Authority, role: Role) -> Self {
        Self::new(authority, &authority.issue(&role, &hosts(), Lifetime::days(1)).unwrap())
    }

    /// Writes new files in place of the old ones, key first: a reader in between finds a pair that does not fit, and waits.
    fn replace(&self, issued: &Issued, ca: &str) {
        let put = |path: &Path, text: &str| {
            let new = self.dir.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, path).unwrap();
        };
        put(&self.files.ca, ca);
        put(&self.files.key, &issued.key);
        put(&self.files.certificate, &issued.certificate);
    }

    fn credentials(&self) -> Credentials {
        Credentials::load("internal", self.files.clone(), SystemClock::shared(), LOOK).unwrap()
    }

    fn network(&self, servers: RoleKind, proof: ClientProof) -> SharedNetwork {
        TlsNetwork::over(tcp_network(), self.credentials(), servers, proof)
    }

    /// Dials nodes.
    fn dialer(&self) -> SharedNetwork {
        self.network(RoleKind::Node, ClientProof::Certificate)
    }
}

/// Echoes one byte to everybody who gets through, and says who it was.
struct Server {
    address: String,
    seen: tokio::sync::mpsc::UnboundedReceiver<Option<PeerIdentity>>,
}

impl Server {
    async fn start(network: &SharedNetwork) -> Self {
        let mut incoming: Incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
        let address = incoming.local_addr().to_string();
        let (tell, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(mut io)) = incoming.next().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let identity = io.identity().cloned();
                    let byte = io.read_u8().await.unwrap();
                    let _ = tell.send(identity);
                    io.write_u8(byte).await.unwrap();
                    io.flush().await.unwrap();
                    // Open until the other side closes it.
                    let _ = io.read_u8().await;
                });
            }
        });
        Self { address, seen }
    }

    async fn dial(&self, network: &SharedNetwork) -> std::io::Result<Io> {
        let mut io = network.dial(self.address.clone()).await?;
        // With TLS 1.3 a client learns of its refusal only when it reads.
        io.write_u8(7).await?;
        io.flush().await?;
        assert_eq!(io.read_u8().await?, 7);
        Ok(io)
    }
}

#[tokio::test]
async fn both_sides_know_who_the_other_is() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let node = Party::role(&authority, Role::Node(Some(3)));
    let gateway = Party::role(&authority, Role::Gateway("east".into()));
    let mut server = Server::start(&node.dialer()).await;
    let io = server.dial(&gateway.dialer()).await.unwrap();
    assert_eq!(io.identity().unwrap().role, Role::Node(Some(3)));
    let seen = server.seen.recv().await.unwrap().unwrap();
    assert_eq!((seen.role, seen.domain.as_str()), (Role::Gateway("east".into()), DOMAIN));
}

#[tokio::test]
async fn strangers_are_refused_in_the_handshake() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let other = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let node = Party::role(&authority, Role::Node(Some(1)));
    let server = Server::start(&node.dialer()).await;

    let foreign = Party::role(&other, Role::Node(Some(2)));
    let error = server.dial(&foreign.dialer()).await.unwrap_err();
    assert!(error.to_string().contains("no TLS with"), "it does not take the server either: {error}");

    // It takes the server, but shows no certificate.
    let anonymous = public_client_network(tcp_network(), Some(&node.files.ca)).unwrap();
    server.dial(&anonymous).await.unwrap_err();
}

#[tokio::test]
async fn an_expired_certificate_is_not_even_loaded_and_one_that_names_the_wrong_thing_neither() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let load = |party: &Party| {
        Credentials::load("internal", party.files.clone(), SystemClock::shared(), LOOK)
            .unwrap_err()
            .to_string()
    };
    let expired = authority.issue(&Role::Node(Some(1)), &hosts(), Lifetime::expired()).unwrap();
    assert!(load(&Party::new(&authority, &expired)).contains("does not hold"));
    let other = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let foreign = other.issue(&Role::Node(Some(1)), &hosts(), Lifetime::days(1)).unwrap();
    assert!(load(&Party::new(&authority, &foreign)).contains("does not hold"));
    let good = authority.issue(&Role::Node(Some(1)), &hosts(), Lifetime::days(1)).unwrap();
    let mixed = Issued { key: foreign.key, ..good };
    assert!(load(&Party::new(&authority, &mixed)).contains("can not be used with its key"));
    let junk = Issued { certificate: "junk".into(), key: "junk".into() };
    assert!(load(&Party::new(&authority, &junk)).contains("is not usable"));
}

#[tokio::test]
async fn a_server_must_be_a_node_of_the_same_trust_domain_and_the_host_that_was_dialed() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let gateway = Party::role(&authority, Role::Gateway("g".into()));
    // The same CA's key, another domain.
    let ca = Issued { certificate: authority.certificate().into(), key: authority.key().into() };
    let elsewhere = Authority::load("other.concordat", ca).unwrap();
    let elsewhere_host = vec!["elsewhere.example".to_owned()];
    let wrong = [
        Party::role(&authority, Role::Gateway("false".into())),
        Party::role(&elsewhere, Role::Node(Some(1))),
        Party::new(
            &authority,
            &authority.issue(&Role::Node(Some(1)), &elsewhere_host, Lifetime::days(1)).unwrap(),
        ),
    ];
    for (case, expected) in wrong.iter().zip(["must be a node", "must be a node", "no TLS with"]) {
        let server = Server::start(&case.dialer()).await;
        let error = server.dial(&gateway.dialer()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn clients_may_come_without_a_certificate_where_a_token_will_do() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let gateway = Party::role(&authority, Role::Gateway("g".into()));
    let mut server = Server::start(&gateway.network(RoleKind::Node, ClientProof::CertificateOrToken)).await;
    let anonymous = public_client_network(tcp_network(), Some(&gateway.files.ca)).unwrap();
    server.dial(&anonymous).await.unwrap();
    assert_eq!(server.seen.recv().await.unwrap(), None);
    let client = Party::role(&authority, Role::Client(b"ann".to_vec()));
    server.dial(&client.network(RoleKind::Gateway, ClientProof::Certificate)).await.unwrap();
    assert_eq!(server.seen.recv().await.unwrap().unwrap().role, Role::Client(b"ann".to_vec()));
    let other = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let distrustful = Party::role(&other, Role::Client(b"ann".to_vec()));
    let network = public_client_network(tcp_network(), Some(&distrustful.files.ca)).unwrap();
    server.dial(&network).await.unwrap_err();
}

#[tokio::test]
async fn a_connection_between_servers_lasts_as_long_as_the_certificates_that_made_it() {
    let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
    let node = Party::role(&authority, Role::Node(Some(1)));
    let now = time::OffsetDateTime::now_utc();
    let short =
        Lifetime { not_before: now - time::Duration::HOUR, not_after: now + time::Duration::seconds(3) };
    let issued = authority.issue(&Role::Gateway("g".into()), &hosts(), short).unwrap();
    let dialer = Party::new(&authority, &issued).dialer();
    let servers = Server::start(&node.dialer()).await;
    let clients = Server::start(&node.network(RoleKind::Node, ClientProof::CertificateOrToken)).await;
    let (mut ends, mut stays) = (servers.dial(&dialer).await.unwrap(), clients.dial(&dialer).await.unwrap());
    let ended = timeout(Duration::from_secs(30), ends.read_u8()).await.expect("the connection ends");
    ended.unwrap_err();
    // Streams of clients are ended by whoever serves them, with a reason.
    assert!(timeout(LOOK, stays.read_u8()).await.is_err());
}

#[tokio::test]
async fn certificates_are_replaced_without_a_failed_request_and_a_bad_file_changes_nothing() {
    let (first, second) = (
        Authority::new(DOMAIN, Lifetime::days(1)).unwrap(),
        Authority::new(DOMAIN, Lifetime::days(1)).unwrap(),
    );
    let node = Party::role(&first, Role::Node(Some(1)));
    let gateway = Party::role(&first, Role::Gateway("g".into()));
    let server = Server::start(&node.dialer()).await;
    let dialer = gateway.dialer();
    let mut open = server.dial(&dialer).await.unwrap();

    // What does not hold changes nothing.
    let of_others = first.issue(&Role::Node(Some(2)), &hosts(), Lifetime::days(1)).unwrap();
    for bad in [
        Issued { certificate: "junk".into(), key: "junk".into() },
        second.issue(&Role::Node(Some(1)), &hosts(), Lifetime::days(1)).unwrap(),
        of_others,
    ] {
        node.replace(&bad, first.certificate());
        sleep(LOOK * 5).await;
        server.dial(&dialer).await.unwrap();
    }

    // A new CA comes in the order that docs/security.md describes, with connections made all the time.
    let both = format!("{}{}", first.certificate(), second.certificate());
    let old_node = first.issue(&Role::Node(Some(1)), &hosts(), Lifetime::days(1)).unwrap();
    let old_gateway = first.issue(&Role::Gateway("g".into()), &hosts(), Lifetime::days(1)).unwrap();
    let new_node = second.issue(&Role::Node(Some(1)), &hosts(), Lifetime::days(1)).unwrap();
    let new_gateway = second.issue(&Role::Gateway("g".into()), &hosts(), Lifetime::days(1)).unwrap();
    let steps: [(&Party, &Issued, &str); 6] = [
        (&node, &old_node, &both),
        (&gateway, &old_gateway, &both),
        (&node, &new_node, &both),
        (&gateway, &new_gateway, &both),
        (&node, &new_node, second.certificate()),
        (&gateway, &new_gateway, second.certificate()),
    ];
    for (party, issued, ca) in steps {
        party.replace(issued, ca);
        for _ in 0..10 {
            server.dial(&dialer).await.unwrap();
            sleep(LOOK / 2).await;
        }
    }
    // The old CA is out, and the connection of before still open.
    let late = Party::role(&first, Role::Gateway("g".into()));
    server.dial(&late.dialer()).await.unwrap_err();
    let still_open = timeout(LOOK, open.read_u8()).await;
    assert!(still_open.is_err(), "nothing to read, and no end: {still_open:?}");
}
