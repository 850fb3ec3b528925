//! A cluster and a gateway that speak TLS, and callers of every kind.

use std::{fs, sync::Arc};

use bytes::Bytes;
use concordat_certs::{Authority, Issued, Lifetime, TokenSigner};
use mls_gateway::{
    mesh::{Bounds, DimlsParts, MeshGateway, MeshParts},
    secured::{ClientArgs, Secured, TOKEN_AUDIENCE},
    server::{DemlsParts, Gateway, Parts},
};
use ordering_service::{dev::DevCluster, server::Seams};
use service_kit::{
    clock::{ManualClock, SystemClock, WallClock},
    net::{Connector, SharedNetwork, tcp_network},
    rng::Randomness,
    tls::{Credentials, Files, Role, TlsArgs, TlsNetwork, public_client_network},
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{
    raw::{Outcome, call},
    table::{Row, Server},
};

const DOMAIN: &str = "test.concordat";

/// Everything that runs.
pub struct World {
    /// The cluster's CA.
    pub authority: Authority,
    /// Another CA.
    pub stranger: Authority,
    /// What tokens are signed with.
    pub tokens: TokenSigner,
    /// Where everything is reached.
    pub hosts: Vec<String>,
    dir: TempDir,
    cluster: DevCluster,
    gateway: Gateway,
    relay: String,
    mesh: MeshGateway,
}

/// Who calls.
pub enum Caller {
    /// Shows nothing.
    Nobody,
    /// Shows a certificate.
    Certificate(Issued),
    /// Shows a token.
    Token(String),
}

impl World {
    pub async fn start() -> Self {
        Self::start_replacing(None).await
    }

    /// The same, with connections that are replaced after so many seconds.
    pub async fn start_replacing(connection_seconds: Option<u64>) -> Self {
        let authority = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
        let stranger = Authority::new(DOMAIN, Lifetime::days(1)).unwrap();
        let tokens = TokenSigner::new().unwrap();
        let hosts = vec!["127.0.0.1".to_owned()];
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("tokens.pem"), tokens.public_key()).unwrap();
        let args = |name: &str, role: Role| {
            let files = put(
                &dir,
                name,
                &authority.issue(&role, &hosts, Lifetime::days(1)).unwrap(),
                authority.certificate(),
            );
            TlsArgs {
                tls_cert: Some(files.certificate),
                tls_key: Some(files.key),
                tls_ca: Some(files.ca),
                tls_reload_seconds: 60,
                tls_connection_seconds: connection_seconds,
                insecure_dev: false,
            }
        };
        let mut seams = Seams::system();
        seams.security = args("node", Role::Node(None)).security("node/any", |_| true).unwrap();
        let cluster = DevCluster::start_with(&dir.path().join("data"), 3, 1, seams, |_| {}).await.unwrap();

        let clients = ClientArgs {
            client_tls_cert: None,
            client_tls_key: None,
            token_keys: Some(dir.path().join("tokens.pem")),
            token_audience: TOKEN_AUDIENCE.into(),
        };
        let secured =
            Secured::new(tcp_network(), &args("gateway", Role::Gateway("one".into())), &clients).unwrap();
        let incoming = secured.clients.listen("127.0.0.1:0".into()).await.unwrap();
        let relaying = secured.gateways.listen("127.0.0.1:0".into()).await.unwrap();
        let relay = relaying.local_addr().to_string();
        let mut parts = Parts::new(cluster.api_addresses(), incoming, secured.nodes, Randomness::from_os());
        parts.authenticator = secured.authenticator;
        parts.members_only = true;
        parts.demls = Some(DemlsParts {
            relay: Some(relaying),
            network: Some(secured.gateways),
            gatekeeper: secured.gatekeeper,
            ..DemlsParts::new(dir.path().join("gateway-data"))
        });
        parts.dimls = Some(streams(&dir, "gateway-data"));
        let gateway = Gateway::start(parts).unwrap();
        // Only so far can a gateway get whose nodes have let it in.
        tokio::time::timeout(std::time::Duration::from_secs(60), gateway.ready())
            .await
            .expect("the gateway is ready");
        let gateway_args = args("gateway", Role::Gateway("two".into()));
        let mesh = mesh(&dir, &gateway_args, &clients).await;
        Self { authority, stranger, tokens, hosts, dir, cluster, gateway, relay, mesh }
    }

    /// Calls the RPC of a row at `address`.
    pub async fn call(&self, caller: &Caller, row: &Row, address: &str, message: Bytes) -> Outcome {
        let token = match caller {
            Caller::Token(token) => Some(token.as_str()),
            _ => None,
        };
        call(self.channel(caller, address), &row.path(), token, message).await
    }

    /// Whoever has this certificate of the CA.
    pub fn client(&self, name: &str) -> Caller {
        let role = Role::Client(name.as_bytes().to_vec());
        Caller::Certificate(self.authority.issue(&role, &self.hosts, Lifetime::days(1)).unwrap())
    }

    /// Where the credentials of a client of this name are, which this certificate was issued to. In place of those that it has.
    pub fn hand_out(&self, name: &str, issued: &Issued) -> Files {
        put(&self.dir, name, issued, self.authority.certificate())
    }

    /// Every place (host:port) where a service is served.
    pub fn places(&self, server: Server) -> Vec<String> {
        let node = self.cluster.nodes()[0].addresses();
        match server {
            Server::Peers => vec![node.peers.to_string()],
            Server::Ordering | Server::Admin => vec![node.api.to_string()],
            Server::Relay => vec![self.relay.clone()],
            Server::Gateway => vec![self.gateway.address().to_string()],
            Server::Dimls => vec![self.mesh.address().to_string(), self.gateway.address().to_string()],
            Server::Mesh => vec![self.mesh.mesh_address().to_string(), self.relay.clone()],
        }
    }

    /// A connection to a server.
    pub fn channel(&self, caller: &Caller, address: &str) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect_with_connector_lazy(Connector::new(self.network(caller)))
    }

    fn network(&self, caller: &Caller) -> SharedNetwork {
        match caller {
            Caller::Nobody | Caller::Token(_) => {
                let ca = self.dir.path().join("node-ca.pem");
                public_client_network(tcp_network(), Some(&ca)).unwrap()
            }
            Caller::Certificate(issued) => {
                // It trusts both CAs, and takes its certificate for good: by a clock that is two hours late if it has expired.
                let both = format!("{}{}", self.authority.certificate(), self.stranger.certificate());
                let files = put(&self.dir, "caller", issued, &both);
                let now = SystemClock.now_ms();
                let every = std::time::Duration::from_secs(3600);
                let load =
                    |ms| Credentials::load("caller", files.clone(), Arc::new(ManualClock::at_ms(ms)), every);
                let credentials = load(now).or_else(|_| load(now - 90 * 60 * 1000)).unwrap();
                TlsNetwork::public_client(tcp_network(), credentials)
            }
        }
    }

    pub async fn stop(self) {
        self.gateway.stop().await;
        self.mesh.stop().await;
        self.cluster.stop().await;
    }
}

