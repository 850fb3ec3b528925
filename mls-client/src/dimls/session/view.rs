//! What a session shows.

use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
};

use super::{DimlsError, Item, Member, Records, Session, record};
use crate::dimls::{
    item::DgroupMessage,
    records::{MESSAGES, OUTBOX},
};

/// A DGroup as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The DGroup.
    pub id: DgroupId,
    /// Members that nobody has removed.
    pub members: Vec<ClientId>,
    /// Who removed this client, if somebody did.
    pub removed_by: Option<ClientId>,
    /// The epoch of the own Send Group.
    pub epoch: u64,
    /// Every other member.
    pub peers: Vec<PeerView>,
    /// Items that no gateway has confirmed.
    pub outbox: usize,
}

/// One other member as this one sees it. Epochs are those of the Send Groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub client: ClientId,
    /// The epoch of its Send Group that this client has entered.
    pub entered: Option<u64>,
    /// The epoch of its last UPDATE.
    pub updated: u64,
    /// The epoch of it that this client has taken into its own Send Group.
    pub taken: Option<u64>,
    /// It is in this client's Send Group.
    pub in_own_group: bool,
    /// Its Send Group cannot be followed until this client's leaf is replaced.
    pub lost: bool,
    /// Items that wait.
    pub waiting: usize,
}

impl<R: Records> Session<R> {
    /// The whole picture.
    pub fn view(&self) -> View {
        let own = self.own_members();
        let numbers = 0..self.peers.len() as Member;
        let peer = |member: Member| PeerView {
            client: self.client(member).clone(),
            entered: self.graph.entered(member),
            updated: self.graph.updated(member),
            taken: self.graph.taken(self.me, member),
            in_own_group: own.contains(&member),
            lost: self.peers[usize::from(member)].lost,
            waiting: self.waiting[usize::from(member)].len(),
        };
        let remaining = self.record.removals.remaining(self.peers.len());
        View {
            id: self.id,
            members: remaining.iter().map(|member| self.client(*member).clone()).collect(),
            removed_by: self.record.removals.by(self.me).map(|by| self.client(by).clone()),
            epoch: self.graph.entered(self.me).unwrap_or_default(),
            peers: numbers.filter(|member| *member != self.me).map(peer).collect(),
            outbox: self.outbox.len(),
        }
    }

    /// The DGroup's id.
    pub fn id(&self) -> DgroupId {
        self.id
    }

    /// Whose session this is.
    pub fn client_id(&self) -> &ClientId {
        self.identity.client_id()
    }

    /// What the DGroup began with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// How many items this client has made: the number of the last one in its stream.
    pub fn made(&self) -> u64 {
        self.record.next_own - 1
    }

    /// The epoch that the last own UPDATE began.
    pub fn own_update(&self) -> u64 {
        self.graph.updated(self.me)
    }

    /// The newest epoch of the Send Group of `of` that `by` has taken into its own, as far as this client has seen.
    pub fn taken(&self, by: &ClientId, of: &ClientId) -> Option<u64> {
        let number = |client| self.setup.number(client).map(|n| n as Member);
        self.graph.taken(number(by)?, number(of)?)
    }

    /// How far every other stream has been taken in: what to ask a gateway for is what comes after.
    pub fn cursor(&self) -> Vec<(ClientId, u64)> {
        let own = usize::from(self.me);
        let others = self.setup.members().iter().zip(&self.peers).enumerate().filter(|(n, _)| *n != own);
        others.map(|(_, (client, peer))| (client.clone(), peer.next - 1)).collect()
    }

    /// What no gateway has confirmed yet, in order. Sent again, it is the same bytes.
    pub fn outbox(&self) -> impl Iterator<Item = &Item> {
        self.outbox.values()
    }

    /// A gateway has stored the own items up to `seq`.
    pub fn confirmed(&mut self, seq: u64) -> Result<(), DimlsError> {
        let done: Vec<u64> = self.outbox.range(..=seq).map(|(seq, _)| *seq).collect();
        if done.is_empty() {
            return Ok(());
        }
        self.operate(|session| {
            for seq in done {
                session.outbox.remove(&seq);
                session.changes.push(record::delete(OUTBOX, seq));
            }
            Ok(())
        })
    }

    /// Received messages after number `after`, `most` at most.
    pub fn messages(&self, after: u64, most: usize) -> Result<Vec<DgroupMessage>, DimlsError> {
        let stored = self.records.read(&self.id, MESSAGES, Some(&after.to_be_bytes()), most)?;
        stored.iter().map(|(key, value)| record::get_message(key, value)).collect()
    }

    /// Where the session is stored.
    pub fn records(&self) -> &R {
        &self.records
    }

    /// Gives the storage back.
    pub fn into_records(self) -> R {
        self.records
    }
}
