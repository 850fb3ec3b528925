//! What belongs in a stream: only what its owner may send. Checked for clients and for other gateways alike.

use bytes::Bytes;
use concordat_proto::gateway::v1::DimlsItem;
use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
    limits::MAX_COMMIT_BYTES,
};
use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, Sender, tls_codec::Deserialize};

use crate::{
    error::GatewayError,
    mls::{self, MessageKind},
};

/// An item that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose stream.
    pub owner: ClientId,
    /// Its number.
    pub seq: u64,
    /// MLSMessage.
    pub message: Bytes,
    /// MLSMessage with the Welcome, or empty.
    pub welcome: Bytes,
}

impl Item {
    /// What it carries, in bytes.
    pub fn bytes(&self) -> usize {
        self.message.len() + self.welcome.len()
    }
}

impl From<Item> for DimlsItem {
    fn from(item: Item) -> Self {
        let Item { owner, seq, message, welcome } = item;
        DimlsItem { owner: owner.to_bytes(), seq, message, welcome }
    }
}

/// Checks an item of a DGroup. Its message must be a KeyPackage, or in the Send Group of the stream's owner, where a handshake must come
/// from leaf 0: the owner's.
pub fn check(dgroup: &DgroupId, setup: &Setup, item: DimlsItem) -> Result<Item, GatewayError> {
    let owner =
        concordat_proto::convert::client_id("item.owner", item.owner).map_err(GatewayError::bad_wire)?;
    if setup.number(&owner).is_none() {
        return Err(GatewayError::NotYours("only a member of the DGroup has a stream in it"));
    }
    if item.seq == 0 || item.seq > group_log::limits::MAX_SEQ {
        return Err(GatewayError::bad_field("item.seq", "1 to 2^62", item.seq));
    }
    let got = item.message.len() + item.welcome.len();
    if got > MAX_COMMIT_BYTES {
        let expected = format!("message and welcome of at most {MAX_COMMIT_BYTES} bytes together");
        return Err(GatewayError::bad_field("item", expected, got));
    }
    // MLSMessage: version (2 bytes), wire format; 5 is mls_key_package.
    let is_commit = if item.message.get(2..4) == Some(&[0, 5]) {
        key_package_of(&owner, &item.message)?;
        false
    } else {
        let message = mls::message(&item.message)?;
        if message.group_id != dgroup.send_group(&owner) {
            return Err(GatewayError::NotYours("only its owner writes in a Send Group"));
        }
        if let Some(public) = &message.public
            && !matches!(public.sender(), Sender::Member(leaf) if leaf.u32() == 0)
        {
            return Err(GatewayError::NotYours("only the owner, at leaf 0, commits in a Send Group"));
        }
        message.kind == MessageKind::Commit
    };
    if !item.welcome.is_empty() {
        if !is_commit {
            return Err(GatewayError::bad_field("item.welcome", "nothing without a commit", "a Welcome"));
        }
        mls::welcome(&item.welcome)?;
    }
    Ok(Item { owner, seq: item.seq, message: item.message, welcome: item.welcome })
}

fn key_package_of(owner: &ClientId, message: &[u8]) -> Result<(), GatewayError> {
    let bad = |got: String| GatewayError::bad_field("item.message", "a KeyPackage of the owner", got);
    let message = MlsMessageIn::tls_deserialize_exact(message).map_err(|e| bad(e.to_string()))?;
    let MlsMessageBodyIn::KeyPackage(package) = message.extract() else {
        return Err(bad("another message".into()));
    };
    let credential = package.unverified_credential().credential;
    if credential.serialized_content() == owner.as_bytes() {
        Ok(())
    } else {
        Err(bad("one of another client".into()))
    }
}
