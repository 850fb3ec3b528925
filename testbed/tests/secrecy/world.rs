//! A cluster with certificates at three sites, whose processes print everything, and the people who use it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use links::{Links, Quality};
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GroupId, GrpcTransport, Identity, Options, Randomness, Running,
    Security, Store, dimls::remote::Remote,
};
use service_kit::tls::Role;
use testbed::{
    Cluster, ClusterOptions, Placement, Service,
    cluster::{Dialer, Gateway, Node},
    limits::STOP_DEADLINE,
    secrets::Secrets,
};

/// Far beyond what a busy machine needs.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const SITES: [&str; 3] = ["a", "b", "c"];

pub struct World {
    pub cluster: Cluster,
    pub links: Arc<Links>,
    /// Of kind `mls`; its id is a word.
    pub ordered: GroupId,
    /// Of kind `demls`; its id is random bytes.
    pub forking: GroupId,
    names: BTreeMap<&'static str, ClientId>,
}

/// A name that begins with `word`, and that can be looked for: not every draw is different enough from what others print.
fn unlike(word: &str) -> String {
    loop {
        let name = format!("{word}-{}", hex::encode(Randomness::from_os().bytes::<8>()));
        if Secrets::new().add(word, name.as_bytes()) > 0 {
            return name;
        }
    }
}

/// Those who use it. Ann and Bob are always there, Dan calls now and then.
pub struct People {
    pub ann: Client,
    pub bob: Client,
    pub dan: Client,
    running: Vec<Running>,
}

impl People {
    pub fn of(world: &World) -> Self {
        let [ann, bob, dan] = [("ann", 0), ("bob", 1), ("dan", 2)].map(|(name, at)| world.client(name, at));
        let running = vec![ann.start(), bob.start()];
        Self { ann, bob, dan, running }
    }

    pub async fn leave(self) {
        for running in self.running {
            running.stop().await;
        }
    }
}

/// A process of the cluster.
pub enum Process {
    Node(Arc<Node>),
    Gateway(Arc<Gateway>),
}

impl Process {
    fn service(&self) -> &Service {
        match self {
            Self::Node(node) => node.service(),
            Self::Gateway(gateway) => gateway.service(),
        }
    }

    pub async fn stop(&self, deadline: Duration) {
        let status = self.service().stop(deadline).await.unwrap();
        assert!(status.success(), "{} ended with {status}", self.service().name());
    }

    pub async fn restart(&self) {
        self.stop(STOP_DEADLINE).await;
        self.service().start().unwrap();
        self.service().wait_ready().await.unwrap();
    }
}

impl World {
    pub async fn start() -> Self {
        let links = Arc::new(Links::start(SITES, 11).unwrap());
        for (a, b) in [("a", "b"), ("b", "c"), ("a", "c")] {
            links.set_both(a, b, Quality::delay(Duration::from_millis(1))).unwrap();
        }
        let sites = SITES.map(str::to_owned).to_vec();
        let placement = Some(Placement { links: Arc::clone(&links), nodes: sites.clone(), gateways: sites });
        let cluster = Cluster::start(ClusterOptions {
            gateways: 3,
            placement,
            secured: true,
            // Printing everything takes its time.
            node_args: ["--timing", "region"].map(str::to_owned).to_vec(),
            gateway_args: ["--profile", "region"].map(str::to_owned).to_vec(),
            env: [("CONCORDAT_LOG".to_owned(), "trace".to_owned())].into(),
            ..ClusterOptions::default()
        })
        .await
        .unwrap();
        let names = ["ann", "bob", "dan", "mallory"].map(|name| (name, ClientId::new(unlike(name)).unwrap()));
        Self {
            cluster,
            links,
            ordered: GroupId::new(unlike("engineers")).unwrap(),
            forking: GroupId::new(Randomness::from_os().bytes::<24>().to_vec()).unwrap(),
            names: names.into(),
        }
    }

    pub fn add_names(&self, secrets: &mut Secrets) {
        for (name, id) in &self.names {
            assert!(secrets.add(&format!("the name of {name}"), id.as_bytes()) > 0);
        }
        assert!(secrets.add("the id of an ordered group", self.ordered.as_bytes()) > 0);
        assert!(secrets.add("the id of a DeMLS group", self.forking.as_bytes()) > 0);
    }

    pub fn id(&self, name: &str) -> &ClientId {
        &self.names[name]
    }

    pub fn dialer(&self, name: &str) -> Dialer {
        self.cluster.dialer(&Role::Client(self.id(name).as_bytes().to_vec())).unwrap()
    }

    pub fn transport(&self, name: &str, gateway: usize) -> GrpcTransport {
        let url = format!("http://{}", self.cluster.gateways()[gateway].address());
        let network = self.dialer(name).network().clone();
        GrpcTransport::over(network, &url, self.id(name), &Security::default()).unwrap()
    }

    pub fn remote(&self, name: &str, gateway: usize) -> Remote {
        let url = format!("http://{}", self.cluster.gateways()[gateway].address());
        let network = self.dialer(name).network().clone();
        Remote::over(network, &url, self.id(name), &Security::default()).unwrap()
    }

    fn client(&self, name: &str, gateway: usize) -> Client {
        let (store, _) = self.identity(name);
        let transport = Arc::new(self.transport(name, gateway));
        Client::new(store, transport, Options::default(), Randomness::from_os()).unwrap()
    }

    pub fn identity(&self, name: &str) -> (Store, Identity) {
        let mut store = Store::in_memory().unwrap();
        let identity = Identity::create(&mut store, self.id(name).clone(), DEFAULT_CIPHERSUITE).unwrap();
        (store, identity)
    }

    pub fn services(&self) -> Vec<Process> {
        let nodes = self.cluster.nodes().into_iter().map(Process::Node);
        nodes.chain(self.cluster.gateways().into_iter().map(Process::Gateway)).collect()
    }

    /// What every process says at `/metrics`.
    pub async fn metrics(&self) -> Vec<(String, String)> {
        let mut scrapes = Vec::new();
        for process in self.services() {
            let service = process.service();
            scrapes.push((service.name(), service.metrics_text().await.unwrap()));
        }
        scrapes
    }

    pub fn end(self) {
        drop(self.cluster);
    }
}
