//! What clients and gateways both have to know of a DiMLS group: its setup, its id, and whose Send Group is whose.
//!
//! A DGroup is named by a hash of its setup, and a Send Group by a hash of the DGroup and its owner. So nothing about them can be
//! claimed: a gateway that reaches nobody else can still tell whether a message is its author's to send.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::{
    codec::{DecodeError, Reader, Writer},
    ids::{ClientId, GroupId},
    limits::{MAX_CLIENT_ID_BYTES, MAX_DGROUP_CIPHERSUITES, MAX_DGROUP_MEMBERS},
};

/// Version of the encoding of a setup.
const VERSION: u8 = 1;

/// Shortest and longest PSK of a DGroup, in bytes.
pub const EXPORTER_BYTES: std::ops::RangeInclusive<u16> = 16..=64;

/// Names a DGroup: a hash of its setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DgroupId(pub [u8; 32]);

impl DgroupId {
    /// Exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(DgroupId)
    }

    /// The id of the Send Group that `owner` has in this DGroup: H("concordat send group v1", DGroup id, owner).
    pub fn send_group(&self, owner: &ClientId) -> GroupId {
        let hash = hash(b"concordat send group v1", &[&self.0, owner.as_bytes()]);
        match GroupId::new(Bytes::copy_from_slice(&hash)) {
            Ok(id) => id,
            Err(_) => unreachable!("32 bytes are a group id"),
        }
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

/// A setup that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A field is out of bounds.
    #[error("{field} must be {expected}, got {got}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The bytes are not a setup.
    #[error("the setup of a DGroup cannot be read: {0}")]
    Encoding(#[from] DecodeError),
}

/// What the members of a DGroup agree on before it begins (INIT). It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    nonce: [u8; 16],
    ciphersuites: Vec<u16>,
    exporter_bytes: u16,
    members: Vec<ClientId>,
}

impl Setup {
    /// A setup for these members (in any order), with the ciphersuites allowed in it, the preferred one first, and the length of the
    /// exported PSKs in bytes. `nonce` tells DGroups of the same members apart.
    pub fn new(
        nonce: [u8; 16],
        members: impl IntoIterator<Item = ClientId>,
        ciphersuites: impl IntoIterator<Item = u16>,
        exporter_bytes: u16,
    ) -> Result<Setup, SetupError> {
        let mut members: Vec<ClientId> = members.into_iter().collect();
        members.sort();
        members.dedup();
        let setup =
            Setup { nonce, ciphersuites: ciphersuites.into_iter().collect(), exporter_bytes, members };
        setup.check()?;
        Ok(setup)
    }

    fn check(&self) -> Result<(), SetupError> {
        let field = |field, expected: String, got: String| Err(SetupError::Field { field, expected, got });
        if !(2..=MAX_DGROUP_MEMBERS).contains(&self.members.len()) {
            return field(
                "members",
                format!("2 to {MAX_DGROUP_MEMBERS} different clients"),
                self.members.len().to_string(),
            );
        }
        if !self.members.is_sorted_by(|a, b| a < b) {
            return field("members", "sorted, each once".into(), "another order".into());
        }
        if !(1..=MAX_DGROUP_CIPHERSUITES).contains(&self.ciphersuites.len()) {
            return field(
                "ciphersuites",
                format!("1 to {MAX_DGROUP_CIPHERSUITES}"),
                self.ciphersuites.len().to_string(),
            );
        }
        if !EXPORTER_BYTES.contains(&self.exporter_bytes) {
            return field("exporter_bytes", format!("{EXPORTER_BYTES:?}"), self.exporter_bytes.to_string());
        }
        Ok(())
    }

