//! The bytes of a segment file. Pure: no file is touched here.
//!
//! ```text
//! segment = header block* end?
//! header  = magic 8 | format 4 | segment 8 | base 8 | rewritten 1 | marks: length 4, bytes | checksum 4
//! block   = magic 4 | length of the records 4 | number 8 | synced 8 | checksum of these 4 | record*
//! end     = a block without records
//! record  = checksum of the rest 4 | length of the body 4 | shard 4 | kind 1 | body
//! ```
//!
//! Integers are big-endian, checksums CRC-32. Those of headers are seeded with the disk's id and the segment's number: a file of another
//! disk or under another name is noticed, and no payload can look like a block. `number` counts blocks over all segments; `base` is that
//! of the last block before the segment. `synced` is the newest number known to be synced when the block was written, and so proves that
//! the blocks up to there are not a tail that may be missing. A segment that is written no more has an `end`: without it a file that was
//! cut between two blocks would look like a shorter one. Segments of format 1 have none.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    raft::types::ShardId,
    storage::{
        log::{
            LogId, Vote,
            codec::{decode_log_id, decode_vote, encode_log_id, encode_vote, encoded_index},
        },
        wire::{DecodeError, Fields, Put},
    },
};

const FORMAT: u32 = 2;
const FORMAT_WITHOUT_END: u32 = 1;
const MAGIC: &[u8; 8] = b"concsegm";
pub(super) const BLOCK_MAGIC: [u8; 4] = [0xc0, 0x4c, 0x0b, 0x1c];

pub(super) const BLOCK_HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 4;
pub(super) const RECORD_HEADER_BYTES: usize = 4 + 4 + 4 + 1;
/// A header without marks.
const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 1 + 4 + 4;

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const VOTE: u8 = 3;
const COMMITTED: u8 = 4;
const PURGED: u8 = 5;
const FORGOTTEN: u8 = 6;
const GENERATION: u8 = 7;

/// Seeds checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    pub(super) disk_id: [u8; 16],
    pub(super) segment: u64,
}

impl Seal {
    pub(super) fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&self.disk_id);
        checksum.update(&self.segment.to_be_bytes());
        checksum.update(bytes);
        checksum.finalize()
    }
}

/// What is known of a shard beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// Nothing refers to rows up to and with this one.
    pub(super) forgotten: Option<u64>,
    pub(super) generation: u64,
}

/// What a segment file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of the last block before the segment.
    pub(super) base: u64,
    /// It holds what was live of a longer one. Its marks and the numbers of its blocks mean nothing.
    pub(super) rewritten: bool,
    /// Its end is marked once it is written no more.
    pub(super) has_end: bool,
    /// The marks of every shard when the segment was begun.
    pub(super) marks: BTreeMap<ShardId, Marks>,
}

