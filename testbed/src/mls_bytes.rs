//! MLSMessages (RFC 9420 section 6) written by hand: well-formed for whoever only reads their framing, without any cryptography.

use bytes::{BufMut, Bytes};

/// Content types of a PrivateMessage (RFC 9420 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// An application message.
    Application = 1,
    /// A proposal.
    Proposal = 2,
    /// A commit.
    Commit = 3,
}

/// A PrivateMessage with `ciphertext`. Nobody can decrypt it.
pub fn private_message(group_id: &[u8], epoch: u64, content: ContentType, ciphertext: &[u8]) -> Bytes {
    let mut message = header(2);
    put_vector(&mut message, group_id);
    message.put_u64(epoch);
    message.put_u8(content as u8);
    put_vector(&mut message, b"");
    put_vector(&mut message, &[7; 28]);
    put_vector(&mut message, ciphertext);
    message.into()
}

/// A GroupInfo without a ratchet tree (RFC 9420 section 12.4.3). Its signature is none.
pub fn group_info(group_id: &[u8], epoch: u64) -> Bytes {
    let mut message = header(4);
    message.put_u16(1);
    message.put_u16(1);
    put_vector(&mut message, group_id);
    message.put_u64(epoch);
    put_vector(&mut message, &[1; 32]);
    put_vector(&mut message, &[2; 32]);
    put_vector(&mut message, b"");
    put_vector(&mut message, b"");
    put_vector(&mut message, &[3; 32]);
    message.put_u32(0);
    put_vector(&mut message, &[4; 64]);
    message.into()
}

/// The version and the wire format in front of every MLSMessage.
pub fn header(wire_format: u16) -> Vec<u8> {
    let mut message = Vec::new();
    message.put_u16(1);
    message.put_u16(wire_format);
    message
}

/// A vector with its length in front (RFC 9420 section 2.1.2).
fn put_vector(message: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..64 => message.put_u8(length as u8),
        length @ 64..16384 => message.put_u16(0x4000 | length as u16),
        length => message
            .put_u32(0x8000_0000 | u32::try_from(length).expect("a test message is shorter than 4 GiB")),
    }
    message.put_slice(bytes);
}
