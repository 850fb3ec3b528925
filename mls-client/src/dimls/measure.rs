//! What DiMLS costs at a group size, measured on real sessions: for docs/dimls.md and for benchmarks that set it beside other kinds of
//! groups.

use group_log::{
    ClientId,
    dimls::{Setup, SetupError},
};

use super::{
    error::DimlsError,
    item::Item,
    policy::Policy,
    records::MemoryRecords,
    session::{Event, Session},
};
use crate::{
    error::Error,
    identity::{DEFAULT_CIPHERSUITE, Identity},
    store::Store,
};

/// What was measured. Bytes are those of items: messages with their Welcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Members of the DGroup.
    pub members: usize,
    /// An UPDATE: with a path and a new KeyPackage.
    pub update_bytes: usize,
    /// Its acknowledgement: without a path, one PSK.
    pub acknowledge_one_bytes: usize,
    /// An acknowledgement of the UPDATEs of all others at work (at most three) at once: without a path.
    pub acknowledge_all_bytes: usize,
    /// A full replacement of the others at work (at most three): a path, a PSK and a leaf for each; the commit alone.
    pub replace_commit_bytes: usize,
    /// The Welcome of it.
    pub replace_welcome_bytes: usize,
    /// An application message of 32 bytes.
    pub message_bytes: usize,
    /// What the measured member stores, if it follows the Send Groups of `followed` others.
    pub stored_bytes: usize,
    /// The part of it that is the member's own Send Group with everybody in it.
    pub stored_own_bytes: usize,
    /// How many Send Groups of others it follows.
    pub followed: usize,
    /// Time to take in one UPDATE of another, in microseconds.
    pub receive_update_us: u64,
}

impl Measured {
    /// What gateways hand out for one UPDATE, in bytes: it goes to every other member.
    pub fn update_fan_out_bytes(&self) -> usize {
        self.update_bytes * (self.members - 1)
    }

    /// What all send until one UPDATE is healed in all Send Groups, in bytes: the UPDATE, and an acknowledgement by every other member.
    /// Gateways hand out `members - 1` times as much.
    pub fn heal_one_bytes(&self) -> usize {
        self.update_bytes + (self.members - 1) * self.acknowledge_one_bytes
    }

