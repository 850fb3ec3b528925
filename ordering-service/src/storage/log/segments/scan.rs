//! Reads a whole segment, block by block. Pure.

use bytes::Bytes;

use super::{
    block::Effect,
    content::Content,
    format::{BLOCK_HEADER_BYTES, BlockHeader, Header, Record, Seal, read_block},
};
use crate::storage::wire::DecodeError;

/// What a scan has come to.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) header: Header,
    /// Bytes up to behind the last whole block.
    pub(super) end: usize,
    /// Number of the last whole block.
    pub(super) number: u64,
    /// That block ends the segment.
    pub(super) ended: bool,
    /// What is behind it is no block.
    pub(super) tear: Option<Tear>,
}

/// The place where a segment stops making sense.
#[derive(Debug)]
pub(super) struct Tear {
    pub(super) why: DecodeError,
    /// A later block knows so many blocks to be synced.
    pub(super) newest_synced: Option<u64>,
}

/// Reads all blocks. An error is one of the header, without which nothing has a meaning.
pub(super) fn scan(
    seal: &Seal,
    file: &Bytes,
    mut each: impl FnMut(&Header, Effect),
) -> Result<Scanned, Tear> {
    let torn = |why, at| Tear { why, newest_synced: BlockHeader::newest_synced(seal, file, at) };
    let (header, mut end) = Header::decode(seal, file).map_err(|why| torn(why, 0))?;
    let (mut number, mut ended) = (header.base, false);
    let mut tear = None;
    while end < file.len() {
        let block = read_block(seal, file, end).and_then(|(block, found)| match block.number {
            next if next == number + 1 && !ended => Ok((block, found)),
            got => Err(DecodeError::Value { what: "number of a block", got }),
        });
        match block {
            Ok((block, found)) => {
                (number, ended) = (block.number, block.is_end());
                for found in found {
                    let (shard, record, slot) = (found.shard, found.record, found.slot);
                    each(&header, Effect { shard, record, slot });
                }
                end += BLOCK_HEADER_BYTES + block.length as usize;
            }
            Err(why) => {
                tear = Some(torn(why, end));
                break;
            }
        }
    }
    Ok(Scanned { header, end, number, ended, tear })
}

/// The rows of a segment that is written no more, all of which must be there and whole.
pub(super) fn scan_closed(seal: &Seal, file: &Bytes) -> Result<Content, DecodeError> {
    let mut content = Content::default();
    let scanned = scan(seal, file, |header, effect| {
        content.rewritten = header.rewritten;
        match effect.record {
            Record::Entry { index } => {
                content.append(effect.shard, index, effect.slot);
            }
            Record::Truncate { from } => content.truncate(effect.shard, from),
            _ => {}
        }
    });
    match scanned {
        Ok(Scanned { tear: Some(tear), .. }) | Err(tear) => Err(tear.why),
        Ok(Scanned { header, ended, end, .. }) if header.has_end && !ended => Err(DecodeError::Short {
            what: "end of the segment",
            needed: BLOCK_HEADER_BYTES,
            left: file.len() - end,
        }),
        Ok(_) => Ok(content),
    }
}
