//! The compact binary form of what is stored: a version byte, then fields. Integers are LEB128, byte strings carry their length.

use bytes::Bytes;

/// Stored bytes can not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a version that this one does not know.
    #[error(
        "{what} has format version {got}, this server reads {expected}: use the version that wrote it, or a newer one"
    )]
    Version {
        /// What was being read.
        what: &'static str,
        /// The version that can be read.
        expected: u8,
        /// The version that came.
        got: u8,
    },
    /// The bytes end too early.
    #[error("{field} is cut off: needed {needed} more bytes, {left} are left; the storage is damaged")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A field has an impossible value.
    #[error("{field} must be {expected}, got {got}; the storage is damaged")]
    Value {
        /// The field being read.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: u64,
    },
    /// Bytes follow after the last field.
    #[error("{what} has {left} bytes too many; the storage is damaged")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// Bytes that are left.
        left: usize,
    },
}

/// Bytes that nearly everything fits into, so that a buffer does not grow bit by bit.
const ROOM: usize = 192;

pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(version: u8) -> Self {
        let mut bytes = Vec::with_capacity(ROOM);
        bytes.push(version);
        Writer(bytes)
    }

    pub(crate) fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn int(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn fixed(self, bytes: &[u8; 32]) -> Self {
        self.array(bytes)
    }

    pub(crate) fn array<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut writer = self.int(bytes.len() as u64);
        writer.0.extend_from_slice(bytes);
        writer
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, version: u8, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        match reader.byte(what)? {
            got if got == version => Ok(reader),
            got => Err(DecodeError::Version { what, expected: version, got }),
        }
    }

    fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.0.split_at_checked(count) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated { field, needed: count, left: self.0.len() }),
        }
    }

    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(field, 1)?[0])
    }

    /// An integer in its shortest form: one value has one encoding.
    pub(crate) fn int(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(field)?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Value { field, expected: "a 64-bit integer in its shortest form", got: value })
    }

    /// An integer of at most `max`.
    pub(crate) fn int_to(
        &mut self,
        field: &'static str,
        max: u64,
        expected: &'static str,
    ) -> Result<u64, DecodeError> {
        match self.int(field)? {
            value if value <= max => Ok(value),
            got => Err(DecodeError::Value { field, expected, got }),
        }
    }

    pub(crate) fn fixed(&mut self, field: &'static str) -> Result<[u8; 32], DecodeError> {
        self.array(field)
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn bytes(&mut self, field: &'static str, max: usize) -> Result<Bytes, DecodeError> {
        let length = self.int(field)?;
        if length > max as u64 {
            return Err(DecodeError::Value { field, expected: "a length within its limit", got: length });
        }
        Ok(Bytes::copy_from_slice(self.take(field, length as usize)?))
    }

    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { what, left }),
        }
    }
}