    /// What a member stores that follows all others, in bytes: the own Send Group as measured, and the measured average of the followed ones
    /// for each other member.
    pub fn stored_following_all_bytes(&self) -> usize {
        let each = self.stored_bytes.saturating_sub(self.stored_own_bytes) / self.followed.max(1);
        self.stored_own_bytes + each * (self.members - 1)
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The group size.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A session.
    #[error(transparent)]
    Session(#[from] DimlsError),
    /// An identity.
    #[error(transparent)]
    Client(#[from] Error),
    /// Something was not taken in that should have been.
    #[error("the measured group does not work: {0}")]
    Broken(String),
}

/// Who sends in the measured group. The others only announce themselves and stand in it: N members that all send would cost N² to set
/// up, and what one of them sends or stores does not depend on whether the rest is busy.
const BUSY: usize = 4;

/// Measures a DGroup of so many members (2 to 256), of whom up to four are at work.
pub fn measure(members: usize) -> Result<Measured, MeasureError> {
    let (mut sessions, mut announced) = (Vec::new(), Vec::new());
    let name = |number: usize| ClientId::new(format!("member-{number:03}"));
    let ids = (0..members)
        .map(name)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| MeasureError::Broken("a name".into()))?;
    let setup = Setup::new([0; 16], ids.clone(), [u16::from(DEFAULT_CIPHERSUITE)], 32)?;
    for id in ids {
        let mut store = Store::in_memory().map_err(Error::from)?;
        let identity = Identity::create(&mut store, id, DEFAULT_CIPHERSUITE)?;
        let mut session = Session::create(MemoryRecords::default(), identity, &setup, Policy::default(), 0)?;
        announced.extend(sent(&mut session)?);
        if sessions.len() < BUSY {
            sessions.push(session);
        }
    }
    let busy = sessions.len();
    for item in &announced {
        give(&mut sessions, item)?;
    }
    sessions[0].tick(0)?;
    let added = sent(&mut sessions[0])?;
    let stored_own_bytes = sessions[0].records().bytes();
    for item in &added {
        give(&mut sessions, item)?;
    }
    for number in 1..busy {
        sessions[number].tick(0)?;
        pass_on(&mut sessions, number)?;
    }

    let only = |items: Vec<Item>| {
        items.into_iter().next().ok_or_else(|| MeasureError::Broken("nothing was sent".into()))
    };
    sessions[1].update(1)?;
    let update = only(sent(&mut sessions[1])?)?;
    let begun = std::time::Instant::now();
    sessions[0].receive(update.clone(), 1)?;
    let receive_update_us = begun.elapsed().as_micros() as u64;
    give(&mut sessions, &update)?;
    sessions[0]
        .acknowledge(1)?
        .ok_or_else(|| MeasureError::Broken("there was nothing to acknowledge".into()))?;
    let one = only(sent(&mut sessions[0])?)?;
    give(&mut sessions, &one)?;
    for number in 1..busy {
        sessions[number].update(2)?;
        pass_on(&mut sessions, number)?;
    }
    sessions[0].acknowledge(2)?;
    let all = only(sent(&mut sessions[0])?)?;
    give(&mut sessions, &all)?;
    for number in 1..busy {
        sessions[number].update(3)?;
        pass_on(&mut sessions, number)?;
    }
    sessions[0].replace(3)?;
    let replace = only(sent(&mut sessions[0])?)?;
    give(&mut sessions, &replace)?;
    sessions[0].protect(&[7; 32])?;
    let message = only(sent(&mut sessions[0])?)?;
    give(&mut sessions, &message)?;
    Ok(Measured {
        members,
        update_bytes: update.bytes(),
        acknowledge_one_bytes: one.bytes(),
        acknowledge_all_bytes: all.bytes(),
        replace_commit_bytes: replace.message.len(),
        replace_welcome_bytes: replace.welcome.len(),
        message_bytes: message.bytes(),
        stored_bytes: sessions[0].records().bytes(),
        stored_own_bytes,
        followed: busy - 1,
        receive_update_us,
    })
}

fn sent(session: &mut Session<MemoryRecords>) -> Result<Vec<Item>, MeasureError> {
    let items: Vec<Item> = session.outbox().cloned().collect();
    if let Some(last) = items.last() {
        session.confirmed(last.seq)?;
    }
    Ok(items)
}

fn give(sessions: &mut [Session<MemoryRecords>], item: &Item) -> Result<(), MeasureError> {
    for session in sessions {
        let told = session.receive(item.clone(), 1)?;
        let bad = |event: &&Event| matches!(event, Event::Rejected { .. } | Event::Lost { .. });
        if let Some(event) = told.iter().find(bad) {
            return Err(MeasureError::Broken(format!("{event:?}")));
        }
    }
    Ok(())
}

fn pass_on(sessions: &mut [Session<MemoryRecords>], from: usize) -> Result<(), MeasureError> {
    for item in sent(&mut sessions[from])? {
        give(sessions, &item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_costs_the_same_at_any_group_size() {
        let (small, large) = (measure(4).unwrap(), measure(32).unwrap());
        println!("{small:?}\n{large:?}");
        assert_eq!(small.acknowledge_one_bytes, large.acknowledge_one_bytes);
        assert_eq!(small.acknowledge_all_bytes, large.acknowledge_all_bytes);
        assert!(small.acknowledge_one_bytes < small.update_bytes);
        assert!(small.update_bytes < large.update_bytes);
        assert!(large.replace_commit_bytes > large.acknowledge_all_bytes);
        assert_eq!(large.update_fan_out_bytes(), 31 * large.update_bytes);
        assert!(
            small.stored_bytes - small.stored_following_all_bytes() < small.followed,
            "four follow all there are"
        );
        assert!(large.stored_following_all_bytes() > 8 * large.stored_own_bytes);
    }

    /// Ids and ratchets make messages of the same kind differ by a few bytes.
    fn is_about(documented: usize, measured: usize) -> bool {
        documented.abs_diff(measured) * 50 <= measured
    }

    #[test]
    fn the_costs_in_the_documentation_are_those_that_are_measured() {
        const DOCS: &str = include_str!("../../../docs/dimls.md");
        for members in [4, 16] {
            let row = DOCS.lines().find(|line| line.starts_with(&format!("| {members} | "))).unwrap();
            let documented: Vec<usize> =
                row.split('|').filter_map(|cell| cell.trim().parse().ok()).skip(1).collect();
            let m = measure(members).unwrap();
            let measured = [
                m.update_bytes,
                m.acknowledge_one_bytes,
                m.acknowledge_all_bytes,
                m.replace_commit_bytes,
                m.replace_welcome_bytes,
                m.message_bytes,
                m.heal_one_bytes(),
                m.stored_own_bytes,
                m.stored_following_all_bytes(),
            ];
            assert_eq!(documented.len(), measured.len(), "{row}");
            for (documented, measured) in documented.iter().zip(measured) {
                assert!(is_about(*documented, measured), "{measured} in place of {documented} in {row}");
            }
            // What `Policy` says of an acknowledgement.
            assert!(is_about(280, m.acknowledge_one_bytes));
            let further = (m.acknowledge_all_bytes - m.acknowledge_one_bytes) / (m.followed - 1);
            assert_eq!(further, 88, "bytes of each further PSK");
        }
    }
}
