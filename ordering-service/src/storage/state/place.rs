//! Where the payload of an entry is. Payloads are written once, with the Raft log; rows refer to them.

use crate::storage::wire::{DecodeError, Put};

/// The two highest bits of the first 8 bytes say which it is; log indexes come nowhere near them.
const KINDS: u64 = 3 << 62;
const REPORT: u64 = 1 << 62;
const MARK: u64 = 2 << 62;
const PRUNED: u64 = 3 << 62;

/// Where the payload of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The submission at this log index.
    Submission { index: u64 },
    /// One of many in a report.
    Report(ReportedAt),
    /// In the row of a mark: the cluster itself wrote it.
    Mark,
    /// It was given up.
    Pruned,
}

/// An entry in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportedAt {
    /// Log index of the report.
    pub(crate) index: u64,
    /// Place in the report, from 0.
    pub(crate) position: u32,
}

impl Place {
    pub(crate) fn put(self, bytes: &mut Vec<u8>) {
        match self {
            Place::Submission { index } => bytes.put_int(index),
            Place::Report(ReportedAt { index, position }) => {
                bytes.put_int(index | REPORT);
                bytes.put_int32(position);
            }
            Place::Mark => bytes.put_int(MARK),
            Place::Pruned => bytes.put_int(PRUNED),
        }
    }

    /// Reads a place from the front, and gives what follows it.
    pub(crate) fn split(bytes: &[u8]) -> Result<(Place, &[u8]), DecodeError> {
        let short = |needed| DecodeError::Short { what: "the place of a payload", needed, left: bytes.len() };
        let (first, rest) = bytes.split_first_chunk().ok_or(short(8))?;
        let first = u64::from_be_bytes(*first);
        let index = first & !KINDS;
        match first & KINDS {
            0 => Ok((Place::Submission { index }, rest)),
            REPORT => {
                let (position, rest) = rest.split_first_chunk().ok_or(short(12))?;
                let position = u32::from_be_bytes(*position);
                Ok((Place::Report(ReportedAt { index, position }), rest))
            }
            MARK if index == 0 => Ok((Place::Mark, rest)),
            PRUNED if index == 0 => Ok((Place::Pruned, rest)),
            _ => Err(DecodeError::Value { what: "the place of a payload", got: first }),
        }
    }
}

impl ReportedAt {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        bytes.put_int(self.index);
        bytes.put_int32(self.position);
        bytes
    }

    pub(crate) fn decode(bytes: bytes::Bytes) -> Result<Self, DecodeError> {
        let mut fields = crate::storage::wire::Fields::new(bytes);
        let place = ReportedAt {
            index: fields.int("log index of a report")?,
            position: fields.int32("position in a report")?,
        };
        fields.end()?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_as_they_were_with_what_follows() {
        let reported = ReportedAt { index: 7, position: 1023 };
        let top = (1 << 62) - 1;
        for place in [Place::Submission { index: top }, Place::Report(reported), Place::Mark, Place::Pruned] {
            let mut bytes = Vec::new();
            place.put(&mut bytes);
            for cut in 0..bytes.len() {
                assert!(Place::split(&bytes[..cut]).is_err());
            }
            bytes.push(9);
            assert_eq!(Place::split(&bytes), Ok((place, &[9][..])));
        }
        assert!(Place::split(&[0xff; 12]).is_err());
        assert_eq!(ReportedAt::decode(reported.encode().into()), Ok(reported));
    }
}
