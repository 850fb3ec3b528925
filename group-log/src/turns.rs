//! Turns: a policy that gives each member its turn to commit, so that commits of a group do not compete.
//!
//! The order of the members is written down in the log. The first of them begins when the policy is accepted. A commit that was made
//! in turn ends the turn, and the next member's begins; a turn that nobody uses expires, so an absent member costs its group one turn
//! a round and no more. Commits that only add or remove members may come at any time, and leave the turn as it is: who is a member
//! must not wait.
//!
//! Time comes in with each command: the wall clock of the leader that proposed it, in milliseconds since 1970, which is part of the
//! replicated log. A clock that goes back stops the turn for a while; one that is ahead ends turns early. Neither can make two commits
//! of one epoch accepted, because turns only refuse.

use crate::{
    codec::{DecodeError, Reader, Writer},
    content::{EntryKind, GroupKind},
    ids::ClientId,
    limits::{MAX_TURN_MEMBERS, MAX_TURN_MS, MIN_TURN_MS},
    refusal::Refusal,
};

/// The order in which members commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Turns {
    /// How long a turn lasts at most, in milliseconds: [`MIN_TURN_MS`] to [`MAX_TURN_MS`].
    pub turn_ms: u32,
    /// Who commits, the first one first, each once: 1 to [`MAX_TURN_MEMBERS`] clients.
    pub order: Vec<ClientId>,
}

/// Whose turn it is. Part of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// [`Turns::turn_ms`]
    pub turn_ms: u32,
    /// How many clients take turns, at least 1.
    pub members: u32,
    /// Place in the order of the client whose turn began at `since_ms`.
    pub index: u32,
    /// When it began: a leader's wall clock, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What the servers say of a submission, beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// When it was proposed: the leader's wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// A commit with Add and Remove proposals and no others: it may come out of turn. As the gateway saw it; where handshakes are
    /// private, as the committer says, and every member can see whether that was true.
    pub members_only: bool,
}

/// Highest time that counts, in milliseconds. Far beyond use, and arithmetic below it never overflows.
const LAST_MS: u64 = 1 << 62;

impl Turn {
    /// The first turn of an order.
    pub(crate) fn first(turns: &Turns, at_ms: u64) -> Turn {
        let members = turns.order.len().min(MAX_TURN_MEMBERS) as u32;
        Turn { turn_ms: turns.turn_ms, members, index: 0, since_ms: at_ms.min(LAST_MS) }
    }

    /// The turn at a later moment: turns that nobody used have expired.
    #[must_use]
    pub fn at(self, at_ms: u64) -> Turn {
        let expired = at_ms.min(LAST_MS).saturating_sub(self.since_ms) / u64::from(self.turn_ms);
        let index = (u64::from(self.index) + expired) % u64::from(self.members);
        Turn { index: index as u32, since_ms: self.since_ms + expired * u64::from(self.turn_ms), ..self }
    }

    /// How much longer this turn lasts if nobody commits, in milliseconds, at least 1. For [`Turn::at`] the same moment.
    pub fn left_ms(self, at_ms: u64) -> u64 {
        u64::from(self.turn_ms).saturating_sub(at_ms.min(LAST_MS).saturating_sub(self.since_ms)).max(1)
    }

    /// The turn after a commit that was made in this one.
    pub(crate) fn used(self, at_ms: u64) -> Turn {
        let since_ms = at_ms.min(LAST_MS).max(self.since_ms);
        Turn { index: (self.index + 1) % self.members, since_ms, ..self }
    }

    pub(crate) fn encode(turn: Option<Turn>, writer: Writer) -> Writer {
        let Some(Turn { turn_ms, members, index, since_ms }) = turn else { return writer };
        writer.int(turn_ms.into()).int(members.into()).int(index.into()).int(since_ms)
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Turn, DecodeError> {
        let not_zero = |field, expected, value: u64| match value {
            0 => Err(DecodeError::Value { field, expected, got: 0 }),
            value => Ok(value as u32),
        };
        let (bound_ms, bound) = ("10 to 86400000", "1 to 1024");
        let turn_ms = reader.int_to("turn.turn_ms", MAX_TURN_MS.into(), bound_ms)?;
        let turn_ms = not_zero("turn.turn_ms", bound_ms, turn_ms)?;
        let members = reader.int_to("turn.members", MAX_TURN_MEMBERS as u64, bound)?;
        let members = not_zero("turn.members", bound, members)?;
        let index = reader.int_to("turn.index", u64::from(members) - 1, "below the number of members")?;
        let since_ms = reader.int_to("turn.since_ms", LAST_MS, "a time of at most 2^62 ms")?;
        Ok(Turn { turn_ms, members, index: index as u32, since_ms })
    }
}

impl Turns {
    /// Every value is within its bounds, and nobody comes twice.
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let bounds = |field, min: u64, max: u64, got: u64| match (min..=max).contains(&got) {
            true => Ok(()),
            false => Err(Refusal::PolicyInvalid { field, min, max, got }),
        };
        bounds("policy.turns.turn_ms", MIN_TURN_MS.into(), MAX_TURN_MS.into(), self.turn_ms.into())?;
        bounds("policy.turns.order", 1, MAX_TURN_MEMBERS as u64, self.order.len() as u64)?;
        let mut sorted: Vec<&ClientId> = self.order.iter().collect();
        sorted.sort_unstable();
        match sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(Refusal::Malformed {
                kind: EntryKind::PolicyChange,
                field: "policy.turns.order",
                expected: "each client once",
                got: "one of them twice",
            }),
            false => Ok(()),
        }
    }
}

/// Only groups that a quorum orders take turns: in a split, a member whose turn it is may be on the other side.
pub(crate) fn only_mls(kind: GroupKind) -> Result<(), Refusal> {
    match kind {
        GroupKind::Mls => Ok(()),
        GroupKind::Demls | GroupKind::Dimls => Err(Refusal::Malformed {
            kind: EntryKind::PolicyChange,
            field: "policy.turns",
            expected: "absent, because the group may be split",
            got: "present",
        }),
    }
}
