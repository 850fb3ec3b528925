//! What a session stores beside OpenMLS' values.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use group_log::ClientId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    error::DimlsError,
    graph::{Member, Node, Row},
    item::{DgroupMessage, Item},
    policy::Policy,
    records::{Change, MESSAGES, OUTBOX, PSKS, Part, STATE},
    removal::Removals,
};
use crate::{demls::Secret, store::hexed};

/// The key of the session's record; those of the peers are their numbers.
pub(super) const SESSION: &[u8] = b"session";

/// The session itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(with = "hexed")]
    pub(super) setup: Vec<u8>,
    pub(super) policy: Policy,
    /// The number of this client's next item.
    pub(super) next_own: u64,
    /// The newest generation of this client's KeyPackages.
    pub(super) generation: u64,
    /// KeyPackageRefs of the generations that are held.
    pub(super) held: BTreeMap<u64, HexBytes>,
    pub(super) removals: Removals,
    pub(super) replaced_at: u64,
    pub(super) unacknowledged_since: Option<u64>,
    /// When this client last looked at the time: silence of others is only counted while it is there itself.
    #[serde(default)]
    pub(super) looked_at: u64,
    /// Whose Send Groups this client has said that it lost, and has not come into again since.
    #[serde(default)]
    pub(super) said_lost: BTreeSet<Member>,
    /// When it said so.
    #[serde(default)]
    pub(super) asked_at: u64,
    /// Received messages so far.
    pub(super) messages: u64,
}

/// Bytes that are hex in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct HexBytes(#[serde(with = "hexed")] pub(super) Vec<u8>);

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    /// The number of its next item.
    pub(super) next: u64,
    /// When something of it was last taken in.
    pub(super) heard: u64,
    /// This client cannot follow its Send Group until its leaf there is replaced.
    pub(super) lost: bool,
    /// The signature key that it began with.
    pub(super) signature_key: HexBytes,
    /// Its newest KeyPackage, with its generation.
    pub(super) package: Option<(u64, HexBytes)>,
    /// The generation of it that is in this client's Send Group, or was.
    pub(super) used: Option<u64>,
    /// The generation of this client that is in its Send Group.
    pub(super) uses: Option<u64>,
    /// Whose Send Groups it has lost, by its own word, and the generation of its KeyPackages with which it said so: whoever has added it
    /// with that one or a newer one is off the list.
    #[serde(default)]
    pub(super) lacks: BTreeSet<Member>,
    #[serde(default)]
    pub(super) lacks_since: u64,
    /// The newest generation with which it has added each other member to its Send Group, as far as this client has seen.
    #[serde(default)]
    pub(super) added: BTreeMap<Member, u64>,
}

impl Peer {
    pub(super) fn new(now: u64) -> Self {
        Peer {
            next: 1,
            heard: now,
            lost: false,
            signature_key: HexBytes::default(),
            package: None,
            used: None,
            uses: None,
            lacks: BTreeSet::new(),
            lacks_since: 0,
            added: BTreeMap::new(),
        }
    }
}

/// A member with its row of the graph: what is written together.
#[derive(Serialize, Deserialize)]
pub(super) struct PeerRow {
    pub(super) peer: Peer,
    pub(super) row: Row,
}

/// An item of the outbox.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredItem {
    #[serde(with = "hexed")]
    message: Vec<u8>,
    #[serde(with = "hexed")]
    welcome: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct StoredMessage {
    #[serde(with = "hexed")]
    sender: Vec<u8>,
    seq: u64,
    epoch: u64,
    #[serde(with = "hexed")]
    body: Vec<u8>,
}

pub(super) fn put(part: Part, key: &[u8], value: &impl Serialize) -> Result<Change, DimlsError> {
    let value = serde_json::to_vec(value).map_err(|e| DimlsError::Damaged(e.to_string()))?;
    Ok(Change { part, key: key.to_vec(), value: Some(Zeroizing::new(value)) })
}

pub(super) fn get<T: DeserializeOwned>(value: &[u8]) -> Result<T, DimlsError> {
    serde_json::from_slice(value).map_err(|e| DimlsError::Damaged(e.to_string()))
}

pub(super) fn number(key: &[u8]) -> Result<u64, DimlsError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| DimlsError::Damaged("a key is not a number".into()))
}

pub(super) fn put_peer(number: u16, peer: &Peer, row: &Row) -> Result<Change, DimlsError> {
    let row = PeerRow { peer: peer.clone(), row: row.clone() };
    put(STATE, &number.to_be_bytes(), &row)
}

pub(super) fn put_item(item: &Item) -> Result<Change, DimlsError> {
    let stored = StoredItem { message: item.message.to_vec(), welcome: item.welcome.to_vec() };
    put(OUTBOX, &item.seq.to_be_bytes(), &stored)
}

pub(super) fn get_item(owner: &ClientId, key: &[u8], value: &[u8]) -> Result<Item, DimlsError> {
    let StoredItem { message, welcome } = get(value)?;
    Ok(Item {
        owner: owner.clone(),
        seq: number(key)?,
        message: Bytes::from(message),
        welcome: Bytes::from(welcome),
    })
}

pub(super) fn put_message(message: &DgroupMessage) -> Result<Change, DimlsError> {
    let stored = StoredMessage {
        sender: message.sender.as_bytes().to_vec(),
        seq: message.seq,
        epoch: message.epoch,
        body: message.body.clone(),
    };
    put(MESSAGES, &message.number.to_be_bytes(), &stored)
}

pub(super) fn get_message(key: &[u8], value: &[u8]) -> Result<DgroupMessage, DimlsError> {
    let StoredMessage { sender, seq, epoch, body } = get(value)?;
    let sender = ClientId::new(sender).map_err(|e| DimlsError::Damaged(e.to_string()))?;
    Ok(DgroupMessage { number: number(key)?, sender, seq, epoch, body })
}

fn psk_key(node: &Node) -> Vec<u8> {
    [&node.owner.to_be_bytes()[..], &node.epoch.to_be_bytes()].concat()
}

pub(super) fn put_psk(node: &Node, psk: &Secret) -> Change {
    Change { part: PSKS, key: psk_key(node), value: Some(Zeroizing::new(psk.as_slice().to_vec())) }
}

pub(super) fn delete_psk(node: &Node) -> Change {
    Change { part: PSKS, key: psk_key(node), value: None }
}

pub(super) fn psk_node(key: &[u8]) -> Result<Node, DimlsError> {
    let (owner, epoch) =
        key.split_at_checked(2).ok_or_else(|| DimlsError::Damaged("the key of a PSK".into()))?;
    let owner = owner.try_into().map(u16::from_be_bytes);
    let owner = owner.map_err(|_| DimlsError::Damaged("the key of a PSK".into()))?;
    Ok(Node { owner, epoch: number(epoch)? })
}

pub(super) fn delete(part: Part, number: u64) -> Change {
    Change { part, key: number.to_be_bytes().to_vec(), value: None }
}