/// A gateway without a cluster.
async fn mesh(dir: &TempDir, tls: &TlsArgs, clients: &ClientArgs) -> MeshGateway {
    let secured = Secured::new(tcp_network(), tls, clients).unwrap();
    let parts = MeshParts {
        authenticator: secured.authenticator,
        gatekeeper: secured.gatekeeper,
        ..MeshParts::trusting(
            streams(dir, "mesh-data"),
            secured.clients.listen("127.0.0.1:0".into()).await.unwrap(),
            secured.gateways.listen("127.0.0.1:0".into()).await.unwrap(),
            secured.gateways,
            Randomness::from_os(),
        )
    };
    MeshGateway::start(parts).unwrap()
}

/// What keeps DiMLS groups.
fn streams(dir: &TempDir, name: &str) -> DimlsParts {
    DimlsParts {
        bounds: Bounds { stream_bytes: 1 << 20, total_bytes: 1 << 24 },
        ..DimlsParts::new(dir.path().join(name).join("dimls"))
    }
}

fn put(dir: &TempDir, name: &str, issued: &Issued, ca: &str) -> Files {
    let path = |kind: &str| dir.path().join(format!("{name}-{kind}.pem"));
    let files = Files { certificate: path("cert"), key: path("key"), ca: path("ca") };
    fs::write(&files.certificate, &issued.certificate).unwrap();
    fs::write(&files.key, &issued.key).unwrap();
    fs::write(&files.ca, ca).unwrap();
    files
}
