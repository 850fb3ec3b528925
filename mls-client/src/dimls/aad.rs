//! What a commit of an owner says beside its proposals. It travels in the authenticated data of a public message, so that receivers
//! know what the commit needs before they can process it; they check afterwards that it was true.

use super::{
    graph::{Member, Node},
    limits::MAX_MEMBERS,
};
use crate::demls::{DecodeError, secret::SecretBuffer, wire::Reader};

const WHAT: &str = "authenticated data of a DiMLS commit";
const VERSION: u8 = 2;

/// The authenticated data of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommitData {
    /// The PSKs that it takes, in the order of its proposals.
    pub(super) takes: Vec<Node>,
    /// Whom it adds, or replaces by a Remove and an Add, and with which generation of that member's KeyPackages.
    pub(super) adds: Vec<(Member, u64)>,
    /// With a KeyPackage: whose Send Groups the owner cannot follow until it is added to them again. Complete, as of this commit.
    pub(super) lost: Vec<Member>,
    /// The owner's new KeyPackage (an MLSMessage), with its generation: from now on its leaf can be replaced by this one.
    pub(super) key_package: Option<(u64, Vec<u8>)>,
}

impl CommitData {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = SecretBuffer::default();
        out.push(VERSION);
        out.number(self.takes.len());
        for node in &self.takes {
            out.extend(&node.owner.to_be_bytes());
            out.extend(&node.epoch.to_be_bytes());
        }
        out.number(self.adds.len());
        for (member, generation) in &self.adds {
            out.extend(&member.to_be_bytes());
            out.extend(&generation.to_be_bytes());
        }
        out.number(self.lost.len());
        for member in &self.lost {
            out.extend(&member.to_be_bytes());
        }
        match &self.key_package {
            None => out.push(0),
            Some((generation, message)) => {
                out.push(1);
                out.extend(&generation.to_be_bytes());
                out.vector(message);
            }
        }
        out.into_bytes().to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<CommitData, DecodeError> {
        let mut reader = Reader::new(WHAT, bytes);
        match reader.byte()? {
            VERSION => {}
            got => return Err(reader.error(format!("expected version {VERSION}, got {got}"))),
        }
        let takes = pairs(&mut reader)?.into_iter().map(|(owner, epoch)| Node { owner, epoch }).collect();
        let adds = pairs(&mut reader)?;
        let lost = counted(&mut reader)?;
        let lost = (0..lost).map(|_| short(&mut reader)).collect::<Result<_, _>>()?;
        let key_package = match reader.byte()? {
            0 => None,
            1 => Some((long(&mut reader)?, reader.vector()?.to_vec())),
            got => return Err(reader.error(format!("expected 0 or 1 for the KeyPackage, got {got}"))),
        };
        reader.finish()?;
        Ok(CommitData { takes, adds, lost, key_package })
    }
}

fn pairs(reader: &mut Reader<'_>) -> Result<Vec<(Member, u64)>, DecodeError> {
    let count = counted(reader)?;
    (0..count).map(|_| Ok((short(reader)?, long(reader)?))).collect()
}

/// A number of members.
fn counted(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let count = reader.number()?;
    if count > MAX_MEMBERS {
        return Err(reader.error(format!("expected at most {MAX_MEMBERS} members, got {count}")));
    }
    Ok(count)
}

fn short(reader: &mut Reader<'_>) -> Result<Member, DecodeError> {
    let mut member = [0; 2];
    member.copy_from_slice(reader.take(2)?);
    Ok(Member::from_be_bytes(member))
}

fn long(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(reader.take(8)?);
    Ok(u64::from_be_bytes(bytes))
}

/// What stands at the front of a public message (RFC 9420 sections 6 and 6.2), where it can be read without any keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicHeader<'a> {
    pub(super) epoch: u64,
    /// The sender's leaf; nothing for outsiders.
    pub(super) leaf: Option<u32>,
    pub(super) authenticated_data: &'a [u8],
    pub(super) is_commit: bool,
}

impl<'a> PublicHeader<'a> {
    /// `message` is an MLSMessage with a public message inside.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("public message", message);
        // ProtocolVersion mls10, WireFormat mls_public_message.
        if reader.take(4)? != [0, 1, 0, 1] {
            return Err(reader.error("expected a public message of MLS 1.0"));
        }
        reader.vector()?;
        let epoch = long(&mut reader)?;
        // SenderType: member, external, new_member_proposal, new_member_commit.
        let leaf = match reader.byte()? {
            1 => {
                let mut leaf = [0; 4];
                leaf.copy_from_slice(reader.take(4)?);
                Some(u32::from_be_bytes(leaf))
            }
            2 => reader.take(4).map(|_| None)?,
            3 | 4 => None,
            got => return Err(reader.error(format!("expected a sender type from 1 to 4, got {got}"))),
        };
        let authenticated_data = reader.vector()?;
        // ContentType: application, proposal, commit.
        let is_commit = reader.byte()? == 3;
        Ok(PublicHeader { epoch, leaf, authenticated_data, is_commit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_every_cut_is_refused() {
        let data = CommitData {
            takes: vec![Node { owner: 3, epoch: 1 << 40 }, Node { owner: 200, epoch: 7 }],
            adds: vec![(9, 2)],
            lost: vec![4, 300],
            key_package: Some((5, vec![1; 300])),
        };
        let bytes = data.encode();
        assert_eq!(CommitData::decode(&bytes).unwrap(), data);
        assert_eq!(CommitData::decode(&CommitData::default().encode()).unwrap(), CommitData::default());
        for cut in 0..bytes.len() {
            assert!(CommitData::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(CommitData::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}
