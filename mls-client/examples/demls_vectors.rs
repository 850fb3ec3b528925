//! Writes the test vectors of DeMLS: `cargo run --release -p mls-client --example demls_vectors`.
//!
//! docs/demls.md describes them. They are computed from fixed inputs, so that every run writes the same file.
#![allow(clippy::unwrap_used)] // A panic is the report.

use std::path::Path;

use mls_client::demls::{
    DmlsEpoch, DmlsMessage, Secret,
    kdf::Kdf,
    key_schedule::{child_init, commit_confirmation, derive_fs_secret, dmls_epoch, parent_init_secret},
    pprf::Pprf,
};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto as _,
    types::{Ciphersuite, HashType},
};
use serde_json::{Value, json};

/// Where the vectors are, from the folder of the crate.
pub const FILE: &str = "test-vectors/demls.json";

const HASH: HashType = HashType::Sha2_256;

fn main() -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = serde_json::to_string_pretty(&vectors()?)? + "\n";
    std::fs::write(&path, text)?;
    println!("wrote {}", path.display());
    Ok(())
}

/// All vectors.
pub fn vectors() -> anyhow::Result<Value> {
    let crypto = RustCrypto::default();
    let kdf = Kdf::new(&crypto, HASH);
    let pprf = [
        (given(&crypto, "root 1")?, vec![given(&crypto, "input 1")?]),
        // Two inputs that part at the last bit only, and one at the first.
        ([0; 32], vec![[0; 32], last_bit_set(), first_bit_set()]),
        ([0xff; 32], vec![[0xff; 32]]),
    ];
    let pprf: Vec<Value> =
        pprf.iter().map(|(root, inputs)| pprf_vector(&kdf, root, inputs)).collect::<Result<_, _>>()?;
    let suites = [
        Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
        Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
    ];
    let key_schedule: Vec<Value> =
        suites.iter().map(|suite| key_schedule_vector(&crypto, &kdf, *suite)).collect::<Result<_, _>>()?;
    let epoch = DmlsEpoch::from_slice(&given(&crypto, "dmls_epoch")?)?;
    let message = given(&crypto, "message")?;
    Ok(json!({
        "description": "DeMLS: PPRF, key schedule and message framing. All byte strings in hex. See docs/demls.md.",
        "kdf": "HKDF-SHA256",
        "nh": kdf.nh(),
        "pprf": pprf,
        "key_schedule": key_schedule,
        "messages": [{
            "note": "message stands for an encoded MLSMessage; only the framing around it is shown",
            "message": hex::encode(message),
            "dmls_epoch": hex::encode(epoch.as_slice()),
            "dmls_message": hex::encode(DmlsMessage::encode_bytes(&message, &epoch)),
        }],
    }))
}

/// A fixed byte string: SHA-256 of its name.
fn given(crypto: &RustCrypto, name: &str) -> anyhow::Result<[u8; 32]> {
    let hash = crypto.hash(HASH, format!("concordat demls vector: {name}").as_bytes())?;
    <[u8; 32]>::try_from(hash).map_err(|_| anyhow::anyhow!("SHA-256 has 32 bytes"))
}

fn first_bit_set() -> [u8; 32] {
    let mut input = [0; 32];
    input[0] = 0x80;
    input
}

fn last_bit_set() -> [u8; 32] {
    let mut input = [0; 32];
    input[31] = 0x01;
    input
}

/// The punctures of one function, one after the other.
fn pprf_vector(kdf: &Kdf<'_, RustCrypto>, root: &[u8; 32], inputs: &[[u8; 32]]) -> anyhow::Result<Value> {
    let whole = Pprf::new(Secret::from_slice(root));
    let mut pprf = whole.clone();
    let mut steps = Vec::new();
    for input in inputs {
        let (path, copath) = walk(kdf, root, input)?;
        let output = derive_fs_secret(kdf, &mut pprf, input)?;
        steps.push(json!({
            "input": hex::encode(input),
            "path": path,
            "copath": copath,
            "output": hex::encode(output.as_slice()),
            "encoding_after_puncture": hex::encode(pprf.encode().as_slice()),
        }));
    }
    Ok(json!({
        "root": hex::encode(root),
        "encoding": hex::encode(whole.encode().as_slice()),
        "steps": steps,
    }))
}

/// Node secrets on the path of an input (root first, leaf last) and beside it (top first).
fn walk(
    kdf: &Kdf<'_, RustCrypto>,
    root: &[u8],
    input: &[u8; 32],
) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut secret = Secret::from_slice(root);
    let (mut path, mut copath) = (vec![hex::encode(root)], Vec::new());
    for level in 0..256 {
        let left = kdf.expand_with_label(secret.as_slice(), "tree", b"left", 32)?;
        let right = kdf.expand_with_label(secret.as_slice(), "tree", b"right", 32)?;
        let goes_right = input[level / 8] & (0x80 >> (level % 8)) != 0;
        let (on, beside) = if goes_right { (right, left) } else { (left, right) };
        path.push(hex::encode(on.as_slice()));
        copath.push(hex::encode(beside.as_slice()));
        secret = on;
    }
    Ok((path, copath))
}

/// One commit, from the epoch secret of its parent to the joiner secret of the next epoch.
fn key_schedule_vector(
    crypto: &RustCrypto,
    kdf: &Kdf<'_, RustCrypto>,
    suite: Ciphersuite,
) -> anyhow::Result<Value> {
    let number = suite as u16;
    let given = |name: &str| given(crypto, &format!("{name} of ciphersuite {number}"));
    let (epoch_secret, path_secret) = (given("epoch_secret")?, given("path_secret")?);
    let group_context = [given("GroupContext")?, given("GroupContext, continued")?].concat();
    let parent_init = parent_init_secret(kdf, &epoch_secret)?;
    let commit_secret = kdf.derive_secret(&path_secret, "path")?;
    let confirmation = commit_confirmation(kdf, &path_secret)?;
    let input = child_init(kdf, confirmation.as_slice(), &group_context)?;
    let init_secret = derive_fs_secret(kdf, &mut Pprf::new(parent_init.clone()), input.as_slice())?;
    let intermediate = kdf.extract(init_secret.as_slice(), commit_secret.as_slice())?;
    let joiner = kdf.expand_with_label(intermediate.as_slice(), "joiner", &group_context, kdf.nh())?;
    Ok(json!({
        "cipher_suite": number,
        "epoch_secret": hex::encode(epoch_secret),
        "dmls_epoch": hex::encode(dmls_epoch(kdf, &epoch_secret)?.as_slice()),
        "parent_init_secret": hex::encode(parent_init.as_slice()),
        "path_secret": hex::encode(path_secret),
        "commit_secret": hex::encode(commit_secret.as_slice()),
        "commit_confirmation": hex::encode(confirmation.as_slice()),
        "new_group_context": hex::encode(&group_context),
        "input": hex::encode(input.as_slice()),
        "init_secret": hex::encode(init_secret.as_slice()),
        "intermediate_secret": hex::encode(intermediate.as_slice()),
        "joiner_secret": hex::encode(joiner.as_slice()),
    }))
}
