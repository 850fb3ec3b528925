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
    /// Whether the cluster waits for this gateway.
    pub seat: Seat,
}

/// Whether the cluster waits for a gateway in a group, as far as the gateway knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seat {
    /// It was not asked to, or does not any more.
    #[default]
    Out,
    /// It was asked to, and has agreed: the registration with this number.
    In(u64),
    /// The registration with this number is about to end. The gateway does not fork any more, and registers again only after the cluster
    /// has confirmed the end: so what was sent to end this one can not end the next.
    Leaving(u64),
}

impl Seat {
    /// The registration that there is, or may still be.
    pub fn registration(self) -> Option<u64> {
        match self {
            Seat::Out => None,
            Seat::In(number) | Seat::Leaving(number) => Some(number),
        }
    }
}

impl Promise {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = self.shard.to_be_bytes().to_vec();
        row.extend_from_slice(&self.position.to_be_bytes());
        let (tag, number) = match self.seat {
            Seat::Out => (0, 0),
            Seat::In(number) => (1, number),
            Seat::Leaving(number) => (2, number),
        };
        row.push(tag);
        row.extend_from_slice(&number.to_be_bytes());
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let damaged = |detail| StoreError::damaged("the promises", detail);
        let row: &[u8; 21] = row.try_into().map_err(|_| damaged("it has another length"))?;
        let [a, b, c, d, rest @ ..] = *row;
        let [p0, p1, p2, p3, p4, p5, p6, p7, tag, number @ ..] = rest;
        let number = u64::from_be_bytes(number);
        let seat = match tag {
            0 => Seat::Out,
            1 => Seat::In(number),
            2 => Seat::Leaving(number),
            _ => return Err(damaged("the registration is of an unknown kind")),
        };
        let position = u64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        Ok(Self { shard: u32::from_be_bytes([a, b, c, d]), position, seat })
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
