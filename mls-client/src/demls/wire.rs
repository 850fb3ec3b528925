//! Reading and writing of our own byte formats: fixed fields and the variable-length vectors of RFC 9420 section 2.1.2.

use super::secret::SecretBuffer;

/// Bytes that were expected to be one of our encodings are not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be decoded: {reason}")]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// What is wrong with it: what was expected and what came.
    pub reason: String,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, reason: impl Into<String>) -> Self {
        DecodeError { what, reason: reason.into() }
    }
}

/// Largest length that a variable-length vector can have: 2^30 - 1.
const MAX_VECTOR_BYTES: usize = (1 << 30) - 1;

impl SecretBuffer {
    /// Writes a number as RFC 9420 section 2.1.2 writes lengths. Numbers above 2^30 - 1 do not fit; lengths here never reach that.
    pub(crate) fn number(&mut self, value: usize) {
        assert!(value <= MAX_VECTOR_BYTES, "lengths in these formats are bounded far below 2^30");
        match value {
            0..=0x3f => self.push(value as u8),
            0x40..=0x3fff => self.extend(&(value as u16 | 0x4000).to_be_bytes()),
            _ => self.extend(&(value as u32 | 0x8000_0000).to_be_bytes()),
        }
    }

    /// Writes `opaque bytes<V>`.
    pub(crate) fn vector(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.extend(bytes);
    }

    /// Writes `optional<opaque<V>>`.
    pub(crate) fn optional(&mut self, bytes: Option<&[u8]>) {
        self.push(bytes.is_some() as u8);
        if let Some(bytes) = bytes {
            self.vector(bytes);
        }
    }
}

/// Takes fields off the front of a byte string. Every failure names what was being read.
pub(crate) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { what, rest: bytes }
    }

    pub(crate) fn error(&self, reason: impl Into<String>) -> DecodeError {
        DecodeError::new(self.what, reason)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        if bytes > self.rest.len() {
            return Err(self.error(format!("expected {bytes} more bytes, got {}", self.rest.len())));
        }
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// Reads a number written as RFC 9420 section 2.1.2 writes lengths, in its shortest form only.
    pub(crate) fn number(&mut self) -> Result<usize, DecodeError> {
        let first = self.byte()?;
        let (length, smallest) = match first >> 6 {
            0 => (1, 0),
            1 => (2, 0x40),
            2 => (4, 0x4000),
            _ => return Err(self.error("a length that starts with the bits 11, which RFC 9420 does not use")),
        };
        let mut value = usize::from(first & 0x3f);
        for byte in self.take(length - 1)? {
            value = value << 8 | usize::from(*byte);
        }
        if value < smallest {
            return Err(self.error(format!("the length {value} is not in its shortest form")));
        }
        Ok(value)
    }

    pub(crate) fn vector(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        self.take(length)
    }

    pub(crate) fn optional(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.vector().map(Some),
            other => Err(self.error(format!("expected 0 or 1 for an optional field, got {other}"))),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.error(format!("expected the end, got {extra} more bytes"))),
        }
    }
}
