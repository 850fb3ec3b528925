//! Bytes that no decent client sends.

use bytes::{BufMut, Bytes};
use rand::{Rng, RngCore};

/// The bad messages that are always tried.
pub fn classics() -> Vec<Bytes> {
    let mut huge_length = vec![0x0a];
    huge_length.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let mut deep = Vec::new();
    for _ in 0..200 {
        let mut outer = vec![0x0a];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.append(&mut deep);
        deep = outer;
    }
    [
        Vec::new(),
        vec![0x00],
        vec![0xff],
        vec![0xff; 64],
        // A field with its type but without its value; a length that goes beyond the end.
        vec![0x0a],
        vec![0x0a, 0x05, 0x01],
        huge_length,
        // A group that is never closed, and field number 0.
        vec![0x0b],
        vec![0x02, 0x01, 0x00],
        // Field 1 as every wire type.
        vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        vec![0x09, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![0x0d, 1, 2, 3, 4],
        vec![0x0a, 0x00],
        deep,
        // Larger than any message may be.
        vec![0x0a; 17 * 1024 * 1024],
    ]
    .map(Bytes::from)
    .to_vec()
}

/// Random bytes that look like a protobuf message: known field numbers, plausible types, wild values. Numbers are never small, so that
/// nothing that exists is named by accident.
pub fn plausible(rng: &mut impl RngCore, depth: u32) -> Bytes {
    let mut message = Vec::new();
    for _ in 0..rng.random_range(0..6) {
        let field = rng.random_range(1..12u64);
        match rng.random_range(0..10) {
            0..4 => {
                prost::encoding::encode_varint(field << 3, &mut message);
                let wild = [1000 + u64::from(rng.next_u32()), 1 << 32, 1 << 63, u64::MAX];
                prost::encoding::encode_varint(wild[rng.random_range(0..wild.len())], &mut message);
            }
            4..7 if depth > 0 => {
                let inner = plausible(rng, depth - 1);
                put_bytes(field, &inner, &mut message);
            }
            9 => {
                prost::encoding::encode_varint(field << 3 | 5, &mut message);
                message.put_u32(rng.next_u32());
            }
            _ => {
                let lengths = [0, 1, 16, 32, 33, 200, 5000];
                let mut inner = vec![0; lengths[rng.random_range(0..lengths.len())]];
                rng.fill_bytes(&mut inner);
                put_bytes(field, &inner, &mut message);
            }
        }
    }
    message.into()
}

fn put_bytes(field: u64, bytes: &[u8], message: &mut Vec<u8>) {
    prost::encoding::encode_varint(field << 3 | 2, message);
    prost::encoding::encode_varint(bytes.len() as u64, message);
    message.put_slice(bytes);
}

/// A good message with one thing wrong: cut off, a bit flipped, or with something behind it.
pub fn spoiled(good: &[u8], rng: &mut impl RngCore) -> Bytes {
    let mut message = good.to_vec();
    match rng.random_range(0..3) {
        0 => message.truncate(rng.random_range(0..=good.len())),
        1 if !good.is_empty() => {
            let at = rng.random_range(0..good.len());
            message[at] ^= 1 << rng.random_range(0..8);
        }
        _ => message.push(rng.random()),
    }
    message.into()
}
