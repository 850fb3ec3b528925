//! Sites with a gateway each, and members of one DeMLS group at them.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AcceptedProvisional, Mode, SubmitRequest, submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{Accepted, GroupKind},
};
use group_log::{StateId, fork::ModeTimes, hash};
use mls_gateway::{
    demls::{Keeping, Times},
    server::{DemlsParts, Gateway, Parts},
};
use service_kit::{cut::CutNetwork, net::tcp_network, rng::Randomness};
use tempfile::TempDir;

use crate::support::{
    Client, Events, client, create_request,
    fake::{DATA_SHARD, FakeCluster},
    member::Member,
    outcome, soon, submit, until,
};

pub const GROUP: &[u8] = b"group";

/// Two election timeouts of a local network.
pub const FORKED_WITHIN: Duration = Duration::from_millis(1600);

pub fn times() -> Times {
    Times {
        modes: ModeTimes { suspect_ms: 300, steady_ms: 100 },
        ack_pause: Duration::from_millis(50),
        ..Times::default()
    }
}

pub struct Site {
    pub gateway: Option<Gateway>,
    pub network: CutNetwork,
    pub relay_address: String,
    ordering: Vec<String>,
    peers: Vec<String>,
    times: Times,
    keeping: Keeping,
    members_only: bool,
    dir: PathBuf,
    _disk: TempDir,
}

/// So many sites in front of the cluster, each linked to those that `linked` names.
pub async fn sites(cluster: &FakeCluster, count: usize, linked: impl Fn(usize, usize) -> bool) -> Vec<Site> {
    in_front_of(cluster.addresses(), count, linked, times()).await
}

/// The same in front of these nodes, with these times.
pub async fn in_front_of(
    ordering: Vec<String>,
    count: usize,
    linked: impl Fn(usize, usize) -> bool,
    times: Times,
) -> Vec<Site> {
    let mut relays = Vec::new();
    for _ in 0..count {
        relays.push(tcp_network().listen("127.0.0.1:0".into()).await.unwrap());
    }
    let addresses: Vec<String> = relays.iter().map(|relay| relay.local_addr().to_string()).collect();
    let mut sites = Vec::new();
    for (n, relay) in relays.into_iter().enumerate() {
        let peers = (0..count).filter(|m| *m != n && linked(n, *m)).map(|m| addresses[m].clone()).collect();
        let disk = TempDir::new().unwrap();
        let mut site = Site {
            gateway: None,
            network: CutNetwork::new(),
            relay_address: addresses[n].clone(),
            ordering: ordering.clone(),
            peers,
            times: times.clone(),
            keeping: Keeping::default(),
            members_only: false,
            dir: disk.path().to_owned(),
            _disk: disk,
        };
        site.start(Some(relay)).await;
        sites.push(site);
    }
    sites
}

impl Site {
    async fn start(&mut self, relay: Option<service_kit::net::Incoming>) {
        let relay = match relay {
            Some(relay) => relay,
            None => tcp_network().listen(self.relay_address.clone()).await.unwrap(),
        };
        let incoming = tcp_network().listen("127.0.0.1:0".into()).await.unwrap();
        let mut parts =
            Parts::new(self.ordering.clone(), incoming, self.network.shared(), Randomness::from_os());
        parts.members_only = self.members_only;
        parts.demls = Some(DemlsParts {
            times: self.times.clone(),
            relay: Some(relay),
            peers: self.peers.clone(),
            keeping: self.keeping,
            ..DemlsParts::new(self.dir.clone())
        });
        self.gateway = Some(Gateway::start(parts).unwrap());
    }

    /// From now on groups are for their members only.
    pub async fn guard(&mut self) {
        self.members_only = true;
        self.kill().await;
        self.restart().await;
    }

    /// From now on it listens to the relay at this address, too.
    pub async fn link_to(&mut self, address: String) {
        self.peers.push(address);
        self.kill().await;
        self.restart().await;
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub fn client(&self, name: &[u8]) -> Client {
        client(self.gateway(), name)
    }

    /// As a power cut: nothing is finished.
    pub async fn kill(&mut self) {
        let address = self.relay_address.clone();
        self.gateway = None;
        until("the port is free", async || std::net::TcpListener::bind(&address).is_ok()).await;
    }

    /// Starts it again so that it keeps so many entries of a log below the stable one.
    pub async fn keep(&mut self, entries: u64) {
        self.kill().await;
        self.keeping.log_entries = entries;
        self.restart().await;
    }

    /// Starts it again so that the branches of a group have so many bytes at most.
    pub async fn bound(&mut self, branch_bytes: usize) {
        self.kill().await;
        self.keeping.branch_bytes = branch_bytes;
        self.restart().await;
    }

    pub async fn restart(&mut self) {
        let dir = self.dir.clone();
        let mut left = 200;
        // The storage is closed when the last task that holds it has ended.
        while left > 0 && mls_gateway::demls::store::Store::open(&dir, &Randomness::from_os()).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            left -= 1;
        }
        self.start(None).await;
    }

