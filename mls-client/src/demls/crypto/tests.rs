use openmls_rust_crypto::RustCrypto;

use super::*;
use crate::demls::{key_schedule, pprf::PprfError, secret::is_wiped};

const HASH: HashType = HashType::Sha2_256;

fn info(label: &str, context: &[u8]) -> Vec<u8> {
    let mut info = crate::demls::secret::SecretBuffer::default();
    info.extend(&32u16.to_be_bytes());
    info.vector(format!("MLS 1.0 {label}").as_bytes());
    info.vector(context);
    info.into_bytes().to_vec()
}

fn expand(crypto: &impl OpenMlsCrypto, prk: &[u8], label: &str, context: &[u8]) -> Vec<u8> {
    crypto.hkdf_expand(HASH, prk, &info(label, context), 32).unwrap().as_slice().to_vec()
}

/// The keys of an epoch whose PPRF has this root.
fn keys(root: [u8; 32]) -> EpochKeys {
    EpochKeys {
        epoch: key_schedule::DmlsEpoch::from_slice(&[1; 32]).unwrap(),
        authenticator: vec![2; 32],
        init_handle: vec![3; 32],
        pprf: Pprf::new(Secret::from_slice(&root)),
        external_handle: vec![4; 32],
        external_secret: Some(Secret::from_slice(&[5; 32])),
        parent_input: None,
    }
}

#[test]
fn the_init_secret_of_an_epoch_is_a_handle_and_a_random_one() {
    let backend = RustCrypto::default();
    let mut handles = Vec::new();
    for _ in 0..2 {
        let crypto = DmlsCrypto::new(&backend, Role::Receiver, None);
        let epoch_secret = expand(&crypto, &[7; 32], "epoch", b"GroupContext");
        assert_eq!(epoch_secret, expand(&backend, &[7; 32], "epoch", b"GroupContext"));
        let handle = expand(&crypto, &epoch_secret, "init", b"");
        let external = expand(&backend, &epoch_secret, "external", b"");
        let keys = crypto.into_outcome().epochs.remove(0);
        assert_eq!(keys.init_handle, handle);
        assert_eq!(keys.epoch.as_slice(), expand(&backend, &epoch_secret, "epoch", b""));
        assert_eq!(keys.authenticator, expand(&backend, &epoch_secret, "authentication", b""));
        let root = expand(&backend, &epoch_secret, "parent_init", b"");
        assert_eq!(keys.pprf, Pprf::new(Secret::from_slice(&root)));
        for secret in
            [root, external, keys.epoch.as_slice().to_vec(), expand(&backend, &epoch_secret, "init", b"")]
        {
            assert_ne!(handle, secret);
        }
        handles.push(handle);
    }
    assert_ne!(handles[0], handles[1], "the same epoch, another handle");
}

#[test]
fn labels_of_the_key_schedule_pass_through_on_any_other_secret() {
    let backend = RustCrypto::default();
    let crypto = DmlsCrypto::new(&backend, Role::Author, None);
    // An external joiner expands on zeros; an exporter uses "epoch" without a context.
    for secret in [[0; 32], [9; 32]] {
        for label in ["init", "external", "epoch", "joiner", "path", "exporter"] {
            assert_eq!(expand(&crypto, &secret, label, b""), expand(&backend, &secret, label, b""));
        }
        let exported = expand(&crypto, &secret, "epoch", b"");
        assert_eq!(expand(&crypto, &exported, "init", b""), expand(&backend, &exported, "init", b""));
    }
    let outcome = crypto.into_outcome();
    assert!(outcome.epochs.is_empty() && outcome.parent_input.is_none() && outcome.error.is_none());
}

/// What openmls does for a commit: a path, an extract, a joiner.
fn joiner(
    crypto: &impl OpenMlsCrypto,
    parent: &EpochKeys,
    path_secret: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let commit_secret = expand(crypto, path_secret, "path", b"");
    let placeholder = crypto.hkdf_extract(HASH, &parent.init_handle, &commit_secret)?;
    let joiner =
        crypto.hkdf_expand(HASH, placeholder.as_slice(), &info("joiner", b"new GroupContext"), 32)?;
    Ok(joiner.as_slice().to_vec())
}

