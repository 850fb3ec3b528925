//! Cutting a value into chunks where its content says so, so that values that are alike share most of their chunks.

use sha2::{Digest, Sha256};

use crate::demls::limits::{CHUNK_AVERAGE_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES};

/// Names the content of a chunk.
pub type ChunkHash = [u8; 32];

/// The hash of a chunk. It is only ever kept in memory.
pub fn hash(chunk: &[u8]) -> ChunkHash {
    Sha256::digest(chunk).into()
}

/// One random-looking number per byte value, for the rolling hash.
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state: u64 = 0;
    let mut index = 0;
    while index < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[index] = mixed ^ mixed >> 31;
        index += 1;
    }
    table
};

/// The top bits of the rolling hash, which depend on the last 64 bytes.
const MASK: u64 = !(u64::MAX >> CHUNK_AVERAGE_BYTES.ilog2());

/// Cuts `bytes` into chunks of [`CHUNK_MIN_BYTES`] to [`CHUNK_MAX_BYTES`]; only the last may be shorter.
pub fn cut(bytes: &[u8]) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(first_cut(rest));
        chunks.push(chunk);
        rest = after;
    }
    chunks
}

fn first_cut(bytes: &[u8]) -> usize {
    let mut rolling: u64 = 0;
    for (position, byte) in bytes.iter().enumerate().take(CHUNK_MAX_BYTES) {
        rolling = (rolling << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if position + 1 >= CHUNK_MIN_BYTES && rolling & MASK == 0 {
            return position + 1;
        }
    }
    bytes.len().min(CHUNK_MAX_BYTES)
}
