use openmls_rust_crypto::RustCrypto;
use openmls_traits::types::HashType;
use proptest::prelude::*;

use super::*;
use crate::demls::{limits::MAX_PUNCTURE_BYTES, secret::is_wiped};

const HASH: HashType = HashType::Sha2_256;

fn with_kdf<T>(f: impl FnOnce(&Kdf<'_, RustCrypto>) -> T) -> T {
    let crypto = RustCrypto::default();
    f(&Kdf::new(&crypto, HASH))
}

fn pprf(seed: u8) -> Pprf {
    Pprf::new(Secret::from_slice(&[seed; 32]))
}

/// Inputs that share prefixes of every length, not only inputs that part at the first bits.
fn inputs() -> impl Strategy<Value = Vec<[u8; 32]>> {
    let near = (any::<[u8; 32]>(), proptest::collection::vec(0usize..256, 1..4)).prop_map(|(base, flips)| {
        let flipped = flips.into_iter().map(|position| {
            let mut input = base;
            input[position / 8] ^= 0x80 >> (position % 8);
            input
        });
        let mut all: Vec<_> = std::iter::once(base).chain(flipped).collect();
        all.sort();
        all.dedup();
        all
    });
    prop_oneof![
        near,
        proptest::collection::btree_set(any::<[u8; 32]>(), 1..5).prop_map(|set| set.into_iter().collect())
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn puncturing_some_inputs_leaves_every_other_output_as_it_was(seed: u8, all in inputs(), other: [u8; 32]) {
        with_kdf(|kdf| {
            let whole = pprf(seed);
            let mut punctured = whole.clone();
            for (count, input) in all.iter().enumerate() {
                let before = punctured.evaluate(kdf, input).unwrap();
                assert_eq!(before, whole.evaluate(kdf, input).unwrap());
                punctured.puncture(kdf, input).unwrap();
                assert_eq!(punctured.punctures(), count + 1);
                for input in &all[..=count] {
                    assert_eq!(punctured.evaluate(kdf, input), Err(PprfError::Punctured));
                    assert_eq!(punctured.puncture(kdf, input), Err(PprfError::Punctured));
                    assert!(punctured.is_punctured(input));
                }
                for input in &all[count + 1..] {
                    assert_eq!(punctured.evaluate(kdf, input), whole.evaluate(kdf, input));
                }
            }
            if !all.contains(&other) {
                assert_eq!(punctured.evaluate(kdf, &other), whole.evaluate(kdf, &other));
            }
        });
    }

    #[test]
    fn an_encoded_function_is_read_back_as_it_was(seed: u8, all in inputs()) {
        with_kdf(|kdf| {
            let mut pprf = pprf(seed);
            assert_eq!(Pprf::decode(&pprf.encode()).unwrap(), pprf);
            for input in &all {
                let before = pprf.encode().len();
                pprf.puncture(kdf, input).unwrap();
                assert!(pprf.encode().len() <= before + MAX_PUNCTURE_BYTES);
                assert_eq!(Pprf::decode(&pprf.encode()).unwrap(), pprf);
            }
        });
    }

    #[test]
    fn arbitrary_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(pprf) = Pprf::decode(&bytes) {
            assert_eq!(pprf.encode().as_slice(), bytes);
        }
    }

    /// Structured garbage gets past the header and into the nodes, where the checks are.
    #[test]
    fn arbitrary_nodes_are_refused_and_never_panic(nh in 1u8..4, nodes in proptest::collection::vec(0u8..5, 0..400)) {
        let bytes = [&[1, nh][..], &nodes].concat();
        if let Ok(pprf) = Pprf::decode(&bytes) {
            assert_eq!(pprf.encode().as_slice(), bytes);
        }
    }

    #[test]
    fn a_changed_encoding_is_refused_or_another_function(position in 0usize..8000, change in 1u8..) {
        with_kdf(|kdf| {
            let mut pprf = pprf(7);
            pprf.puncture(kdf, &[0xa5; 32]).unwrap();
            let mut bytes = pprf.encode();
            let position = position % bytes.len();
            bytes[position] ^= change;
            if let Ok(other) = Pprf::decode(&bytes) {
                assert_ne!(other, pprf);
            }
        });
    }
}

#[test]
fn nothing_that_a_punctured_function_keeps_is_on_the_punctured_path() {
    with_kdf(|kdf| {
        let mut pprf = pprf(3);
        let input = [0x5a; 32];
        let mut path = vec![Secret::from_slice(&[3; 32])];
        for level in 0..256 {
            path.push(child(kdf, &path[level], bit(&input, level)).unwrap());
        }
        path.push(pprf.evaluate(kdf, &input).unwrap());
        pprf.puncture(kdf, &input).unwrap();
        let kept = pprf.encode();
        for secret in path {
            assert!(!kept.windows(32).any(|window| window == secret.as_slice()));
        }
    });
}

#[test]
fn inputs_of_the_wrong_length_are_refused_with_both_lengths() {
    with_kdf(|kdf| {
        let error = PprfError::InputLength { expected: 32, got: 31 };
        assert_eq!(pprf(1).evaluate(kdf, &[0; 31]), Err(error.clone()));
        assert_eq!(pprf(1).puncture(kdf, &[0; 31]), Err(error));
        assert!(!pprf(1).is_punctured(&[0; 31]));
    });
}

#[test]
fn the_most_significant_bit_of_the_first_byte_chooses_the_child_of_the_root() {
    with_kdf(|kdf| {
        let mut input = [0; 32];
        input[0] = 0x80;
        let right = kdf.expand_with_label(&[9; 32], "tree", b"right", 32).unwrap();
        let mut secret = right;
        for _ in 1..256 {
            secret = kdf.expand_with_label(secret.as_slice(), "tree", b"left", 32).unwrap();
        }
        let output = kdf.derive_secret(secret.as_slice(), "pprf").unwrap();
        assert_eq!(pprf(9).evaluate(kdf, &input).unwrap(), output);
    });
}

#[test]
fn a_puncture_costs_its_secrets_and_the_path_once() {
    with_kdf(|kdf| {
        let mut pprf = pprf(1);
        assert_eq!(pprf.encode().len(), 2 + 1 + 32);
        pprf.puncture(kdf, &[0xff; 32]).unwrap();
        // Header, chain tag and length, 256 bits of path, 256 secrets, the punctured leaf.
        assert_eq!(pprf.encode().len(), 2 + 3 + 32 + 8192 + 1);
    });
}

/// Each variant is named: what is secret in it must overwrite itself, or this does not compile.
#[test]
fn every_node_is_overwritten_when_it_is_dropped() {
    fn every(node: &Node) {
        match node {
            Node::Punctured => {}
            Node::Secret(secret) => is_wiped(secret),
            Node::Inner(children) => children.iter().for_each(every),
        }
    }
    let Pprf { nh: _, root } = &pprf(1);
    every(root);
}
