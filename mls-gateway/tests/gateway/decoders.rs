//! Arbitrary bytes never make a decoder panic, and what it accepts fills the bytes exactly.

use std::sync::LazyLock;

use bytes::Bytes;
use mls_gateway::mls;
use openmls_rust_crypto::RustCrypto;
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::support::member::Member;

static VALID: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let (mut alice, bob) = (Member::new("alice"), Member::new("bob"));
    let info = alice.create(b"group");
    let message = alice.say("hi").message;
    let commit = alice.commit(&[("bob", bob.key_package(false))], &[]);
    vec![info, message, commit.message, commit.welcome, commit.group_info, bob.key_package(true)]
});

/// Puts bytes through every decoder. Returns how many accepted them.
fn decode(bytes: &Bytes) -> usize {
    let results = [
        mls::message(bytes).map(drop),
        mls::group_info(bytes).map(drop),
        mls::welcome(bytes).map(drop),
        mls::key_package(&RustCrypto::default(), bytes).map(drop),
    ];
    // Errors must be presentable whatever they are about.
    results
        .iter()
        .filter_map(|r| r.as_ref().err())
        .for_each(|e| assert!(!e.to_string().is_empty() && !e.facts().is_empty()));
    results.iter().filter(|r| r.is_ok()).count()
}

#[test]
fn every_valid_message_is_accepted_by_exactly_one_decoder() {
    for bytes in VALID.iter() {
        assert_eq!(decode(bytes), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..600)) {
        decode(&bytes.into());
    }

    #[test]
    fn arbitrary_bytes_behind_a_valid_header_do_not_panic(format in 0u8..8, bytes in vec(any::<u8>(), 0..600)) {
        decode(&[&[0, 1, 0, format][..], &bytes].concat().into());
    }

    #[test]
    fn valid_messages_with_changes_do_not_panic(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<Index>()),
    ) {
        let mut bytes = which.get(&VALID).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        decode(&bytes.into());
    }

    #[test]
    fn a_message_that_is_cut_or_goes_on_is_refused(which in any::<Index>(), cut in any::<Index>(), more in vec(any::<u8>(), 1..9)) {
        let bytes = which.get(&VALID);
        prop_assert_eq!(decode(&bytes.slice(..cut.index(bytes.len()))), 0);
        prop_assert_eq!(decode(&[&bytes[..], &more].concat().into()), 0);
    }
}
