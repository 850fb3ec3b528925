//! Secret bytes that are overwritten when they are dropped and never printed.

use std::{fmt, io};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Secret bytes: zeroized on drop, `Debug` shows nothing but the length.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Copies `bytes`. The caller stays responsible for the original.
    pub fn from_slice(bytes: &[u8]) -> Self {
        Secret(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Secret(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// A growing buffer that leaves no copy of its content behind when it moves to a larger allocation.
#[derive(Default, ZeroizeOnDrop)]
pub(crate) struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        SecretBuffer(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Vec::with_capacity(needed.max(self.0.capacity() * 2).max(64));
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = Zeroizing::new(larger);
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    pub(crate) fn into_bytes(mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.0)
    }
}

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compiles only for what is overwritten when it is dropped.
#[cfg(test)]
pub(crate) fn is_wiped<T: ZeroizeOnDrop>(_: &T) {}
