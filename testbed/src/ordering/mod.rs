//! A client of the ordering API for tests and load: opaque bytes, no MLS.

mod link;
mod logs;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use concordat_proto::ordering::v1::{
    AssignGroup, Command, GetHeadRequest, GetHeadResponse, GroupSubmission, NotLeader, command,
    ordering_client::OrderingClient as Wire, outcome::Outcome,
};
use group_log::{GroupId, StateId, Submission};
use parking_lot::Mutex;
use prost::Message;
use service_kit::channel::Channel;
use tokio::time::{Instant, sleep};
use tonic::{Request, Status};

pub use link::Attempt;
pub use logs::{ReadError, WholeLogs};

use crate::{
    cluster::Dialer,
    limits::{HTTP_DEADLINE, RETRY_PAUSE},
};
use link::Link;

/// No definite answer within the deadline.
#[derive(Debug, thiserror::Error)]
#[error("no definite answer from the cluster within {waited:?}; the last one was: {last}")]
pub struct NoAnswer {
    waited: std::time::Duration,
    last: String,
}

/// A client of a whole cluster that finds leaders by itself. Clones share connections and what is known.
#[derive(Debug, Clone)]
pub struct OrderingClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    dialer: Dialer,
    /// Known nodes, by the address of their ordering API.
    addresses: Vec<String>,
    channels: HashMap<String, Channel>,
    links: HashMap<String, Link>,
    /// The node to try first, by shard.
    leaders: BTreeMap<u32, String>,
    /// Which node is tried next when nobody knows the leader.
    turn: usize,
}

impl OrderingClient {
    /// A client of the nodes at `addresses` (host:port), in plaintext.
    pub fn new(addresses: Vec<String>) -> Self {
        Self::through(Dialer::plaintext(), addresses)
    }

    /// A client of the nodes at `addresses` (host:port) that is connected by `dialer`.
    pub fn through(dialer: Dialer, addresses: Vec<String>) -> Self {
        let state = State {
            dialer,
            addresses,
            channels: HashMap::new(),
            links: HashMap::new(),
            leaders: BTreeMap::new(),
            turn: 0,
        };
        Self(Arc::new(Inner { state: Mutex::new(state) }))
    }

    /// One attempt, at the node that is believed to lead `shard`. What the answer says about leaders is remembered.
    pub async fn attempt(&self, shard: u32, command: Bytes) -> Attempt {
        let (address, link) = self.0.state.lock().choose(shard);
        let attempt = link.attempt(shard, command).await;
        self.0.state.lock().learn(shard, &address, &attempt);
        attempt
    }

    /// One attempt at one node, whoever leads.
    pub async fn attempt_at(&self, address: &str, shard: u32, command: Bytes) -> Attempt {
        let link = self.0.state.lock().link(address);
        link.attempt(shard, command).await
    }

    /// Submits until there is a definite answer: the same bytes again after every lost or indefinite one.
    pub async fn submit(
        &self,
        shard: u32,
        command: &Command,
        deadline: std::time::Duration,
    ) -> Result<Outcome, NoAnswer> {
        let encoded = Bytes::from(command.encode_to_vec());
        let begun = Instant::now();
        loop {
            let last = match self.attempt(shard, encoded.clone()).await {
                Attempt::Answered(outcome) if is_definite(&outcome) => return Ok(outcome),
                other => other,
            };
            if begun.elapsed() >= deadline {
                return Err(NoAnswer { waited: begun.elapsed(), last: format!("{last:?}") });
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Assigns a new group to a shard (first assignment wins) and returns the shard.
    pub async fn assign(
        &self,
        group: &GroupId,
        wanted: u32,
        deadline: std::time::Duration,
    ) -> Result<u32, NoAnswer> {
        let command = AssignGroup { group_id: group.to_bytes(), shard: wanted };
        let command = Command { command: Some(command::Command::AssignGroup(command)) };
        match self.submit(0, &command, deadline).await? {
            Outcome::GroupAssigned(assigned) => Ok(assigned.shard),
            other => Err(NoAnswer { waited: deadline, last: format!("{other:?}") }),
        }
    }

    /// A group's head as the node at `address` sees it.
    pub async fn head(
        &self,
        address: &str,
        group: &GroupId,
        linearizable: bool,
    ) -> Result<GetHeadResponse, Status> {
        let channel = self.0.state.lock().channel(address);
        let message = GetHeadRequest { group_id: group.to_bytes(), linearizable, include_group_info: false };
        let mut request = Request::new(message);
        request.set_timeout(HTTP_DEADLINE);
        Wire::new(channel).get_head(request).await.map(tonic::Response::into_inner)
    }

    /// Epoch and state of a group as some node sees them; nothing if that node does not answer.
    pub async fn position(&self, group: &GroupId) -> Option<(u64, StateId)> {
        let address = self.0.state.lock().next_address();
        let head = self.head(&address, group, false).await.ok()?.head?;
        Some((head.epoch, StateId::from_slice(&head.state_id).ok()?))
    }

    /// A raw client of the node at `address`, on a shared connection.
    pub fn wire(&self, address: &str) -> Wire<Channel> {
        Wire::new(self.0.state.lock().channel(address))
    }

    /// Adds a node to those that are tried.
    pub fn add_address(&self, address: &str) {
        self.0.state.lock().addresses.push(address.to_owned());
    }
}

/// A submission for a group's log as a command.
pub fn group_command(submission: Submission) -> Command {
    Command { command: Some(command::Command::Group(GroupSubmission::from(submission))) }
}

/// Whether the answer settles what became of the command.
pub fn is_definite(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::NotLeader(_) | Outcome::Unknown(_) | Outcome::Overloaded(_))
}

impl State {
    fn choose(&mut self, shard: u32) -> (String, Link) {
        let address = match self.leaders.get(&shard) {
            Some(leader) => leader.clone(),
            None => self.next_address(),
        };
        let link = self.link(&address);
        (address, link)
    }

    fn next_address(&mut self) -> String {
        self.turn += 1;
        self.addresses[self.turn % self.addresses.len()].clone()
    }

    fn learn(&mut self, shard: u32, address: &str, attempt: &Attempt) {
        match attempt {
            Attempt::Answered(Outcome::NotLeader(NotLeader { leader_address, .. }))
                if !leader_address.is_empty() =>
            {
                self.leaders.insert(shard, leader_address.clone());
            }
            Attempt::Answered(Outcome::NotLeader(_)) => {
                self.leaders.remove(&shard);
            }
            Attempt::Answered(Outcome::Unknown(_) | Outcome::Overloaded(_)) => {}
            Attempt::Answered(_) => {
                self.leaders.insert(shard, address.to_owned());
            }
            Attempt::Lost => {
                self.leaders.remove(&shard);
                // A frozen node answers nothing on this connection for as long as it is frozen.
                self.links.remove(address);
                self.channels.remove(address);
            }
        }
    }

    fn channel(&mut self, address: &str) -> Channel {
        self.channels.entry(address.to_owned()).or_insert_with(|| self.dialer.channel(address)).clone()
    }

    fn link(&mut self, address: &str) -> Link {
        if let Some(link) = self.links.get(address) {
            return link.clone();
        }
        let link = Link::new(self.channel(address));
        self.links.insert(address.to_owned(), link.clone());
        link
    }
}
