//! The stored form of the fork state and its rows. See [`crate::codec`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::EntryKind,
    fork::{
        facts::{CommitFacts, GatewayId, LeafId},
        state::{Candidate, Collecting, Dead, ForkState, Recorded, Registration},
    },
    ids::{ClientId, EntryId, StateId},
    limits::{MAX_CLIENT_ID_BYTES, MAX_COMMIT_LEAVES, MAX_EPOCH, MAX_GATEWAYS, MAX_PENDING_MARKS, MAX_SEQ},
};

const VERSION: u8 = 1;
/// Since registrations have numbers.
const STATE_VERSION: u8 = 2;
const SEQ: &str = "a number of at most 2^62";
const EPOCH: &str = "an epoch of at most 2^62";
/// Members that can be owed a removal: every member but one. Only a bound for reading.
const MAX_OWED: u64 = 1 << 24;

impl ForkState {
    /// For storage. About 20 bytes, 20 to 36 for each gateway and 32 for each removal that is owed.
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(STATE_VERSION)
            .int(self.stable)
            .int(self.stable_epoch)
            .int(self.members)
            .int(self.collections)
            .int(self.gateways.len() as u64);
        let writer = self.gateways.iter().fold(writer, |w, (gateway, registration)| {
            w.array(&gateway.0).int(registration.number).int(registration.acknowledged)
        });
        let writer = writer.int(self.departures);
        let writer = leaves(writer, self.owed.iter());
        let writer = writer.int(self.pending_marks.len() as u64);
        let writer = self.pending_marks.iter().fold(writer, |w, seq| w.int(*seq));
        let writer = match &self.collecting {
            None => writer.byte(0),
            Some(Collecting { number, reported, candidates }) => {
                let writer = writer.byte(1).int(*number).int((*candidates).into()).int(reported.len() as u64);
                reported.iter().fold(writer, |w, gateway| w.array(&gateway.0))
            }
        };
        writer.finish()
    }

    /// Reads [`ForkState::encode`].
    pub fn decode(bytes: &[u8]) -> Result<ForkState, DecodeError> {
        let mut reader = Reader::new("fork state", STATE_VERSION, bytes)?;
        let stable = reader.int_to("stable", MAX_SEQ, SEQ)?;
        let stable_epoch = reader.int_to("stable_epoch", MAX_EPOCH, EPOCH)?;
        let members = reader.int("members")?;
        let collections = reader.int_to("collections", MAX_SEQ, SEQ)?;
        let mut gateways = BTreeMap::new();
        for _ in 0..reader.int_to("gateways", MAX_GATEWAYS as u64, "at most 64 gateways")? {
            let gateway = GatewayId(reader.array("gateways")?);
            let number = reader.int_to("gateways", MAX_SEQ, SEQ)?;
            let acknowledged = reader.int_to("gateways", MAX_SEQ, SEQ)?;
            gateways.insert(gateway, Registration { number, acknowledged });
        }
        let departures = reader.int_to("departures", MAX_SEQ, SEQ)?;
        let owed = read_leaves(&mut reader, "owed", MAX_OWED)?.into_iter().collect();
        let mut pending_marks = BTreeSet::new();
        for _ in 0..reader.int_to("pending_marks", MAX_PENDING_MARKS as u64, "at most 1024")? {
            pending_marks.insert(reader.int_to("pending_marks", MAX_SEQ, SEQ)?);
        }
        let collecting = match reader.byte("collecting")? {
            0 => None,
            1 => Some(read_collecting(&mut reader)?),
            got => {
                return Err(DecodeError::Value { field: "collecting", expected: "0 or 1", got: got.into() });
            }
        };
        reader.finish("fork state")?;
        Ok(ForkState {
            stable,
            stable_epoch,
            gateways,
            departures,
            owed,
            members,
            collecting,
            collections,
            pending_marks,
        })
    }
}

fn read_collecting(reader: &mut Reader<'_>) -> Result<Collecting, DecodeError> {
    let number = reader.int_to("collecting.number", MAX_SEQ, SEQ)?;
    let candidates = reader.int_to("collecting.candidates", u32::MAX.into(), "at most 2^32 - 1")?;
    let mut reported = BTreeSet::new();
    for _ in 0..reader.int("collecting.reported")? {
        reported.insert(GatewayId(reader.array("collecting.reported")?));
    }
    Ok(Collecting { number, reported, candidates: candidates as u32 })
}

