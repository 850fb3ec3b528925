//! The pieces that stored rows are made of: big-endian integers and byte strings with a length.

use bytes::{Buf, Bytes};

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("{what} needs {needed} bytes, but only {left} are left")]
    Short {
        /// The field.
        what: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A field has a value that it can not have.
    #[error("{what} can not be {got}")]
    Value {
        /// The field.
        what: &'static str,
        /// Its value.
        got: u64,
    },
    /// There is more than there should be.
    #[error("{left} bytes too many")]
    Trailing {
        /// Bytes after the last field.
        left: usize,
    },
}

/// Writes fields one after the other.
pub trait Put {
    /// One byte.
    fn put_byte(&mut self, value: u8);
    /// 4 bytes.
    fn put_int32(&mut self, value: u32);
    /// 8 bytes.
    fn put_int(&mut self, value: u64);
    /// A length of 4 bytes, then the bytes.
    fn put_string(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_byte(&mut self, value: u8) {
        self.push(value);
    }

    fn put_int32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_int(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_string(&mut self, bytes: &[u8]) {
        // No byte string comes near 4 GiB: the longest is a command, which is bounded to a few MiB.
        self.put_int32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.extend_from_slice(bytes);
    }
}

/// Reads fields one after the other. Byte strings are slices of the input, not copies.
#[derive(Debug)]
pub struct Fields(Bytes);

impl Fields {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Fields(bytes)
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(what, 1)?;
        Ok(self.0.get_u8())
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.byte(what)? {
            0 => Ok(false),
            1 => Ok(true),
            got => Err(DecodeError::Value { what, got: got.into() }),
        }
    }

    /// 4 bytes.
    pub fn int32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(what, 4)?;
        Ok(self.0.get_u32())
    }

    /// 8 bytes.
    pub fn int(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(what, 8)?;
        Ok(self.0.get_u64())
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        self.need(what, N)?;
        let mut array = [0; N];
        self.0.copy_to_slice(&mut array);
        Ok(array)
    }

    /// A length of 4 bytes, then the bytes.
    pub fn string(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.int32(what)? as usize;
        self.need(what, len)?;
        Ok(self.0.split_to(len))
    }

    /// A byte string that must be UTF-8.
    pub fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let bytes = self.string(what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Value { what, got: bytes.len() as u64 })
    }

    /// How many items follow. Refuses more than the bytes left could hold, so that nothing is allocated for a lie.
    pub fn count(&mut self, what: &'static str, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.int32(what)? as usize;
        self.need(what, count.saturating_mul(item_bytes))?;
        Ok(count)
    }

    /// Everything that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }

    fn need(&self, what: &'static str, needed: usize) -> Result<(), DecodeError> {
        match self.0.len() {
            left if left < needed => Err(DecodeError::Short { what, needed, left }),
            _ => Ok(()),
        }
    }
}
