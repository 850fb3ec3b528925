//! The compact encoding of a PPRF: about Nh * (8 * Nh + 1) bytes a puncture.
//!
//! `version u8 = 1, nh u8, node`. A node is a tag and its content, in preorder:
//! 0 = a punctured leaf (at full depth only); 1 = a secret (nh bytes); 2 = a fork (left node, right node);
//! 3 = a chain: `levels u16`, the bits of the path packed most significant first, one co-path secret per level from the top, and
//! the node where the path ends. A chain stores the path of a puncture once and is always as long as it can be, so that one
//! function has one encoding.

use zeroize::Zeroizing;

use super::{Node, Pprf};
use crate::demls::{
    limits::MAX_PPRF_BYTES,
    secret::{Secret, SecretBuffer},
    wire::{DecodeError, Reader},
};

const VERSION: u8 = 1;
const PUNCTURED: u8 = 0;
const SECRET: u8 = 1;
const FORK: u8 = 2;
const CHAIN: u8 = 3;

impl Pprf {
    /// Encodes the function. The bytes are as secret as the function.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = SecretBuffer::with_capacity(self.nh * (8 * self.nh + 4) * self.punctures().max(1));
        out.push(VERSION);
        out.push(self.nh as u8);
        encode_node(&self.root, &mut out);
        out.into_bytes()
    }

    /// Reads what [`Pprf::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("PPRF", bytes);
        if bytes.len() > MAX_PPRF_BYTES {
            return Err(reader.error(format!("expected at most {MAX_PPRF_BYTES} bytes, got {}", bytes.len())));
        }
        match reader.byte()? {
            VERSION => {}
            other => return Err(reader.error(format!("expected version {VERSION}, got {other}"))),
        }
        let nh = usize::from(reader.byte()?);
        if nh == 0 {
            return Err(reader.error("expected secrets of at least 1 byte, got 0"));
        }
        let root = decode_node(&mut reader, nh, 0)?;
        reader.finish()?;
        let pprf = Pprf { nh, root };
        if pprf.encode().as_slice() != bytes {
            return Err(DecodeError::new(
                "PPRF",
                "this is not the one encoding of the function that it describes",
            ));
        }
        Ok(pprf)
    }
}

/// The side the path takes at an inner node of a chain: exactly one child is a known secret.
fn chain_side(children: &[Node; 2]) -> Option<(usize, &Secret)> {
    match children {
        [Node::Secret(_), Node::Secret(_)] => None,
        [Node::Secret(sibling), _] => Some((1, sibling)),
        [_, Node::Secret(sibling)] => Some((0, sibling)),
        _ => None,
    }
}

fn encode_node(node: &Node, out: &mut SecretBuffer) {
    match node {
        Node::Punctured => out.push(PUNCTURED),
        Node::Secret(secret) => {
            out.push(SECRET);
            out.extend(secret.as_slice());
        }
        Node::Inner(children) if chain_side(children).is_none() => {
            out.push(FORK);
            encode_node(&children[0], out);
            encode_node(&children[1], out);
        }
        Node::Inner(_) => encode_chain(node, out),
    }
}

fn encode_chain(top: &Node, out: &mut SecretBuffer) {
    let (mut end, mut path, mut siblings) = (top, Vec::new(), Vec::new());
    while let Node::Inner(children) = end {
        let Some((side, sibling)) = chain_side(children) else { break };
        path.push(side as u8);
        siblings.push(sibling);
        end = &children[side];
    }
    out.push(CHAIN);
    out.extend(&(path.len() as u16).to_be_bytes());
    for bits in path.chunks(8) {
        out.push(bits.iter().enumerate().fold(0, |byte, (position, bit)| byte | bit << (7 - position)));
    }
    for sibling in siblings {
        out.extend(sibling.as_slice());
    }
    encode_node(end, out);
}

/// Recursion is bounded by the depth of the tree: at most 8 * 255 levels.
fn decode_node(reader: &mut Reader<'_>, nh: usize, depth: usize) -> Result<Node, DecodeError> {
    let full_depth = 8 * nh;
    let tag = reader.byte()?;
    match tag {
        PUNCTURED if depth == full_depth => Ok(Node::Punctured),
        PUNCTURED => {
            Err(reader.error(format!("a punctured leaf at depth {depth}, expected at {full_depth} only")))
        }
        SECRET => Ok(Node::Secret(Secret::from_slice(reader.take(nh)?))),
        FORK | CHAIN if depth >= full_depth => {
            Err(reader.error(format!("an inner node at depth {depth}, expected above {full_depth} only")))
        }
        FORK => {
            let left = decode_node(reader, nh, depth + 1)?;
            let right = decode_node(reader, nh, depth + 1)?;
            Ok(Node::Inner(Box::new([left, right])))
        }
        CHAIN => {
            let levels = reader.take(2)?;
            let levels = usize::from(u16::from_be_bytes([levels[0], levels[1]]));
            if levels == 0 || levels > full_depth - depth {
                let most = full_depth - depth;
                return Err(reader.error(format!("a chain of {levels} levels, expected 1 to {most}")));
            }
            let path = reader.take(levels.div_ceil(8))?;
            let siblings = reader.take(levels * nh)?;
            let mut node = decode_node(reader, nh, depth + levels)?;
            for level in (0..levels).rev() {
                let sibling = Node::Secret(Secret::from_slice(&siblings[level * nh..(level + 1) * nh]));
                node = Node::Inner(Box::new(match super::bit(path, level) {
                    0 => [node, sibling],
                    _ => [sibling, node],
                }));
            }
            Ok(node)
        }
        other => Err(reader.error(format!("expected a node tag of 0 to 3, got {other}"))),
    }
}
