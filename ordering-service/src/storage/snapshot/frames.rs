//! The byte stream of a snapshot: a header, rows, an end with a count and a checksum. Chunks may cut it anywhere.

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    raft::types::ShardId,
    storage::{
        error::StorageError,
        limits::SNAPSHOT_ROW_BYTES,
        wire::{DecodeError, Fields, Put},
    },
};

/// Version of the stream. A receiver refuses any other.
const VERSION: u32 = 1;

const HEADER: u8 = 1;
const STATE: u8 = 2;
const PAYLOAD: u8 = 3;
const END: u8 = 4;

/// Tag and length in front of every frame.
const PREFIX_BYTES: usize = 5;

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Whose state it is, and up to where: an encoded position.
    Header { shard: ShardId, position: Bytes },
    /// A row of the state.
    State { key: Bytes, value: Bytes },
    /// A log entry that a row refers to.
    Payload { index: u64, entry: Bytes },
}

/// Makes a snapshot's bytes.
pub(crate) struct FrameWriter {
    bytes: BytesMut,
    checksum: crc32fast::Hasher,
    rows: u64,
}

impl FrameWriter {
    pub(crate) fn new(shard: ShardId, position: &[u8]) -> Self {
        let mut writer = FrameWriter { bytes: BytesMut::new(), checksum: crc32fast::Hasher::new(), rows: 0 };
        writer.frame(HEADER, &[&VERSION.to_be_bytes(), &shard.to_be_bytes(), position]);
        writer
    }

    pub(crate) fn state(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        self.frame(STATE, &[&(key.len() as u32).to_be_bytes(), key, value]);
    }

    pub(crate) fn payload(&mut self, index: u64, entry: &[u8]) {
        self.rows += 1;
        self.frame(PAYLOAD, &[&index.to_be_bytes(), entry]);
    }

    /// Bytes that wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes what has gathered.
    pub(crate) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// The last bytes.
    pub(crate) fn end(mut self) -> Bytes {
        let (rows, checksum) = (self.rows, self.checksum.clone().finalize());
        self.frame(END, &[&rows.to_be_bytes(), &checksum.to_be_bytes()]);
        self.bytes.freeze()
    }

    fn frame(&mut self, tag: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        prefix.put_byte(tag);
        prefix.put_int32(length as u32);
        for part in [&prefix[..]].iter().chain(parts) {
            self.checksum.update(part);
            self.bytes.extend_from_slice(part);
        }
    }
}

/// Reads a snapshot's bytes.
pub(crate) struct FrameReader {
    bytes: BytesMut,
    checksum: crc32fast::Hasher,
    rows: u64,
    ended: bool,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        FrameReader { bytes: BytesMut::new(), checksum: crc32fast::Hasher::new(), rows: 0, ended: false }
    }

    /// Takes in the next chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// The next frame, if all of it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, StorageError> {
        if self.ended && !self.bytes.is_empty() {
            return Err(bad("there are bytes after its end"));
        }
        let Some(prefix) = self.bytes.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let (tag, length) =
            (prefix[0], u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize);
        if length > SNAPSHOT_ROW_BYTES {
            return Err(bad(format!(
                "a row of {length} bytes is longer than the limit {SNAPSHOT_ROW_BYTES}"
            )));
        }
        if self.bytes.len() < PREFIX_BYTES + length {
            return Ok(None);
        }
        let checksum = self.checksum.clone();
        let frame = self.bytes.split_to(PREFIX_BYTES + length).freeze();
        self.checksum.update(&frame);
        let body = frame.slice(PREFIX_BYTES..);
        match tag {
            END => self.end(body, checksum.finalize()).map(|()| None),
            tag => self.row(tag, body).map(Some).map_err(bad),
        }
    }

    /// Checks that the whole snapshot has come.
    pub(crate) fn finish(self) -> Result<(), StorageError> {
        match self.ended && self.bytes.is_empty() {
            true => Ok(()),
            false => Err(bad(format!("it ends early, after {} rows", self.rows))),
        }
    }

    fn row(&mut self, tag: u8, mut body: Bytes) -> Result<Frame, DecodeError> {
        let mut fields = Fields::new(body.clone());
        Ok(match tag {
            HEADER => {
                let version = fields.int32("version")?;
                if version != VERSION {
                    return Err(DecodeError::Value { what: "version of the snapshot", got: version.into() });
                }
                Frame::Header { shard: fields.int32("shard")?, position: fields.rest() }
            }
            STATE => {
                self.rows += 1;
                let key = fields.string("key")?;
                body.advance(4 + key.len());
                Frame::State { key, value: body }
            }
            PAYLOAD => {
                self.rows += 1;
                Frame::Payload { index: fields.int("log index")?, entry: fields.rest() }
            }
            got => return Err(DecodeError::Value { what: "kind of frame", got: got.into() }),
        })
    }

    fn end(&mut self, body: Bytes, found: u32) -> Result<(), StorageError> {
        let mut fields = Fields::new(body);
        let rows = fields.int("rows").map_err(bad)?;
        let checksum = fields.int32("checksum").map_err(bad)?;
        fields.end().map_err(bad)?;
        if rows != self.rows || checksum != found {
            return Err(bad(format!("{rows} rows were sent, {} came, or their checksum differs", self.rows)));
        }
        self.ended = true;
        Ok(())
    }
}

fn bad(what: impl ToString) -> StorageError {
    StorageError::BadSnapshot(what.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Vec<u8>, Vec<Frame>) {
        let mut writer = FrameWriter::new(2, b"position");
        let mut bytes = Vec::new();
        writer.state(b"key", b"value");
        writer.payload(7, b"entry");
        bytes.extend_from_slice(&writer.take());
        writer.state(b"", b"");
        bytes.extend_from_slice(&writer.end());
        let frames = vec![
            Frame::Header { shard: 2, position: Bytes::from_static(b"position") },
            Frame::State { key: Bytes::from_static(b"key"), value: Bytes::from_static(b"value") },
            Frame::Payload { index: 7, entry: Bytes::from_static(b"entry") },
            Frame::State { key: Bytes::new(), value: Bytes::new() },
        ];
        (bytes, frames)
    }

    fn read(chunks: &[&[u8]]) -> Result<Vec<Frame>, StorageError> {
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(frame) = reader.next()? {
                frames.push(frame);
            }
        }
        // Bytes after the end are noticed with the next look.
        reader.next()?;
        reader.finish().map(|()| frames)
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let (bytes, frames) = sample();
        for at in 0..=bytes.len() {
            assert_eq!(read(&[&bytes[..at], &bytes[at..]]).unwrap(), frames);
        }
    }

    #[test]
    fn a_cut_flipped_or_longer_stream_is_refused() {
        let (bytes, _) = sample();
        for at in 0..bytes.len() {
            assert!(read(&[&bytes[..at]]).is_err(), "cut at {at}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(read(&[&flipped]).is_err(), "flipped at {at}");
        }
        assert!(read(&[&bytes, b"x"]).is_err());
    }

    proptest! {
        #[test]
        fn bad_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&[&bytes]).is_err());
        }
    }
}