#[test]
fn a_joiner_secret_comes_from_the_pprf_and_leaves_it_unpunctured() {
    let backend = RustCrypto::default();
    let mut parent = keys([6; 32]);
    let crypto = DmlsCrypto::new(&backend, Role::Receiver, Some(&parent));
    let got = joiner(&crypto, &parent, &[8; 32]).unwrap();
    let outcome = crypto.into_outcome();

    let kdf = Kdf::new(&backend, HASH);
    let confirmation = commit_confirmation(&kdf, &[8; 32]).unwrap();
    let input = child_init(&kdf, confirmation.as_slice(), b"new GroupContext").unwrap();
    assert_eq!(outcome.parent_input.as_ref(), Some(&input));
    assert_eq!(parent.pprf.punctures(), 0);
    let init = key_schedule::derive_fs_secret(&kdf, &mut parent.pprf, input.as_slice()).unwrap();
    let commit_secret = kdf.derive_secret(&[8; 32], "path").unwrap();
    let intermediate = kdf.extract(init.as_slice(), commit_secret.as_slice()).unwrap();
    assert_eq!(got, expand(&backend, intermediate.as_slice(), "joiner", b"new GroupContext"));

    // And once it is punctured, the real reason comes out of band.
    assert_eq!(parent.pprf.evaluate(&kdf, input.as_slice()), Err(PprfError::Punctured));
    let crypto = DmlsCrypto::new(&backend, Role::Receiver, Some(&parent));
    joiner(&crypto, &parent, &[8; 32]).unwrap_err();
    assert!(matches!(crypto.into_outcome().error, Some(DemlsError::AlreadyProcessed)));
}

#[test]
fn a_commit_secret_of_zeros_or_of_unknown_origin_is_refused_with_the_reason() {
    let backend = RustCrypto::default();
    let parent = keys([6; 32]);
    let refused = |role, commit_secret: &[u8]| {
        let crypto = DmlsCrypto::new(&backend, role, Some(&parent));
        let result = crypto.hkdf_extract(HASH, &parent.init_handle, commit_secret);
        (result.is_err(), crypto.into_outcome().error)
    };
    assert!(matches!(refused(Role::Receiver, &[0; 32]), (true, Some(DemlsError::CommitWithoutPath))));
    assert!(matches!(refused(Role::Author, &[0; 32]), (true, Some(DemlsError::CommitWithoutPath))));
    assert!(matches!(refused(Role::Receiver, &[1; 32]), (true, Some(DemlsError::PathSecretUnknown))));
    assert!(matches!(refused(Role::Author, &[1; 32]), (false, None)));
}

#[test]
fn a_placeholder_serves_for_nothing_but_the_joiner() {
    let backend = RustCrypto::default();
    let parent = keys([6; 32]);
    let crypto = DmlsCrypto::new(&backend, Role::Author, Some(&parent));
    let placeholder = crypto.hkdf_extract(HASH, &parent.init_handle, &[1; 32]).unwrap();
    let refused = crypto.hkdf_expand(HASH, placeholder.as_slice(), &info("welcome", b""), 32);
    assert!(refused.is_err());
    assert!(matches!(crypto.into_outcome().error, Some(DemlsError::UnexpectedUse(_))));
}

#[test]
fn an_external_handle_stands_for_the_external_secret_until_that_is_deleted() {
    let backend = RustCrypto::default();
    let config = || CIPHERSUITES[0].hpke_config();
    let mut parent = keys([6; 32]);
    let real = backend.derive_hpke_keypair(config(), &[5; 32]).unwrap();
    let crypto = DmlsCrypto::new(&backend, Role::Receiver, Some(&parent));
    assert_eq!(crypto.derive_hpke_keypair(config(), &parent.external_handle).unwrap().public, real.public);
    drop(crypto);
    parent.external_secret = None;
    let crypto = DmlsCrypto::new(&backend, Role::Receiver, Some(&parent));
    assert!(crypto.derive_hpke_keypair(config(), &parent.external_handle).is_err());
    assert!(matches!(crypto.into_outcome().error, Some(DemlsError::NoExternalCommits)));
}

#[test]
fn the_decorator_may_be_called_from_any_thread() {
    fn check<T: Send + Sync>() {}
    check::<DmlsCrypto<'_, RustCrypto>>();
}

/// Each type is named with all its fields: what is secret must overwrite itself, or this does not compile.
#[test]
fn what_is_remembered_of_an_operation_is_overwritten_when_it_is_dropped() {
    fn seen(seen: &Seen) {
        let Seen { epoch_secrets, paths, placeholders, outcome } = seen;
        for EpochSecret { secret, external } in epoch_secrets {
            is_wiped(secret);
            external.iter().for_each(|(_handle, secret)| is_wiped(secret));
        }
        for Path { path_secret, derived } in paths {
            is_wiped(path_secret);
            is_wiped(derived);
        }
        for Placeholder { value: _, commit_secret, confirmed_by } in placeholders {
            is_wiped(commit_secret);
            is_wiped(confirmed_by);
        }
        let Outcome { epochs, parent_input, error: _ } = outcome;
        epochs.iter().for_each(is_wiped);
        parent_input.iter().for_each(is_wiped);
    }
    let _compiles: fn(&Seen) = seen;
}
