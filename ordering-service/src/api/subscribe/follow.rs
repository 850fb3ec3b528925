//! What one stream follows: a cursor each, and the reading of the next page.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{
        CanonicalCursor, Entry, Head as WireHead, InboxCursor, PendingWelcome, Pruned, Reason, Refused,
        ShardPosition,
    },
    ordering::v1::{Ended, Entries, FollowGroup, FollowInbox, Welcomes, ended, subscribe_response::Response},
};
use group_log::ChainHash;

use crate::{
    api::{
        find::{self, check_client_id, check_group_id},
        read,
    },
    error::{ApiError, refused},
    hub::Topic,
    limits,
    node::Node,
    raft::{shard::SharedShard, types::ShardId},
};

/// A cursor, and what is needed to move it.
#[derive(Clone)]
pub(crate) struct Follow {
    /// The group's or client's id.
    pub(crate) key: Bytes,
    place: Place,
    /// A quorum has confirmed how far the log goes since following began.
    pub(crate) confirmed: bool,
}

#[derive(Clone)]
enum Place {
    /// Not checked against the log yet.
    Start {
        seq: u64,
        chain: Option<ChainHash>,
    },
    Group {
        shard: SharedShard,
        seq: u64,
        /// Chain hash of the entry `seq`; empty if none was read or given.
        chain: Bytes,
        caught_up: bool,
    },
    Inbox {
        positions: BTreeMap<ShardId, u64>,
    },
}

/// What reading the next page of something came to.
pub(crate) struct Page {
    /// What to send, in order.
    pub(crate) responses: Vec<Response>,
    /// What becomes of following.
    pub(crate) next: Next,
    /// Entries among the responses.
    pub(crate) entries: u64,
    /// Roughly, for the bound on what is read at once.
    pub(crate) bytes: usize,
}

/// How following goes on.
pub(crate) enum Next {
    /// Wait for a change.
    Wait(Follow),
    /// There is more to read already.
    More(Follow),
    /// This node may lag behind: confirm with a quorum, then look again.
    Confirm,
    /// It has ended.
    End,
}

impl Follow {
    /// Begins to follow a group.
    ///
    /// # Errors
    /// A group id or cursor that makes no sense.
    pub(crate) fn group(request: FollowGroup) -> Result<Self, Refused> {
        check_group_id(&request.group_id)?;
        let (seq, chain) = find::cursor(request.cursor)?;
        // Ids are kept as long as they are followed: a copy does not keep the whole request.
        let key = Bytes::copy_from_slice(&request.group_id);
        Ok(Self { key, place: Place::Start { seq, chain }, confirmed: false })
    }

    /// Begins to follow an inbox.
    ///
    /// # Errors
    /// A client id or cursor that makes no sense.
    pub(crate) fn inbox(request: FollowInbox) -> Result<Self, ApiError> {
        check_client_id(&request.client_id)?;
        let positions = read::positions(request.cursor)?;
        let key = Bytes::copy_from_slice(&request.client_id);
        Ok(Self { key, place: Place::Inbox { positions }, confirmed: false })
    }

    /// What it follows.
    pub(crate) fn topic(&self) -> Topic {
        match self.place {
            Place::Inbox { .. } => Topic::Inbox,
            Place::Start { .. } | Place::Group { .. } => Topic::Group,
        }
    }

    /// Everything up to here was sent.
    pub(crate) fn ended(&self) -> Response {
        let place = match &self.place {
            Place::Start { seq, chain } => ended::Place::Group(CanonicalCursor::new(*seq, *chain)),
            Place::Group { seq, chain, .. } => {
                ended::Place::Group(CanonicalCursor { seq: *seq, chain_hash: chain.clone() })
            }
            Place::Inbox { positions } => {
                let positions = positions.iter();
                let positions = positions.map(|(&shard, &position)| ShardPosition { shard, position });
                ended::Place::Inbox(InboxCursor { positions: positions.collect() })
            }
        };
        Response::Ended(Ended { place: Some(place) })
    }

    /// Reads the next page. Blocks for reads of the disk.
    pub(crate) fn read(self, node: &Arc<Node>) -> Page {
        let (confirmed, key) = (self.confirmed, self.key.clone());
        match self.try_read(node) {
            Ok(page) => page,
            Err(ApiError::Refused(refusal)) if refusal.reason() == Reason::Pruned => {
                pruned(node, &key).unwrap_or_else(Page::end)
            }
            Err(ApiError::Refused(refusal)) if may_lag(&refusal) && !confirmed => {
                Page { responses: Vec::new(), next: Next::Confirm, entries: 0, bytes: 0 }
            }
            Err(error) => Page::end(error),
        }
    }

    fn try_read(mut self, node: &Arc<Node>) -> Result<Page, ApiError> {
        if let Place::Start { seq, chain } = self.place {
            let shards = node.readable()?;
            let (shard, head) = find::group(shards, &self.key)?.ok_or_else(find::not_found)?;
            find::check_cursor(shard.reader(), &self.key, &head, seq, chain)??;
            let chain = chain.map(|chain| chain.to_bytes()).unwrap_or_default();
            self.place = Place::Group { shard, seq, chain, caught_up: false };
        }
        match &self.place {
            Place::Inbox { .. } => self.read_inbox(node),
            Place::Group { .. } | Place::Start { .. } => self.read_group(),
        }
    }

