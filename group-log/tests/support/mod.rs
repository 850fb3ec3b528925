//! What the tests share: short ways to write submissions, and seeds.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod oracle;

use bytes::Bytes;
use group_log::{
    ClientId, Commit, Content, Create, GroupId, GroupKind, KeyPackageRef, Policy, StateId, Submission,
    WelcomeRecipient,
};
use proptest::test_runner::{Config, RngSeed};

/// A property test's configuration. The seed is printed (a failing test shows its output) and `CONCORDAT_SEED` replays it.
pub fn seeded(cases: u32) -> Config {
    let seed = seed();
    println!("replay with CONCORDAT_SEED={seed}");
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}

/// From `CONCORDAT_SEED`, or from the clock.
pub fn seed() -> u64 {
    let chosen = std::env::var("CONCORDAT_SEED").ok();
    chosen.map(|seed| seed.parse().expect("CONCORDAT_SEED is a number")).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("the clock is past 1970").as_nanos() as u64 % 1_000_000_000
    })
}

pub fn group(name: &str) -> GroupId {
    GroupId::new(name.to_owned().into_bytes()).unwrap()
}

pub fn client(name: &str) -> ClientId {
    ClientId::new(name.to_owned().into_bytes()).unwrap()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A submission by `author` to the group named `name`.
pub fn submission(name: &str, author: &str, epoch: u64, content: Content) -> Submission {
    Submission { group_id: group(name), author: client(author), epoch, parent_state_id: None, content }
}

pub fn made_in(state: StateId, submission: Submission) -> Submission {
    Submission { parent_state_id: Some(state), ..submission }
}

pub fn create(group_info: &str) -> Content {
    create_as(GroupKind::Mls, Policy::default(), group_info)
}

pub fn create_as(kind: GroupKind, policy: Policy, group_info: &str) -> Content {
    Content::Create(Create { kind, policy, group_info: bytes(group_info) })
}

pub fn commit(message: &str) -> Content {
    Content::Commit(Commit {
        message: bytes(message),
        welcome: Bytes::new(),
        group_info: Bytes::new(),
        recipients: Vec::new(),
    })
}

/// A commit with a GroupInfo and a Welcome for these clients.
pub fn commit_adding(message: &str, added: &[&str]) -> Content {
    let recipients = added.iter().map(|name| WelcomeRecipient {
        client_id: client(name),
        key_package_ref: KeyPackageRef::new(format!("ref of {name}").into_bytes()).unwrap(),
    });
    Content::Commit(Commit {
        message: bytes(message),
        welcome: bytes("welcome"),
        group_info: bytes("group info"),
        recipients: recipients.collect(),
    })
}

pub fn proposal(message: &str) -> Content {
    Content::Proposal { message: bytes(message) }
}

pub fn application(message: &str) -> Content {
    Content::Application { message: bytes(message) }
}

pub fn policy(past_epochs: u32) -> Content {
    Content::PolicyChange { policy: Policy { past_epochs, ..Policy::default() }, turns: None }
}