impl Header {
    pub(super) fn encode(&self, seal: &Seal) -> Vec<u8> {
        let mut marks = Vec::new();
        marks.put_int32(self.marks.len() as u32);
        for (shard, of_shard) in &self.marks {
            marks.put_int32(*shard);
            put_marks(of_shard, &mut marks);
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + marks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.put_int32(if self.has_end { FORMAT } else { FORMAT_WITHOUT_END });
        bytes.put_int(seal.segment);
        bytes.put_int(self.base);
        bytes.put_byte(self.rewritten.into());
        bytes.put_string(&marks);
        let checksum = seal.checksum(&bytes);
        bytes.put_int32(checksum);
        bytes
    }

    /// Reads a header from the start of a segment's bytes, and says how long it is.
    pub(super) fn decode(seal: &Seal, file: &Bytes) -> Result<(Header, usize), DecodeError> {
        let mut fields = Fields::new(file.clone());
        if fields.array::<8>("magic")? != *MAGIC {
            return Err(DecodeError::Value { what: "magic of the segment", got: 0 });
        }
        let format = fields.int32("format")?;
        if ![FORMAT_WITHOUT_END, FORMAT].contains(&format) {
            return Err(DecodeError::Value { what: "format of the segment", got: format.into() });
        }
        let segment = fields.int("segment")?;
        let base = fields.int("base")?;
        let rewritten = fields.flag("rewritten")?;
        let marks = fields.string("marks")?;
        let length = HEADER_BYTES + marks.len();
        let checksum = fields.int32("checksum")?;
        if segment != seal.segment || seal.checksum(&file[..length - 4]) != checksum {
            return Err(DecodeError::Value {
                what: "checksum of the segment's header",
                got: checksum.into(),
            });
        }
        let (has_end, marks) = (format == FORMAT, take_all_marks(marks)?);
        Ok((Header { base, rewritten, has_end, marks }, length))
    }
}

fn put_marks(marks: &Marks, out: &mut Vec<u8>) {
    out.put_string(&marks.vote.as_ref().map(encode_vote).unwrap_or_default());
    out.put_string(&marks.committed.as_ref().map(encode_log_id).unwrap_or_default());
    out.put_string(&marks.purged.as_ref().map(encode_log_id).unwrap_or_default());
    out.put_byte(marks.forgotten.is_some().into());
    out.put_int(marks.forgotten.unwrap_or(0));
    out.put_int(marks.generation);
}

fn take_all_marks(bytes: Bytes) -> Result<BTreeMap<ShardId, Marks>, DecodeError> {
    fn optional<T>(
        bytes: Bytes,
        decode: impl Fn(Bytes) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if bytes.is_empty() { Ok(None) } else { decode(bytes).map(Some) }
    }
    let mut fields = Fields::new(bytes);
    let mut all = BTreeMap::new();
    for _ in 0..fields.count("shards", 4 + 3 * 4 + 1 + 8 + 8)? {
        let shard = fields.int32("shard")?;
        let vote = optional(fields.string("vote")?, decode_vote)?;
        let committed = optional(fields.string("committed")?, decode_log_id)?;
        let purged = optional(fields.string("purged")?, decode_log_id)?;
        let is_forgotten = fields.flag("forgotten")?;
        let forgotten = Some(fields.int("forgotten")?).filter(|_| is_forgotten);
        let generation = fields.int("generation")?;
        all.insert(shard, Marks { vote, committed, purged, forgotten, generation });
    }
    fields.end()?;
    Ok(all)
}

/// What a block begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    /// Bytes of the records.
    pub(super) length: u32,
    pub(super) number: u64,
    pub(super) synced: u64,
}

impl BlockHeader {
    /// The block that ends a segment.
    pub(super) fn end(number: u64, synced: u64) -> Self {
        BlockHeader { length: 0, number, synced }
    }

    pub(super) fn is_end(&self) -> bool {
        self.length == 0
    }

    pub(super) fn encode(&self, seal: &Seal) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.synced.to_be_bytes());
        let checksum = seal.checksum(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// None if there is no block's header at the start of `bytes`.
    pub(super) fn decode(seal: &Seal, bytes: &[u8]) -> Option<BlockHeader> {
        let bytes: &[u8; BLOCK_HEADER_BYTES] = bytes.first_chunk()?;
        let header = BlockHeader {
            length: u32::from_be_bytes(*bytes[4..].first_chunk()?),
            number: u64::from_be_bytes(*bytes[8..].first_chunk()?),
            synced: u64::from_be_bytes(*bytes[16..].first_chunk()?),
        };
        (header.encode(seal) == *bytes).then_some(header)
    }

    /// The newest number that any block's header from `at` on knows to be synced: evidence that looks behind damage.
    pub(super) fn newest_synced(seal: &Seal, file: &[u8], at: usize) -> Option<u64> {
        let (mut rest, mut newest) = (file.get(at..)?, None);
        while rest.len() >= BLOCK_HEADER_BYTES {
            if rest.starts_with(&BLOCK_MAGIC)
                && let Some(header) = BlockHeader::decode(seal, rest)
            {
                newest = newest.max(Some(header.synced));
            }
            rest = &rest[1..];
        }
        newest
    }
}

/// Where a record lies in its file, and what proves that it is that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) offset: u32,
    /// Bytes of the record, its header included.
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

impl Slot {
    /// The row was dropped when its segment was rewritten.
    pub(super) const HOLE: Slot = Slot { offset: u32::MAX, bytes: 0, checksum: 0 };
    pub(super) const ENCODED_BYTES: usize = 12;

    pub(super) fn is_hole(&self) -> bool {
        *self == Slot::HOLE
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_int32(self.offset);
        out.put_int32(self.bytes);
        out.put_int32(self.checksum);
    }

    pub(super) fn decode(bytes: &[u8; Slot::ENCODED_BYTES]) -> Slot {
        let int = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Slot { offset: int(0), bytes: int(4), checksum: int(8) }
    }
}

/// What a record says of its shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Record {
    Entry { index: u64 },
    Truncate { from: u64 },
    Vote(Vote),
    Committed(LogId),
    Purged(LogId),
    Forgotten { upto: u64 },
    Generation(u64),
}

