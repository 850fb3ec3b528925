//! Which shard a group lives in. The first assignment of a group id wins for good.

use concordat_proto::{
    convert,
    log::v1::{Reason, Refused},
    ordering::v1::{AssignGroup, GroupAssigned, outcome::Outcome},
};

use super::{batch::Batch, keys::RowKey};
use crate::storage::{error::StorageError, limits::MAX_SHARDS};

/// Assigns a group to the shard wanted, or answers the shard that it has already.
pub(super) fn assign(batch: &mut Batch<'_>, assign: AssignGroup) -> Result<Outcome, StorageError> {
    let AssignGroup { group_id, shard } = assign;
    if let Err(error) = convert::group_id("group_id", group_id.clone()) {
        return Ok(Outcome::Refused(Refused::from(&error)));
    }
    if shard == 0 || shard >= MAX_SHARDS {
        let expected = format!("1 to {}", MAX_SHARDS - 1);
        let message = format!("shard must be a data shard, {expected}, got {shard}");
        let facts = [("field", "shard".into()), ("expected", expected), ("got", shard.to_string())];
        return Ok(Outcome::Refused(convert::refused(Reason::Malformed, message, facts)));
    }
    let key = RowKey::ShardOf { group: &group_id };
    let shard = match batch.get_number(&key, "the place of a group")? {
        Some(taken) => {
            u32::try_from(taken).map_err(|error| batch.rows.bad_row("the place of a group", error))?
        }
        None => {
            batch.put_number(&key, shard.into());
            shard
        }
    };
    Ok(Outcome::GroupAssigned(GroupAssigned { shard }))
}