impl Recorded {
    /// For storage. About 10 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(VERSION);
        match *self {
            Recorded::Canonical { seq, epoch, is_state } => {
                writer.byte(u8::from(is_state)).int(seq).int(epoch).finish()
            }
            Recorded::Dead(Dead { seq, late, oldest, anchor_epoch, epoch, is_state }) => writer
                .byte(2 | u8::from(is_state) | u8::from(late) << 2)
                .int(seq)
                .int(epoch)
                .int(oldest)
                .int(anchor_epoch)
                .finish(),
        }
    }

    /// Reads [`Recorded::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Recorded, DecodeError> {
        let mut reader = Reader::new("recorded entry", VERSION, bytes)?;
        let flags = reader.byte("flags")?;
        if flags > 7 || flags & 6 == 4 {
            return Err(DecodeError::Value { field: "flags", expected: "0 to 3, 6 or 7", got: flags.into() });
        }
        let is_state = flags & 1 != 0;
        let seq = reader.int_to("seq", MAX_SEQ, SEQ)?;
        let epoch = reader.int_to("epoch", MAX_EPOCH, EPOCH)?;
        let recorded = if flags & 2 == 0 {
            Recorded::Canonical { seq, epoch, is_state }
        } else {
            let oldest = reader.int_to("oldest", MAX_SEQ, SEQ)?;
            let anchor_epoch = reader.int_to("anchor_epoch", MAX_EPOCH, EPOCH)?;
            Recorded::Dead(Dead { seq, late: flags & 4 != 0, oldest, anchor_epoch, epoch, is_state })
        };
        reader.finish("recorded entry")?;
        Ok(recorded)
    }
}

impl Candidate {
    /// For storage. About 100 bytes, and 32 for each leaf that is added or removed.
    pub fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(VERSION)
            .fixed(&self.id.0)
            .int(self.ordinal.into())
            .byte(self.kind.tag())
            .fixed(&self.parent.0)
            .int(self.epoch)
            .bytes(self.author.as_bytes());
        write_facts(writer, &self.facts).finish()
    }

    /// Reads [`Candidate::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Candidate, DecodeError> {
        let mut reader = Reader::new("candidate", VERSION, bytes)?;
        let id = EntryId(reader.fixed("id")?);
        let ordinal = reader.int_to("ordinal", u32::MAX.into(), "at most 2^32 - 1")? as u32;
        let tag = reader.byte("kind")?;
        let expected = "a commit (3), a proposal (2) or an application message (4)";
        let wrong = DecodeError::Value { field: "kind", expected, got: tag.into() };
        let kind = EntryKind::from_tag(tag).filter(|_| (2..=4).contains(&tag)).ok_or(wrong)?;
        let parent = StateId(reader.fixed("parent")?);
        let epoch = reader.int_to("epoch", MAX_EPOCH, EPOCH)?;
        let author = reader.bytes("author", MAX_CLIENT_ID_BYTES)?;
        let author = ClientId::new(author).map_err(|error| DecodeError::Value {
            field: "author",
            expected: "1 to 128 bytes",
            got: error.got as u64,
        })?;
        let facts = read_facts(&mut reader)?;
        reader.finish("candidate")?;
        Ok(Candidate { id, ordinal, kind, parent, epoch, author, facts })
    }
}

impl CommitFacts {
    /// For storage. 32 bytes for each leaf, and 4.
    pub fn encode(&self) -> Vec<u8> {
        write_facts(Writer::new(VERSION), self).finish()
    }

    /// Reads [`CommitFacts::encode`].
    pub fn decode(bytes: &[u8]) -> Result<CommitFacts, DecodeError> {
        let mut reader = Reader::new("facts of a commit", VERSION, bytes)?;
        let facts = read_facts(&mut reader)?;
        reader.finish("facts of a commit")?;
        Ok(facts)
    }
}

fn write_facts(writer: Writer, facts: &CommitFacts) -> Writer {
    let CommitFacts { author, removes, adds } = facts;
    leaves(leaves(leaves(writer, author.iter()), removes.iter()), adds.iter())
}

fn read_facts(reader: &mut Reader<'_>) -> Result<CommitFacts, DecodeError> {
    let most = MAX_COMMIT_LEAVES as u64;
    Ok(CommitFacts {
        author: read_leaves(reader, "facts.author", 1)?.first().copied(),
        removes: read_leaves(reader, "facts.removes", most)?,
        adds: read_leaves(reader, "facts.adds", most)?,
    })
}

fn leaves<'l>(writer: Writer, leaves: impl ExactSizeIterator<Item = &'l LeafId>) -> Writer {
    let writer = writer.int(leaves.len() as u64);
    leaves.fold(writer, |writer, leaf| writer.fixed(&leaf.0))
}

fn read_leaves(reader: &mut Reader<'_>, field: &'static str, most: u64) -> Result<Vec<LeafId>, DecodeError> {
    let count = reader.int_to(field, most, "a number of leaves within its limit")?;
    (0..count).map(|_| Ok(LeafId(reader.fixed(field)?))).collect()
}