    fn read_group(mut self) -> Result<Page, ApiError> {
        let Place::Group { shard, seq, chain, caught_up } = &mut self.place else {
            return Err(ApiError::Precondition("the group is not located yet".into()));
        };
        // The head is read first: what is applied in between leaves another mark.
        let head = shard.reader().head(&self.key)?.ok_or_else(find::not_found)?;
        let mut responses = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        if *seq < head.seq {
            let entries =
                shard.reader().entries(&self.key, *seq, limits::SUBSCRIBE_ENTRIES, limits::ENTRIES_BYTES)?;
            let last = check_order(*seq, &entries)?;
            *seq = last;
            *chain = entries.last().map(|entry| entry.chain_hash.clone()).unwrap_or_default();
            count = entries.len() as u64;
            bytes = entries.iter().map(prost::Message::encoded_len).sum();
            responses.push(Response::Entries(Entries { entries }));
        }
        let more = *seq < head.seq;
        if !more && !*caught_up {
            *caught_up = true;
            responses.push(Response::CaughtUp(WireHead::from(&head)));
        }
        let next = if more { Next::More(self) } else { Next::Wait(self) };
        Ok(Page { responses, next, entries: count, bytes })
    }

    fn read_inbox(mut self, node: &Arc<Node>) -> Result<Page, ApiError> {
        let data: Vec<SharedShard> = node.readable()?.iter().skip(1).cloned().collect();
        let Place::Inbox { positions } = &mut self.place else {
            return Err(ApiError::Precondition("not an inbox".into()));
        };
        let read::InboxPage { welcomes, more } =
            read::read_inbox(&data, &self.key, positions, limits::READ_WELCOMES)?;
        if welcomes.is_empty() {
            return Ok(Page { responses: Vec::new(), next: Next::Wait(self), entries: 0, bytes: 0 });
        }
        for welcome in &welcomes {
            advance(positions, welcome);
        }
        let bytes = welcomes.iter().map(prost::Message::encoded_len).sum();
        let responses = split(welcomes).map(|welcomes| Response::Welcomes(Welcomes { welcomes })).collect();
        let next = if more { Next::More(self) } else { Next::Wait(self) };
        Ok(Page { responses, next, entries: 0, bytes })
    }
}

impl Page {
    /// Following ends, for this reason.
    pub(crate) fn end(error: ApiError) -> Self {
        let refusal = match error {
            ApiError::Refused(refusal) => refusal,
            ApiError::Recovering | ApiError::NoQuorum { .. } | ApiError::NoCluster => {
                refused(Reason::NoQuorum, error.to_string())
            }
            ApiError::Overloaded { .. } => refused(Reason::Overloaded, error.to_string()),
            other => refused(Reason::Storage, other.to_string()),
        };
        Self { responses: vec![Response::Refused(refusal)], next: Next::End, entries: 0, bytes: 0 }
    }
}

/// Where the log begins, and how to come back into the group.
fn pruned(node: &Node, group_id: &Bytes) -> Result<Page, ApiError> {
    let (shard, head) = find::group(node.readable()?, group_id)?.ok_or_else(find::not_found)?;
    let reader = shard.reader();
    let group_info = reader.group_info(group_id)?.filter(|info| info.epoch == head.epoch);
    let pruned = Pruned {
        oldest_seq: reader.pruned(group_id)?.seq + 1,
        head: Some(WireHead::from(&head)),
        group_info: group_info.map(|info| info.message).unwrap_or_default(),
    };
    Ok(Page { responses: vec![Response::Pruned(pruned)], next: Next::End, entries: 0, bytes: 0 })
}

/// A reader who is ahead of this node may have read from one that is further.
fn may_lag(refusal: &Refused) -> bool {
    matches!(refusal.reason(), Reason::CursorAhead | Reason::GroupNotFound)
}

/// The storage must give entries in order and without a gap; a reader must never see anything else.
fn check_order(after: u64, entries: &[Entry]) -> Result<u64, ApiError> {
    let mut last = after;
    for entry in entries {
        if entry.seq != last + 1 {
            break;
        }
        last = entry.seq;
    }
    if last == after || entries.last().map(|entry| entry.seq) != Some(last) {
        return Err(refused(
            Reason::Storage,
            "entries of the log are missing on this node: try another node",
        )
        .into());
    }
    Ok(last)
}

fn advance(positions: &mut BTreeMap<ShardId, u64>, welcome: &PendingWelcome) {
    for place in welcome.cursor.iter().flat_map(|cursor| &cursor.positions) {
        let position = positions.entry(place.shard).or_default();
        *position = place.position.max(*position);
    }
}

/// Welcomes can be large: responses are kept near the bound.
fn split(welcomes: Vec<PendingWelcome>) -> impl Iterator<Item = Vec<PendingWelcome>> {
    let mut rest = welcomes.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut part = Vec::new();
        let mut bytes = 0;
        while let Some(next) = rest.peek() {
            bytes += prost::Message::encoded_len(next);
            if bytes > limits::ENTRIES_BYTES && !part.is_empty() {
                break;
            }
            part.extend(rest.next());
        }
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry { seq, ..Entry::default() }
    }

    #[test]
    fn a_gap_is_never_passed_on() {
        assert_eq!(check_order(4, &[entry(5), entry(6)]).ok(), Some(6));
        assert!(check_order(4, &[]).is_err());
        assert!(check_order(4, &[entry(6)]).is_err());
        assert!(check_order(4, &[entry(5), entry(7)]).is_err());
    }

    #[test]
    fn welcomes_are_split_by_size_and_none_is_lost() {
        let welcome = |bytes| PendingWelcome { welcome: vec![0; bytes].into(), ..PendingWelcome::default() };
        let parts: Vec<_> =
            split(vec![welcome(600_000), welcome(600_000), welcome(3_000_000), welcome(1)]).collect();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1]);
        assert_eq!(split(Vec::new()).count(), 0);
    }
}
