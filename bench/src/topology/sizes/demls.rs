//! What DeMLS costs by the size of a group: the founder commits, one member follows and keeps the states of a group as clients do.

use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use mls_client::demls::{
    BranchStates, DmlsGroup, DmlsMessage, Processed, StateId,
    states::{MemoryRecords, StateChange},
};
use openmls::prelude::{
    tls_codec::{Deserialize, Serialize},
    *,
};
use openmls_rust_crypto::{OpenMlsRustCrypto, RustCrypto};

use crate::topology::chain::{SUITE, key_package, member};

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// A commit, as a DMLSMessage.
    pub(super) commit_bytes: usize,
    /// What a member stores that keeps one state.
    pub(super) stored_bytes: usize,
    /// What each commit adds to that while the states before it are kept, too.
    pub(super) kept_bytes_per_commit: usize,
    /// Time to take in a commit, storing left out, in microseconds.
    pub(super) receive_update_us: u64,
}

const POLICY: WireFormatPolicy = PURE_CIPHERTEXT_WIRE_FORMAT_POLICY;

/// A group of so many members, and commits that renew the founder's keys.
pub(super) fn measure(members: usize, commits: usize) -> anyhow::Result<Measured> {
    let crypto = RustCrypto::default();
    let id = GroupId::from_slice(format!("size-{members}").as_bytes());
    let (signer, credential) = member(0)?;
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .wire_format_policy(POLICY)
        .use_ratchet_tree_extension(true)
        .build();
    let mut founder = DmlsGroup::create(&crypto, &signer, &config, id.clone(), credential)?;
    let follower = key_package(1, &OpenMlsRustCrypto::default())?;
    let mut packages = vec![follower.key_package().clone()];
    for number in 2..members {
        packages.push(key_package(number, &OpenMlsRustCrypto::default())?.key_package().clone());
    }
    let own = founder.commit(&crypto, &signer, |builder| builder.propose_adds(packages))?;
    let welcome = own.welcome.context("a commit that adds has a Welcome")?;
    let mut founder = own.next;
    let config =
        MlsGroupJoinConfig::builder().wire_format_policy(POLICY).use_ratchet_tree_extension(true).build();
    let mut follower = DmlsGroup::join(&crypto, &config, received(&welcome)?, &follower, None)?;

    let mut records = MemoryRecords::default();
    let mut states = BranchStates::open(&records, id.clone())?;
    states.store(&mut records, StateChange::new().put(state(0), None, follower.state()?))?;
    let stored_bytes = records.bytes(id.as_slice());
    let (mut commit_bytes, mut took) = (0, Vec::new());
    for number in 1..=commits {
        let own = founder.commit(&crypto, &signer, |builder| builder)?;
        commit_bytes += own.message.len();
        let begun = Instant::now();
        let staged = match follower.process(&crypto, DmlsMessage::decode(&own.message)?)? {
            Processed::Commit(staged) => staged,
            _ => bail!("a commit was taken for something else"),
        };
        let mut merged = follower.merge(&crypto, staged)?;
        took.push(begun.elapsed());
        let change = StateChange::new().put(state(number - 1), None, &merged.parent);
        states
            .store(&mut records, change.put(state(number), Some(state(number - 1)), merged.next.state()?))?;
        (founder, follower) = (own.next, merged.next);
    }
    took.sort_unstable();
    let commits = commits.max(1);
    Ok(Measured {
        commit_bytes: commit_bytes / commits,
        stored_bytes,
        kept_bytes_per_commit: (records.bytes(id.as_slice()) - stored_bytes) / commits,
        receive_update_us: took.get(took.len() / 2).map_or(0, |took| took.as_micros() as u64),
    })
}

fn state(number: usize) -> StateId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    StateId(id)
}

/// A Welcome as it arrives.
fn received(welcome: &MlsMessageOut) -> anyhow::Result<Welcome> {
    let bytes = welcome.tls_serialize_detached()?;
    match MlsMessageIn::tls_deserialize_exact(bytes)?.extract() {
        MlsMessageBodyIn::Welcome(welcome) => Ok(welcome),
        _ => Err(anyhow!("a Welcome was taken for something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_grows_with_the_group_and_what_is_kept_for_it_is_bounded() {
        let (small, large) = (measure(2, 3).unwrap(), measure(32, 3).unwrap());
        assert!(small.commit_bytes > 200 && large.commit_bytes > small.commit_bytes);
        assert!(large.stored_bytes > small.stored_bytes);
        // docs/demls.md: 10 kB for the PPRF, and what is new in the state.
        assert!((1_000..20_000).contains(&small.kept_bytes_per_commit), "{small:?}");
    }
}
