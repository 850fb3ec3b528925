//! The puncturable pseudo-random function that makes an epoch's init secrets forward secret.
//!
//! A binary tree of depth 8 * Nh. The root is the epoch's `parent_init_secret`; node secrets are derived as in RFC 9420 section 9
//! (`ExpandWithLabel(node, "tree", "left" / "right", Nh)`); the bits of the input, most significant bit first, choose the path
//! (0 = left); the output is `DeriveSecret(leaf, "pprf")`. Puncturing keeps the co-path and deletes the path, the root included.

mod encoding;
#[cfg(test)]
mod tests;

use openmls_traits::{crypto::OpenMlsCrypto, types::CryptoError};
use zeroize::ZeroizeOnDrop;

use super::{kdf::Kdf, limits::MAX_PUNCTURES, secret::Secret};

/// Why an input cannot be evaluated or punctured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PprfError {
    /// The input was punctured before: its output is gone for good.
    #[error("this input was punctured before: the commit was already processed and its init secret is gone")]
    Punctured,
    /// The input does not have KDF.Nh bytes.
    #[error("expected an input of {expected} bytes (KDF.Nh), got {got}")]
    InputLength {
        /// KDF.Nh, in bytes.
        expected: usize,
        /// What came, in bytes.
        got: usize,
    },
    /// The function has as many punctures as it may have.
    #[error("{most} commits were already processed in this state, which is as many as one state may have")]
    TooManyPunctures {
        /// [`MAX_PUNCTURES`].
        most: usize,
    },
    /// The key derivation failed.
    #[error("key derivation failed: {0}")]
    Crypto(#[from] CryptoError),
}

#[derive(Clone, PartialEq, Eq)]
enum Node {
    /// A leaf that was punctured.
    Punctured,
    /// A node whose secret is known, and with it everything below.
    Secret(Secret),
    /// A node that was on a punctured path: its secret is gone, its children go on by themselves.
    Inner(Box<[Node; 2]>),
}

/// The function, punctured or not. Secrets are zeroized when they are deleted or dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Pprf {
    nh: usize,
    root: Node,
}

/// Every secret in it is a [`Secret`].
impl ZeroizeOnDrop for Pprf {}

impl std::fmt::Debug for Pprf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pprf {{ nh: {}, punctures: {} }}", self.nh, self.punctures())
    }
}

impl Pprf {
    /// An unpunctured function. `root` has KDF.Nh bytes, between 1 and 255.
    pub fn new(root: Secret) -> Self {
        assert!((1..=255).contains(&root.len()), "KDF.Nh is at most 64 in any MLS ciphersuite");
        Pprf { nh: root.len(), root: Node::Secret(root) }
    }

    /// KDF.Nh, the size of inputs, node secrets and outputs in bytes.
    pub fn nh(&self) -> usize {
        self.nh
    }

    /// How many inputs were punctured.
    pub fn punctures(&self) -> usize {
        fn count(node: &Node) -> usize {
            match node {
                Node::Punctured => 1,
                Node::Secret(_) => 0,
                Node::Inner(children) => count(&children[0]) + count(&children[1]),
            }
        }
        count(&self.root)
    }

    /// The output for `input`. Changes nothing.
    pub fn evaluate<C: OpenMlsCrypto>(&self, kdf: &Kdf<'_, C>, input: &[u8]) -> Result<Secret, PprfError> {
        self.check_length(input)?;
        let (mut secret, depth) = self.deepest_secret(input)?;
        for level in depth..8 * self.nh {
            secret = child(kdf, &secret, bit(input, level))?;
        }
        Ok(kdf.derive_secret(secret.as_slice(), "pprf")?)
    }

    /// Deletes what is needed to evaluate `input`, and nothing else. On an error nothing has changed.
    pub fn puncture<C: OpenMlsCrypto>(&mut self, kdf: &Kdf<'_, C>, input: &[u8]) -> Result<(), PprfError> {
        self.check_length(input)?;
        let (mut secret, depth) = self.deepest_secret(input)?;
        if self.punctures() >= MAX_PUNCTURES {
            return Err(PprfError::TooManyPunctures { most: MAX_PUNCTURES });
        }
        let mut copath = Vec::with_capacity(8 * self.nh - depth);
        for level in depth..8 * self.nh {
            copath.push(child(kdf, &secret, 1 - bit(input, level))?);
            secret = child(kdf, &secret, bit(input, level))?;
        }
        let mut replacement = Node::Punctured;
        for (level, sibling) in (depth..8 * self.nh).zip(copath).rev() {
            replacement = match bit(input, level) {
                0 => Node::Inner(Box::new([replacement, Node::Secret(sibling)])),
                _ => Node::Inner(Box::new([Node::Secret(sibling), replacement])),
            };
        }
        let mut slot = &mut self.root;
        for level in 0..depth {
            match slot {
                Node::Inner(children) => slot = &mut children[bit(input, level)],
                // `deepest_secret` went through inner nodes down to `depth`.
                Node::Punctured | Node::Secret(_) => return Err(PprfError::Punctured),
            }
        }
        *slot = replacement;
        Ok(())
    }

    /// Whether `input` was punctured. False for inputs of the wrong length.
    pub fn is_punctured(&self, input: &[u8]) -> bool {
        self.check_length(input).is_ok() && self.deepest_secret(input).is_err()
    }

    /// The known secret that covers `input`, and its depth.
    fn deepest_secret(&self, input: &[u8]) -> Result<(Secret, usize), PprfError> {
        let mut node = &self.root;
        let mut depth = 0;
        loop {
            match node {
                Node::Punctured => return Err(PprfError::Punctured),
                Node::Secret(secret) => return Ok((secret.clone(), depth)),
                Node::Inner(children) => node = &children[bit(input, depth)],
            }
            depth += 1;
        }
    }

    fn check_length(&self, input: &[u8]) -> Result<(), PprfError> {
        if input.len() == self.nh {
            Ok(())
        } else {
            Err(PprfError::InputLength { expected: self.nh, got: input.len() })
        }
    }
}

/// The bit that chooses the child at `level`: most significant bit of the first byte first.
fn bit(input: &[u8], level: usize) -> usize {
    usize::from(input[level / 8] >> (7 - level % 8) & 1)
}

fn child<C: OpenMlsCrypto>(kdf: &Kdf<'_, C>, node: &Secret, bit: usize) -> Result<Secret, CryptoError> {
    let side: &[u8] = if bit == 0 { b"left" } else { b"right" };
    kdf.expand_with_label(node.as_slice(), "tree", side, kdf.nh())
}
