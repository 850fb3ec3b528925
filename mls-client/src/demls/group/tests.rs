use openmls::prelude::{BasicCredential, Ciphersuite};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;

use super::*;

fn contains(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

/// What OpenMLS keeps must be worthless without the epoch keys: no real init or external secret, in no form.
#[test]
fn no_real_secret_of_the_key_schedule_is_in_the_values_of_openmls() {
    let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
    let backend = RustCrypto::default();
    let signer = SignatureKeyPair::new(suite.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"alice".to_vec()).into(),
        signature_key: signer.to_public_vec().into(),
    };
    let config = MlsGroupCreateConfig::builder().ciphersuite(suite).build();
    let group_id = GroupId::from_slice(b"group");
    let mut group = DmlsGroup::create(&backend, &signer, &config, group_id, credential).unwrap();
    for _ in 0..3 {
        let keys = group.state.keys.clone().unwrap();
        let root = keys.pprf.encode()[3..].to_vec();
        let external = keys.external_secret.clone().unwrap();
        let values: Vec<u8> =
            group.state.values.entries().values().flat_map(|value| value.to_vec()).collect();
        // Values are JSON, where bytes are lists of numbers.
        let json = |bytes: &[u8]| {
            let list = serde_json::to_string(bytes).unwrap();
            list.trim_matches(['[', ']']).as_bytes().to_vec()
        };
        for handle in [&keys.init_handle, &keys.external_handle] {
            assert!(
                contains(&values, &json(handle)),
                "the handle is there, so it is looked for in the right form"
            );
        }
        for secret in [&root[..], external.as_slice(), keys.epoch.as_slice()] {
            assert!(!contains(&values, &json(secret)) && !contains(&values, secret));
            assert!(!keys.init_handle.windows(32).any(|handle| handle == secret));
        }

        let own = group.commit(&backend, &signer, |builder| builder).unwrap();
        let next_keys = own.next.state.keys.clone().unwrap();
        let values: Vec<u8> =
            group.state.values.entries().values().flat_map(|value| value.to_vec()).collect();
        assert!(
            !contains(&values, &json(&next_keys.init_handle)),
            "no pending commit stays in the old state"
        );
        let (mut parent, mut next) = (group.into_state().unwrap(), own.next);
        parent.settle(&backend, next.state_mut().unwrap()).unwrap();
        assert!(!contains(&parent.keys.unwrap().encode(), &root));
        group = next;
    }
}

#[test]
fn epoch_keys_are_read_back_as_they_were() {
    let keys = EpochKeys {
        epoch: DmlsEpoch::from_slice(&[1; 32]).unwrap(),
        authenticator: vec![2; 32],
        init_handle: vec![3; 32],
        pprf: crate::demls::pprf::Pprf::new(crate::demls::Secret::from_slice(&[6; 32])),
        external_handle: vec![4; 32],
        external_secret: Some(crate::demls::Secret::from_slice(&[5; 32])),
        parent_input: Some(crate::demls::Secret::from_slice(&[7; 32])),
    };
    let bytes = keys.encode();
    assert_eq!(EpochKeys::decode(&bytes).unwrap(), keys);
    for end in 0..bytes.len() {
        assert!(EpochKeys::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(EpochKeys::decode(&[&bytes[..], &[0]].concat()).is_err(), "trailing bytes");
    let without = EpochKeys { external_secret: None, parent_input: None, ..keys };
    assert_eq!(EpochKeys::decode(&without.encode()).unwrap(), without);
}

#[test]
fn groups_and_their_states_may_move_between_threads() {
    fn check<T: Send>() {}
    check::<DmlsGroup>();
    check::<crate::demls::BranchStates>();
    check::<crate::demls::StagedDmlsCommit>();
}
