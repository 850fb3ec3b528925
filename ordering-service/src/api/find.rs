//! Finding a group on this node, and checking where a reader wants to go on.

use bytes::Bytes;
use concordat_proto::log::v1::{CanonicalCursor, Reason, Refused};
use group_log::{ChainHash, Cursor, CursorError, Head, Pruned, Refusal};

use crate::{
    error::{ApiError, malformed, refused, too_large},
    limits,
    raft::{shard::SharedShard, shards::Shards, types::DIRECTORY},
    storage::{ShardReader, StorageError},
};

/// 1 to 256 bytes.
pub fn check_group_id(group_id: &[u8]) -> Result<(), Refused> {
    check_length("group_id", group_id, limits::GROUP_ID_BYTES)
}

/// 1 to 128 bytes.
pub fn check_client_id(client_id: &[u8]) -> Result<(), Refused> {
    check_length("client_id", client_id, limits::CLIENT_ID_BYTES)
}

fn check_length(field: &str, id: &[u8], limit: usize) -> Result<(), Refused> {
    match id.len() {
        0 => Err(malformed(field, &format!("1 to {limit} bytes"), "nothing")),
        len if len > limit => Err(too_large(field, limit, len)),
        _ => Ok(()),
    }
}

/// The group is not known here.
pub fn not_found() -> Refused {
    Refused::from(&Refusal::GroupNotFound)
}

/// The data shard that a group lives in, with its head, as far as this node has applied. Blocks for a read of the disk.
///
/// # Errors
/// The storage failed.
pub fn group(shards: &Shards, group_id: &[u8]) -> Result<Option<(SharedShard, Head)>, StorageError> {
    let assigned = shards.directory().reader().locate(group_id)?.and_then(|id| shards.get(id));
    if let Some(shard) = assigned
        && let Some(head) = shard.reader().head(group_id)?
    {
        return Ok(Some((shard.clone(), head)));
    }
    // This node may have applied a group's creation before its place in the directory.
    for shard in shards.iter().filter(|shard| shard.id() != DIRECTORY) {
        if let Some(head) = shard.reader().head(group_id)? {
            return Ok(Some((shard.clone(), head)));
        }
    }
    Ok(None)
}

/// Reads a cursor. An absent one is the place before the first entry.
///
/// # Errors
/// A chain hash that is none.
pub fn cursor(cursor: Option<CanonicalCursor>) -> Result<(u64, Option<ChainHash>), Refused> {
    match Cursor::try_from(cursor.unwrap_or_default()) {
        Ok(Cursor::Canonical { seq, chain }) => Ok((seq, chain)),
        Ok(Cursor::Branch { .. }) => Err(malformed("cursor", "a canonical place", "a branch")),
        Err(error) => Err(Refused::from(&error)),
    }
}

/// Checks that a reader at this place has seen the same log. Blocks for a read of the disk.
///
/// # Errors
/// The outer error: the storage failed. The inner: the cursor is ahead of the log, before what is left of it, or of another log.
pub fn check_cursor(
    reader: &ShardReader,
    group_id: &Bytes,
    head: &Head,
    seq: u64,
    chain: Option<ChainHash>,
) -> Result<Result<(), Refused>, StorageError> {
    if seq > head.seq {
        return Ok(Err(Refused::from(&CursorError::Ahead { head_seq: head.seq, got: seq })));
    }
    let pruned = match seq {
        seq if seq == head.seq => Pruned::default(),
        _ => reader.pruned(group_id)?,
    };
    if seq < pruned.seq {
        return Ok(Err(Refused::from(&CursorError::Pruned { oldest: pruned.seq + 1, got: seq })));
    }
    let Some(got) = chain else { return Ok(Ok(())) };
    let expected = match seq {
        seq if seq == head.seq => Some(head.chain),
        seq if seq == pruned.seq => Some(pruned.chain),
        seq => reader.entry_chain(group_id, seq)?,
    };
    Ok(match expected {
        Some(expected) if expected == got => Ok(()),
        Some(expected) => Err(Refused::from(&CursorError::Mismatch { seq, expected, got })),
        None => {
            Err(refused(Reason::Storage, "an entry of the log is missing on this node: try another node"))
        }
    })
}

/// Runs a read that may block in a thread that may.
///
/// # Errors
/// What the read says, or that it panicked.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(panic) => Err(ApiError::Precondition(format!("a read failed: {panic}; look at this node's log"))),
    }
}
