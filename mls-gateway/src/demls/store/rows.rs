//! The values of rows that belong to the gateway alone.

use group_log::fork::GatewayId;

use super::{FORMAT, StoreError};

/// What a gateway has said about a group, durably, before it said it to anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The shard that the group lives in.
    pub shard: u32,
    /// It will never fork below this entry.
    pub position: u64,
    /// The cluster was asked to wait for this gateway, and has agreed.
    pub registered: bool,
}

impl Promise {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = self.shard.to_be_bytes().to_vec();
        row.extend_from_slice(&self.position.to_be_bytes());
        row.push(self.registered.into());
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let row: &[u8; 13] =
            row.try_into().map_err(|_| StoreError::damaged("the promises", "it has another length"))?;
        let [a, b, c, d, rest @ .., registered] = *row;
        Ok(Self {
            shard: u32::from_be_bytes([a, b, c, d]),
            position: u64::from_be_bytes(rest),
            registered: registered != 0,
        })
    }
}

pub(super) fn encode_marker(id: GatewayId, cluster: Option<&str>) -> Vec<u8> {
    let mut row = FORMAT.to_be_bytes().to_vec();
    row.extend_from_slice(&id.0);
    row.extend_from_slice(cluster.unwrap_or_default().as_bytes());
    row
}

pub(super) fn decode_marker(row: &[u8]) -> Result<(GatewayId, Option<String>), StoreError> {
    let cut_off = || StoreError::damaged("the marker", "it is cut off");
    let (format, rest) = row.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let got = u32::from_be_bytes(*format);
    if got != FORMAT {
        return Err(StoreError::Format { expected: FORMAT, got });
    }
    let (id, cluster) = rest.split_first_chunk::<16>().ok_or_else(cut_off)?;
    let cluster = std::str::from_utf8(cluster).map_err(|error| StoreError::damaged("the marker", error))?;
    Ok((GatewayId(*id), Some(cluster.to_owned()).filter(|cluster| !cluster.is_empty())))
}