    /// One setup has one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(VERSION).array(&self.nonce).int(self.exporter_bytes.into());
        let writer = writer.int(self.ciphersuites.len() as u64);
        let writer = self.ciphersuites.iter().fold(writer, |w, suite| w.int((*suite).into()));
        let writer = writer.int(self.members.len() as u64);
        self.members.iter().fold(writer, |w, member| w.bytes(member.as_bytes())).finish()
    }

    /// Reads what [`Setup::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Setup, SetupError> {
        let mut reader = Reader::new("setup of a DGroup", VERSION, bytes)?;
        let nonce = reader.array("nonce")?;
        let short = "a number below 65536";
        let exporter_bytes = reader.int_to("exporter_bytes", u16::MAX.into(), short)? as u16;
        let suites = reader.int_to("ciphersuites", MAX_DGROUP_CIPHERSUITES as u64, "within its limit")?;
        let ciphersuites = (0..suites)
            .map(|_| Ok(reader.int_to("ciphersuite", u16::MAX.into(), short)? as u16))
            .collect::<Result<_, DecodeError>>()?;
        let count = reader.int_to("members", MAX_DGROUP_MEMBERS as u64, "within its limit")?;
        let mut members = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let id = reader.bytes("member", MAX_CLIENT_ID_BYTES)?;
            members.push(ClientId::new(id).map_err(|e| SetupError::Field {
                field: "member",
                expected: format!("1 to {} bytes", e.max),
                got: e.got.to_string(),
            })?);
        }
        reader.finish("setup of a DGroup")?;
        let setup = Setup { nonce, ciphersuites, exporter_bytes, members };
        setup.check()?;
        Ok(setup)
    }

    /// The DGroup's id: H("concordat dgroup v1", encoded setup).
    pub fn id(&self) -> DgroupId {
        DgroupId(hash(b"concordat dgroup v1", &[&self.encode()]))
    }

    /// The members, sorted. A member's place here is its number.
    pub fn members(&self) -> &[ClientId] {
        &self.members
    }

    /// A member's number.
    pub fn number(&self, client: &ClientId) -> Option<usize> {
        self.members.binary_search(client).ok()
    }

    /// Ciphersuites that may be used, the preferred one first (RFC 9420 section 17.1).
    pub fn ciphersuites(&self) -> &[u16] {
        &self.ciphersuites
    }

    /// Length of the exported PSKs, in bytes.
    pub fn exporter_bytes(&self) -> u16 {
        self.exporter_bytes
    }
}

fn hash(label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&label).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(names: &[&'static str]) -> Vec<ClientId> {
        names.iter().map(|name| ClientId::new(*name).unwrap()).collect()
    }

    fn setup(names: &[&'static str]) -> Result<Setup, SetupError> {
        Setup::new([7; 16], clients(names), [1], 32)
    }

    #[test]
    fn one_setup_has_one_encoding_whatever_order_it_was_written_in() {
        let (a, b) = (setup(&["bob", "ann", "cid"]).unwrap(), setup(&["cid", "bob", "ann", "ann"]).unwrap());
        assert_eq!(a, b);
        let bytes = a.encode();
        assert_eq!(Setup::decode(&bytes).unwrap(), a);
        for cut in 0..bytes.len() {
            assert!(Setup::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(Setup::decode(&longer).is_err());
    }

    #[test]
    fn every_field_counts_for_the_id_and_for_the_send_groups() {
        let a = setup(&["ann", "bob"]).unwrap();
        let others = [
            setup(&["ann", "cid"]).unwrap(),
            Setup::new([8; 16], clients(&["ann", "bob"]), [1], 32).unwrap(),
            Setup::new([7; 16], clients(&["ann", "bob"]), [1, 2], 32).unwrap(),
            Setup::new([7; 16], clients(&["ann", "bob"]), [1], 33).unwrap(),
        ];
        let ann = ClientId::new("ann").unwrap();
        for other in others {
            assert_ne!(other.id(), a.id());
            assert_ne!(other.id().send_group(&ann), a.id().send_group(&ann));
        }
        assert_ne!(a.id().send_group(&ann), a.id().send_group(&ClientId::new("bob").unwrap()));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert!(setup(&["ann"]).unwrap_err().to_string().starts_with("members must be 2 to"));
        assert!(Setup::new([0; 16], clients(&["a", "b"]), [], 32).is_err());
        assert!(Setup::new([0; 16], clients(&["a", "b"]), [1], 8).is_err());
        // Unsorted members would be a second encoding of the same setup.
        let bytes = setup(&["a", "b"]).unwrap().encode();
        let swapped: Vec<u8> = bytes
            .iter()
            .map(|b| {
                if *b == b'a' {
                    b'b'
                } else if *b == b'b' {
                    b'a'
                } else {
                    *b
                }
            })
            .collect();
        assert!(Setup::decode(&swapped).is_err());
    }
}
