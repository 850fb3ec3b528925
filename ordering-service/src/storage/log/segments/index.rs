//! The index file of a closed segment: which rows it holds, and a table of their places. It can be made again from the segment, and is
//! not synced: a table that does not fit is noticed when a record is not where it should be.
//!
//! ```text
//! index = magic 8 | format 4 | length of the segment 8 | lists: length 4, bytes | checksum 4 | slot*
//! lists = shards 4, each: shard 4 | cut present 1 | cut 8 | runs 4, each: first 8 | slots 4
//! ```

use bytes::Bytes;

use super::{
    content::Content,
    format::{Seal, Slot},
};
use crate::{
    raft::types::ShardId,
    storage::wire::{DecodeError, Fields, Put},
};

const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"concsegi";
/// Magic, format, length of the segment and length of the lists.
pub(super) const FIXED_BYTES: usize = 8 + 4 + 8 + 4;

/// What the index says before its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lists {
    /// Bytes of the segment file.
    pub(super) segment_bytes: u64,
    pub(super) shards: Vec<List>,
}

/// The rows of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    pub(super) shard: ShardId,
    pub(super) cut: Option<u64>,
    pub(super) runs: Vec<Listed>,
}

/// A run, and where in the index file its slots begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) first: u64,
    pub(super) slots: u32,
    pub(super) table: u64,
}

impl Lists {
    /// Bytes of the index file.
    fn file_bytes(&self, table: usize) -> u64 {
        let slots: u64 = self.shards.iter().flat_map(|list| &list.runs).map(|run| u64::from(run.slots)).sum();
        table as u64 + slots * Slot::ENCODED_BYTES as u64
    }
}

/// Makes an index file's bytes, and what a reader of them will find.
pub(super) fn encode(seal: &Seal, segment_bytes: u64, content: &Content) -> (Vec<u8>, Lists) {
    let mut lists = Vec::new();
    lists.put_int32(content.shards.len() as u32);
    for (shard, rows) in &content.shards {
        lists.put_int32(*shard);
        lists.put_byte(rows.cut.is_some().into());
        lists.put_int(rows.cut.unwrap_or(0));
        lists.put_int32(rows.runs.len() as u32);
        for run in &rows.runs {
            lists.put_int(run.first);
            lists.put_int32(run.slots.len() as u32);
        }
    }
    let mut bytes = MAGIC.to_vec();
    bytes.put_int32(FORMAT);
    bytes.put_int(segment_bytes);
    bytes.put_string(&lists);
    let checksum = seal.checksum(&bytes);
    bytes.put_int32(checksum);
    let mut shards = Vec::new();
    for (shard, rows) in &content.shards {
        let mut runs = Vec::new();
        for run in &rows.runs {
            let slots = run.slots.len() as u32;
            runs.push(Listed { first: run.first, slots, table: bytes.len() as u64 });
            run.slots.iter().for_each(|slot| slot.encode(&mut bytes));
        }
        shards.push(List { shard: *shard, cut: rows.cut, runs });
    }
    (bytes, Lists { segment_bytes, shards })
}

/// Bytes of the lists and their checksum, from the fixed beginning of an index file.
pub(super) fn lists_bytes(fixed: &[u8; FIXED_BYTES]) -> usize {
    u32::from_be_bytes([fixed[20], fixed[21], fixed[22], fixed[23]]) as usize + 4
}

/// Reads all but the table. `file_bytes` is the length of the whole file.
pub(super) fn decode(seal: &Seal, head: Bytes, file_bytes: u64) -> Result<Lists, DecodeError> {
    let mut fields = Fields::new(head.clone());
    if fields.array::<8>("magic")? != *MAGIC {
        return Err(DecodeError::Value { what: "magic of the index", got: 0 });
    }
    let format = fields.int32("format")?;
    if format != FORMAT {
        return Err(DecodeError::Value { what: "format of the index", got: format.into() });
    }
    let segment_bytes = fields.int("length of the segment")?;
    let lists = fields.string("lists")?;
    let checksum = fields.int32("checksum")?;
    fields.end()?;
    if seal.checksum(&head[..head.len() - 4]) != checksum {
        return Err(DecodeError::Value { what: "checksum of the index", got: checksum.into() });
    }
    let mut fields = Fields::new(lists);
    let (mut shards, mut table) = (Vec::new(), head.len() as u64);
    for _ in 0..fields.count("shards", 4 + 1 + 8 + 4)? {
        let shard = fields.int32("shard")?;
        let is_cut = fields.flag("cut present")?;
        let cut = Some(fields.int("cut")?).filter(|_| is_cut);
        let mut runs = Vec::new();
        for _ in 0..fields.count("runs", 8 + 4)? {
            let (first, slots) = (fields.int("first index")?, fields.int32("slots")?);
            runs.push(Listed { first, slots, table });
            table += u64::from(slots) * Slot::ENCODED_BYTES as u64;
        }
        shards.push(List { shard, cut, runs });
    }
    fields.end()?;
    let lists = Lists { segment_bytes, shards };
    let needed = lists.file_bytes(head.len());
    if needed != file_bytes {
        return Err(DecodeError::Value { what: "length of the index", got: file_bytes });
    }
    Ok(lists)
}

/// A part of the table.
pub(super) fn slots(bytes: &[u8]) -> Vec<Slot> {
    bytes.as_chunks::<{ Slot::ENCODED_BYTES }>().0.iter().map(Slot::decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAL: Seal = Seal { disk_id: [3; 16], segment: 9 };

    fn sample() -> Content {
        let mut content = Content::new(false);
        for index in 0..20 {
            content.append(1, index, Slot { offset: index as u32 * 7, bytes: 7, checksum: index as u32 });
            content.append(4, 100 + index * 2, Slot { offset: index as u32, bytes: 1, checksum: 5 });
        }
        content.truncate(2, 50);
        content
    }

    #[test]
    fn an_index_comes_back_as_it_was_written() {
        let content = sample();
        let (bytes, lists) = encode(&SEAL, 4711, &content);
        let head = FIXED_BYTES + lists_bytes(bytes.first_chunk().unwrap());
        let found = decode(&SEAL, Bytes::copy_from_slice(&bytes[..head]), bytes.len() as u64).unwrap();
        assert_eq!(found, lists);
        for (list, (shard, rows)) in found.shards.iter().zip(&content.shards) {
            assert_eq!((list.shard, list.cut), (*shard, rows.cut));
            for (listed, run) in list.runs.iter().zip(&rows.runs) {
                let (begin, length) = (listed.table as usize, run.slots.len() * Slot::ENCODED_BYTES);
                assert_eq!(
                    (listed.first, slots(&bytes[begin..begin + length])),
                    (run.first, run.slots.clone())
                );
            }
        }
    }

    #[test]
    fn a_damaged_list_or_another_length_or_segment_is_noticed() {
        let (bytes, _) = encode(&SEAL, 4711, &sample());
        let head = FIXED_BYTES + lists_bytes(bytes.first_chunk().unwrap());
        for at in 0..head {
            let mut bad = bytes[..head].to_vec();
            bad[at] ^= 2;
            assert!(decode(&SEAL, bad.into(), bytes.len() as u64).is_err(), "byte {at}");
        }
        let head = Bytes::copy_from_slice(&bytes[..head]);
        assert!(decode(&SEAL, head.clone(), bytes.len() as u64 - 1).is_err());
        assert!(decode(&Seal { segment: 8, ..SEAL }, head, bytes.len() as u64).is_err());
    }
}
