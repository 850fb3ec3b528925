//! Puts one block together: what is small is copied into one buffer, a large command is written from where it is.

use std::{
    io::{self, IoSlice, Write},
    ops::Range,
};

use bytes::Bytes;

use super::format::{BLOCK_HEADER_BYTES, BlockHeader, RECORD_HEADER_BYTES, Record, Seal, Slot, seal_record};
use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::{RECORD_BYTES, WRITE_IN_PLACE_BYTES},
        log::{LogEntry, codec::encode_entry_head, medium::Change},
    },
};

/// A block that gathers records.
pub(super) struct BlockBuilder {
    /// The block's header, and everything that is copied.
    own: Vec<u8>,
    pieces: Vec<Piece>,
    /// What is in `own` from here on is in no piece yet.
    loose: usize,
    length: usize,
    /// What the records do, with slots as if the block began the file.
    effects: Vec<Effect>,
}

/// What a record does to its shard.
pub(super) struct Effect {
    pub(super) shard: ShardId,
    pub(super) record: Record,
    pub(super) slot: Slot,
}

enum Piece {
    Own(Range<usize>),
    Shared(Bytes),
}

impl BlockBuilder {
    pub(super) fn new() -> Self {
        BlockBuilder {
            own: vec![0; BLOCK_HEADER_BYTES],
            pieces: Vec::new(),
            loose: 0,
            length: BLOCK_HEADER_BYTES,
            effects: Vec::new(),
        }
    }

    /// Bytes in the file.
    pub(super) fn bytes(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Forgets everything but the room that it takes.
    pub(super) fn clear(&mut self) {
        self.own.truncate(BLOCK_HEADER_BYTES);
        self.pieces.clear();
        self.effects.clear();
        (self.loose, self.length) = (0, BLOCK_HEADER_BYTES);
    }

    pub(super) fn entry(&mut self, shard: ShardId, entry: &LogEntry) -> Result<(), StorageError> {
        let begin = self.own.len();
        self.own.resize(begin + RECORD_HEADER_BYTES, 0);
        let mut command = encode_entry_head(entry, &mut self.own);
        if let Some(small) = command.take_if(|command| command.len() < WRITE_IN_PLACE_BYTES) {
            self.own.extend_from_slice(small);
        }
        let record = Record::Entry { index: entry.log_id.index };
        self.finish(begin, command, shard, record)
    }

    /// A change that is no append.
    pub(super) fn mark(&mut self, shard: ShardId, record: Record) -> Result<(), StorageError> {
        let begin = self.own.len();
        self.own.resize(begin + RECORD_HEADER_BYTES, 0);
        self.own.extend_from_slice(&record.body());
        self.finish(begin, None, shard, record)
    }

    /// An entry's whole record, as it was read from another segment.
    pub(super) fn copy(&mut self, shard: ShardId, index: u64, record: &[u8], checksum: u32) {
        let slot = Slot { offset: self.length as u32, bytes: record.len() as u32, checksum };
        self.own.extend_from_slice(record);
        self.length += record.len();
        self.effects.push(Effect { shard, record: Record::Entry { index }, slot });
    }

    fn finish(
        &mut self,
        begin: usize,
        shared: Option<&Bytes>,
        shard: ShardId,
        record: Record,
    ) -> Result<(), StorageError> {
        let bytes = self.own.len() - begin + shared.map_or(0, Bytes::len);
        if bytes > RECORD_BYTES {
            return Err(StorageError::Invalid(format!(
                "an entry of {bytes} bytes is longer than the log's limit {RECORD_BYTES}"
            )));
        }
        let rest = shared.map_or(&[][..], |shared| shared);
        let checksum = seal_record(&mut self.own[begin..], rest, shard, &record);
        let slot = Slot { offset: self.length as u32, bytes: bytes as u32, checksum };
        self.effects.push(Effect { shard, record, slot });
        self.length += bytes;
        if let Some(shared) = shared {
            self.pieces.push(Piece::Own(self.loose..self.own.len()));
            self.pieces.push(Piece::Shared(shared.clone()));
            self.loose = self.own.len();
        }
        Ok(())
    }

    /// Writes the block at the file's cursor.
    pub(super) fn write(
        &mut self,
        mut file: impl Write,
        seal: &Seal,
        number: u64,
        synced: u64,
    ) -> io::Result<()> {
        let length = (self.length - BLOCK_HEADER_BYTES) as u32;
        let header = BlockHeader { length, number, synced }.encode(seal);
        self.own[..BLOCK_HEADER_BYTES].copy_from_slice(&header);
        if self.loose < self.own.len() {
            self.pieces.push(Piece::Own(self.loose..self.own.len()));
            self.loose = self.own.len();
        }
        let mut slices: Vec<IoSlice<'_>> = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Own(range) => IoSlice::new(&self.own[range.clone()]),
                Piece::Shared(bytes) => IoSlice::new(bytes),
            })
            .collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            match file.write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What the records do, once the block lies at `offset` in its file.
    pub(super) fn effects(&self, offset: u64) -> impl Iterator<Item = Effect> {
        self.effects.iter().map(move |Effect { shard, record, slot }| {
            let slot = Slot { offset: slot.offset + offset as u32, ..*slot };
            Effect { shard: *shard, record: *record, slot }
        })
    }
}

/// The record of a change that is no append.
pub(super) fn mark_of(change: &Change) -> Option<Record> {
    Some(match change {
        Change::Append(_) => return None,
        Change::Truncate(range) => Record::Truncate { from: range.start },
        Change::Vote(vote) => Record::Vote(*vote),
        Change::Committed(log_id) => Record::Committed(*log_id),
        Change::Purged(log_id) => Record::Purged(*log_id),
        Change::ForgetAll(upto) => Record::Forgotten { upto: *upto },
        Change::Generation(generation) => Record::Generation(*generation),
    })
}
