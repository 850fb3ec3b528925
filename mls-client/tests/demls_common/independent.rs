//! A second derivation of everything DeMLS derives, straight from HKDF: no code is shared with the implementation.
#![allow(dead_code, unreachable_pub)]

use hkdf::Hkdf;
use sha2::Sha256;

/// `opaque bytes<V>` (RFC 9420 section 2.1.2), for lengths that occur here.
fn vector(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len();
    let mut out = if length < 64 {
        vec![length as u8]
    } else if length < 16384 {
        vec![0x40 | (length >> 8) as u8, length as u8]
    } else {
        vec![0x80 | (length >> 24) as u8, (length >> 16) as u8, (length >> 8) as u8, length as u8]
    };
    out.extend(bytes);
    out
}

pub fn extract(salt: &[u8], ikm: &[u8]) -> Vec<u8> {
    Hkdf::<Sha256>::extract(Some(salt), ikm).0.to_vec()
}

pub fn expand_with_label(secret: &[u8], label: &str, context: &[u8]) -> Vec<u8> {
    let mut info = vec![0, 32];
    info.extend(vector(format!("MLS 1.0 {label}").as_bytes()));
    info.extend(vector(context));
    let mut out = vec![0; 32];
    Hkdf::<Sha256>::from_prk(secret).unwrap().expand(&info, &mut out).unwrap();
    out
}

pub fn derive_secret(secret: &[u8], label: &str) -> Vec<u8> {
    expand_with_label(secret, label, b"")
}

/// The bits of an input as '0' and '1', most significant first.
pub fn bits(input: &[u8]) -> String {
    input.iter().map(|byte| format!("{byte:08b}")).collect()
}

/// The secret of the node that is reached from the root by a path of '0' (left) and '1' (right).
pub fn node(root: &[u8], path: &str) -> Vec<u8> {
    path.chars().fold(root.to_vec(), |secret, side| {
        expand_with_label(&secret, "tree", if side == '0' { b"left" } else { b"right" })
    })
}

/// Every secret on the path of an input: from the root to the leaf, and the output last.
pub fn path(root: &[u8], input: &[u8]) -> Vec<Vec<u8>> {
    let mut secrets = vec![root.to_vec()];
    for side in bits(input).chars() {
        secrets.push(node(&secrets[secrets.len() - 1], &side.to_string()));
    }
    secrets.push(derive_secret(&secrets[secrets.len() - 1], "pprf"));
    secrets
}

/// The co-path of an input, from the top.
pub fn copath(root: &[u8], input: &[u8]) -> Vec<Vec<u8>> {
    let path = path(root, input);
    let other = |side| if side == '0' { "1" } else { "0" };
    bits(input).chars().zip(&path).map(|(side, parent)| node(parent, other(side))).collect()
}

pub fn output(root: &[u8], input: &[u8]) -> Vec<u8> {
    path(root, input).pop().unwrap()
}
