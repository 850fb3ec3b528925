//! A compact form of the JSON that OpenMLS' values are encoded as.
//!
//! Most of it is byte strings written as `[12,255,0,...]`, three and a half bytes for one. Packed, a byte string is itself, and
//! everything else is copied. Packing knows nothing about the values, works on any bytes and is undone exactly: a run is
//! `number = 2 * length + kind` and its bytes; kind 1 is a list of byte values, kind 0 is text as it was.

use zeroize::Zeroizing;

use crate::demls::{
    limits::MAX_VALUE_BYTES,
    secret::SecretBuffer,
    wire::{DecodeError, Reader},
};

/// Shortest list that is worth a run of its own.
const MIN_LIST: usize = 4;

/// Longest run, in bytes: lengths are numbers below 2^30, and one bit says the kind.
const MAX_RUN: usize = 1 << 28;

/// Packs a value.
pub fn pack(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = SecretBuffer::with_capacity(value.len() / 2 + 64);
    let (mut text_start, mut position) = (0, 0);
    while position < value.len() {
        match value[position] {
            b'[' => match byte_list(&value[position..]) {
                Some((list, length)) => {
                    text(&mut out, &value[text_start..position]);
                    run(&mut out, &list, 1);
                    position += length;
                    text_start = position;
                }
                None => position += 1,
            },
            _ => position += 1,
        }
    }
    text(&mut out, &value[text_start..]);
    out.into_bytes()
}

/// Undoes [`pack`]. The result is bounded by [`MAX_VALUE_BYTES`].
pub fn unpack(packed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
    let mut reader = Reader::new("packed value", packed);
    let mut out = SecretBuffer::with_capacity(packed.len() * 3);
    let mut length = 0;
    while !reader.is_empty() {
        let header = reader.number()?;
        let bytes = reader.take(header >> 1)?;
        length += if header & 1 == 1 { 4 * bytes.len() } else { bytes.len() };
        if length > MAX_VALUE_BYTES {
            return Err(reader.error(format!("expected at most {MAX_VALUE_BYTES} bytes")));
        }
        if header & 1 == 0 {
            out.extend(bytes);
            continue;
        }
        for (position, byte) in bytes.iter().enumerate() {
            out.push(if position == 0 { b'[' } else { b',' });
            if *byte >= 100 {
                out.push(b'0' + byte / 100);
            }
            if *byte >= 10 {
                out.push(b'0' + byte / 10 % 10);
            }
            out.push(b'0' + byte % 10);
        }
        out.push(b']');
    }
    Ok(out.into_bytes())
}

fn text(out: &mut SecretBuffer, bytes: &[u8]) {
    bytes.chunks(MAX_RUN).for_each(|bytes| run(out, bytes, 0));
}

fn run(out: &mut SecretBuffer, bytes: &[u8], kind: usize) {
    out.number(bytes.len() << 1 | kind);
    out.extend(bytes);
}

/// The bytes of a list at the front of `text`, written exactly as [`unpack`] writes it, and how long it is in the text.
fn byte_list(text: &[u8]) -> Option<(Zeroizing<Vec<u8>>, usize)> {
    // Collected without ever growing, so that no copy of a secret stays behind.
    let end = text.iter().take(4 * MAX_RUN).position(|byte| *byte == b']')?;
    let mut list = Zeroizing::new(Vec::with_capacity(end / 2 + 1));
    for number in text[1..end].split(|byte| *byte == b',') {
        let canonical = match number {
            [b'0'] => true,
            [b'1'..=b'9', rest @ ..] => rest.len() < 3 && rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        if !canonical {
            return None;
        }
        let value = number.iter().fold(0u16, |value, digit| 10 * value + u16::from(digit - b'0'));
        list.push(u8::try_from(value).ok()?);
    }
    (MIN_LIST..=MAX_RUN).contains(&list.len()).then_some((list, end + 1))
}