impl Record {
    fn kind(&self) -> u8 {
        match self {
            Record::Entry { .. } => ENTRY,
            Record::Truncate { .. } => TRUNCATE,
            Record::Vote(_) => VOTE,
            Record::Committed(_) => COMMITTED,
            Record::Purged(_) => PURGED,
            Record::Forgotten { .. } => FORGOTTEN,
            Record::Generation(_) => GENERATION,
        }
    }

    /// The body of a record that is no entry: those are encoded where they are known whole.
    pub(super) fn body(&self) -> Vec<u8> {
        match self {
            Record::Entry { index: number }
            | Record::Truncate { from: number }
            | Record::Forgotten { upto: number }
            | Record::Generation(number) => number.to_be_bytes().to_vec(),
            Record::Vote(vote) => encode_vote(vote),
            Record::Committed(log_id) | Record::Purged(log_id) => encode_log_id(log_id),
        }
    }

    fn decode(kind: u8, body: Bytes) -> Result<Record, DecodeError> {
        let number = |what, body| {
            let mut fields = Fields::new(body);
            let number = fields.int(what)?;
            fields.end()?;
            Ok(number)
        };
        Ok(match kind {
            ENTRY => Record::Entry { index: encoded_index(&body)? },
            TRUNCATE => Record::Truncate { from: number("first truncated index", body)? },
            VOTE => Record::Vote(decode_vote(body)?),
            COMMITTED => Record::Committed(decode_log_id(body)?),
            PURGED => Record::Purged(decode_log_id(body)?),
            FORGOTTEN => Record::Forgotten { upto: number("last forgotten index", body)? },
            GENERATION => Record::Generation(number("generation", body)?),
            got => return Err(DecodeError::Value { what: "kind of record", got: got.into() }),
        })
    }
}

/// Fills in the header of a record, `head`, whose body is what follows in `head` and then `rest`. Gives its checksum.
pub(super) fn seal_record(head: &mut [u8], rest: &[u8], shard: ShardId, record: &Record) -> u32 {
    let body = head.len() - RECORD_HEADER_BYTES + rest.len();
    head[4..8].copy_from_slice(&(body as u32).to_be_bytes());
    head[8..12].copy_from_slice(&shard.to_be_bytes());
    head[12] = record.kind();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&head[4..]);
    checksum.update(rest);
    let checksum = checksum.finalize();
    head[..4].copy_from_slice(&checksum.to_be_bytes());
    checksum
}

/// A record as it was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) shard: ShardId,
    pub(super) record: Record,
    pub(super) body: Bytes,
    /// The record with its header.
    pub(super) whole: Bytes,
    pub(super) slot: Slot,
}

/// Reads the record at the start of `bytes`, which lies at `offset` in its file. Checks it.
pub(super) fn read_record(bytes: &Bytes, offset: usize) -> Result<Found, DecodeError> {
    let mut fields = Fields::new(bytes.clone());
    let checksum = fields.int32("checksum of a record")?;
    let length = fields.int32("length of a record")? as usize;
    let shard = fields.int32("shard of a record")?;
    let kind = fields.byte("kind of a record")?;
    let body = fields.rest();
    if body.len() < length {
        return Err(DecodeError::Short { what: "record", needed: length, left: body.len() });
    }
    let whole = RECORD_HEADER_BYTES + length;
    if crc32fast::hash(&bytes[4..whole]) != checksum {
        return Err(DecodeError::Value { what: "checksum of a record", got: checksum.into() });
    }
    let body = body.slice(..length);
    let record = Record::decode(kind, body.clone())?;
    let slot = Slot { offset: offset as u32, bytes: whole as u32, checksum };
    Ok(Found { shard, record, body, whole: bytes.slice(..whole), slot })
}

/// Reads the block at `at` and all its records: all of them are whole, or it is an error.
pub(super) fn read_block(
    seal: &Seal,
    file: &Bytes,
    at: usize,
) -> Result<(BlockHeader, Vec<Found>), DecodeError> {
    let Some(header) = BlockHeader::decode(seal, &file[at..]) else {
        return Err(DecodeError::Value { what: "header of a block", got: at as u64 });
    };
    let begin = at + BLOCK_HEADER_BYTES;
    let end = begin + header.length as usize;
    if end > file.len() {
        let (needed, left) = (header.length as usize, file.len() - begin);
        return Err(DecodeError::Short { what: "block", needed, left });
    }
    let (mut found, mut next) = (Vec::new(), begin);
    while next < end {
        let record = read_record(&file.slice(next..end), next)?;
        next += record.slot.bytes as usize;
        found.push(record);
    }
    Ok((header, found))
}