    /// Cuts this gateway off from every node; its links to other gateways stay.
    pub fn cut_from_cluster(&self) {
        self.network.cut(self.ordering.clone());
    }

    /// Cuts it off from everybody.
    pub fn cut_off(&self) {
        self.network.cut(self.ordering.iter().chain(&self.peers).cloned());
    }

    pub fn mend(&self) {
        self.network.cut([]);
    }

    /// The cluster has agreed to wait for this gateway, and it knows.
    pub async fn registered(&self, cluster: &FakeCluster) {
        let id = self.gateway().demls().unwrap().store().gateway_id();
        until("the gateway is registered", async || {
            cluster.get(|state| state.forks.groups[GROUP].fork.state().gateways.contains_key(&id))
        })
        .await;
        self.is_counted_on().await;
    }

    /// The group at this site.
    pub fn group(&self) -> std::sync::Arc<mls_gateway::demls::Group> {
        let id = group_log::GroupId::new(GROUP.to_vec()).unwrap();
        self.gateway().demls().unwrap().get(&id).unwrap()
    }

    /// The gateway knows that the cluster has agreed to wait for it: it may fork.
    pub async fn is_counted_on(&self) {
        until("the gateway may fork", async || self.group().may_fork().await).await;
    }

    /// It has noticed that no quorum answers.
    pub async fn misses_the_quorum(&self) {
        let paths = self.gateway().demls().unwrap().paths();
        until("the loss is noticed", async || !paths.reaches_quorum(DATA_SHARD)).await;
    }

    pub async fn in_mode(&self, mode: group_log::fork::Mode) {
        let id = group_log::GroupId::new(GROUP.to_vec()).unwrap();
        let registry = self.gateway().demls().unwrap();
        until("the mode", async || registry.get(&id).is_some_and(|group| group.mode() == mode)).await;
    }
}

/// The request as a DMLSMessage, made in `parent`.
pub fn made_in(parent: &StateId, mut request: SubmitRequest) -> SubmitRequest {
    let dmls_epoch = [&[32][..], &[9; 32][..]].concat();
    request.message = [&request.message[..], &dmls_epoch[..]].concat().into();
    request.parent_state_id = parent.to_bytes();
    request
}

/// The state after a commit.
pub fn after(parent: &StateId, commit: &SubmitRequest) -> StateId {
    hash::commit_state_id(parent, &commit.message)
}

/// Creates the group at a gateway; returns its first state.
pub async fn create(calls: &mut Client, creator: &mut Member) -> StateId {
    let mut request = create_request(creator.create(GROUP));
    request.kind = GroupKind::Demls.into();
    let state =
        hash::create_state_id(&group_log::GroupId::new(GROUP.to_vec()).unwrap(), 0, &request.group_info);
    soon("the group", calls.create_group(request)).await.unwrap();
    state
}

/// Adds a member; returns the state after.
pub async fn add(calls: &mut Client, by: &mut Member, new: &mut Member, parent: &StateId) -> StateId {
    let name = new.name;
    let commit = made_in(parent, by.commit(&[(name, new.key_package(false))], &[]));
    let state = after(parent, &commit);
    match submit(calls, commit.clone()).await {
        Outcome::Accepted(accepted) => assert_eq!(accepted.state_id, state.to_bytes()),
        Outcome::AcceptedProvisional(accepted) => assert_eq!(accepted.state_id, state.to_bytes()),
        other => panic!("expected to be accepted, got {other:?}"),
    }
    by.merge();
    new.join(&commit.welcome);
    state
}

#[track_caller]
pub fn provisional(outcome: Outcome) -> AcceptedProvisional {
    match outcome {
        Outcome::AcceptedProvisional(accepted) => accepted,
        other => panic!("expected to be accepted on a branch, got {other:?}"),
    }
}

/// Passes over everything until the mode changes to this one.
pub async fn told_mode(events: &mut Events, mode: Mode) {
    loop {
        if let Event::ModeChange(change) = events.next().await.unwrap()
            && change.mode() == mode
        {
            return;
        }
    }
}

/// Passes over everything but branch entries.
pub async fn branch_entry(events: &mut Events) -> Bytes {
    loop {
        if let Event::BranchEntry(event) = events.next().await.unwrap() {
            return event.entry_id;
        }
    }
}

/// Submits the same bytes until the quorum has accepted them, as clients do: a busy machine may cut links for a moment.
pub async fn accepted_in_the_end(calls: &mut Client, request: &SubmitRequest) -> Accepted {
    let insisting = async {
        loop {
            match outcome(calls.submit(request.clone()).await) {
                Ok(Outcome::Accepted(accepted)) => return accepted,
                Ok(Outcome::AcceptedProvisional(_)) => {}
                Ok(other) => panic!("expected to be accepted, got {other:?}"),
                Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the quorum's answer", insisting).await
}
