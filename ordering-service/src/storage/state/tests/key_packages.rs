use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concordat_proto::{
    log::v1::KeyPackage,
    ordering::v1::{ClaimKeyPackage, UploadKeyPackages},
};
use proptest::prelude::*;

use super::*;
use crate::{
    raft::types::DIRECTORY,
    storage::{
        limits::{CLAIMS_REMEMBERED_PER_CLIENT, KEY_PACKAGES_PER_CLIENT},
        state::reader::KeyPackageStatus,
    },
};

fn package(number: u64, last_resort: bool) -> KeyPackage {
    KeyPackage {
        key_package_ref: Bytes::from(format!("ref {number} {last_resort}")),
        key_package: Bytes::from(format!("package {number}")),
        last_resort,
    }
}

fn upload(packages: impl IntoIterator<Item = KeyPackage>, replace: bool) -> Bytes {
    let client_id = Bytes::from_static(b"bob");
    let key_packages = packages.into_iter().collect();
    encode(Cmd::UploadKeyPackages(UploadKeyPackages { client_id, key_packages, replace }))
}

fn claim(claimer: &str, id: u64) -> Bytes {
    encode(Cmd::ClaimKeyPackage(ClaimKeyPackage {
        client_id: Bytes::from_static(b"bob"),
        claim_id: Bytes::copy_from_slice(&id.to_be_bytes()),
        claimer: Bytes::copy_from_slice(claimer.as_bytes()),
    }))
}

fn claimed(answer: &Answer) -> KeyPackage {
    match answer {
        Answer::KeyPackageClaimed(claimed) => claimed.key_package.clone().unwrap(),
        other => panic!("not claimed: {other:?}"),
    }
}

#[test]
fn key_packages_are_handed_out_once_then_the_last_resort_again_and_again() {
    let mut machine = Machine::new(DIRECTORY);
    assert_eq!(reason(&machine.apply_one(claim("alice", 1))), Some(Reason::KeyPackagesExhausted));
    machine.apply_one(upload([package(1, false), package(9, true), package(2, false)], false));
    assert_eq!(
        machine.reader.key_package_status(b"bob").unwrap(),
        KeyPackageStatus { one_time_left: 2, has_last_resort: true }
    );
    let answers = machine.apply([claim("alice", 1), claim("alice", 1), claim("carol", 1), claim("alice", 2)]);
    let packages: Vec<_> = answers.iter().map(claimed).collect();
    assert_eq!(packages, [package(1, false), package(1, false), package(2, false), package(9, true)]);

    // Uploading what was handed out does not make it claimable again.
    let mut machine = machine.restart();
    machine.apply_one(upload([package(1, false), package(2, false)], false));
    assert_eq!(claimed(&machine.apply_one(claim("dave", 7))), package(9, true));
    assert_eq!(claimed(&machine.apply_one(claim("alice", 1))), package(1, false));

    // Nor does replacing all that is stored.
    let all = [package(1, false), package(3, false), package(8, true)];
    machine.apply_one(upload(all.clone(), true));
    machine.apply_one(upload(all, true));
    assert_eq!(claimed(&machine.apply_one(claim("erin", 1))), package(3, false));
    assert_eq!(claimed(&machine.apply_one(claim("erin", 2))), package(8, true));
}

#[test]
fn an_upload_over_the_quota_or_of_impossible_packages_changes_nothing() {
    let mut machine = Machine::new(DIRECTORY);
    for begin in (0..KEY_PACKAGES_PER_CLIENT).step_by(100) {
        machine.apply_one(upload((begin..begin + 100).map(|number| package(number, false)), false));
    }
    let before = machine.reader.key_package_status(b"bob").unwrap();
    assert_eq!(u64::from(before.one_time_left), KEY_PACKAGES_PER_CLIENT);
    let over = upload([package(5, false), package(5000, false)], false);
    assert_eq!(reason(&machine.apply_one(over)), Some(Reason::KeyPackageQuota));
    // What is stored already takes no room.
    assert_eq!(reason(&machine.apply_one(upload([package(5, false), package(9, true)], false))), None);
    let bad = [
        (upload((0..101).map(|number| package(number, false)), false), Reason::TooLarge),
        (upload([KeyPackage { key_package: Bytes::new(), ..package(1, false) }], false), Reason::Malformed),
        (
            upload([KeyPackage { key_package_ref: Bytes::new(), ..package(1, false) }], false),
            Reason::Malformed,
        ),
        (
            upload([KeyPackage { key_package_ref: vec![1; 65].into(), ..package(1, false) }], false),
            Reason::TooLarge,
        ),
        (claim("", 1), Reason::Malformed),
    ];
    for (command, expected) in bad {
        assert_eq!(reason(&machine.apply_one(command)), Some(expected));
    }
    assert_eq!(machine.reader.key_package_status(b"bob").unwrap().one_time_left, before.one_time_left);
}

#[test]
fn claims_are_forgotten_after_their_window_and_rows_do_not_pile_up() {
    let mut machine = Machine::new(DIRECTORY);
    machine.apply_one(upload([package(0, true)], false));
    let mut next = 0;
    for round in 0..=CLAIMS_REMEMBERED_PER_CLIENT / 100 {
        machine.apply_one(upload((0..100).map(|number| package(1 + round * 100 + number, false)), false));
        machine.apply((0..100).map(|_| {
            next += 1;
            claim("alice", next)
        }));
    }
    let remembered =
        |machine: &Machine, tag: u8| machine.dump().iter().filter(|(key, _)| key[0] == tag).count() as u64;
    assert_eq!(remembered(&machine, 0x43), CLAIMS_REMEMBERED_PER_CLIENT);
    assert_eq!(remembered(&machine, 0x44), CLAIMS_REMEMBERED_PER_CLIENT);
    assert_eq!(remembered(&machine, 0x42), CLAIMS_REMEMBERED_PER_CLIENT + 1);
    assert_eq!(claimed(&machine.apply_one(claim("alice", next))), package(next, false));
}

#[derive(Clone, Debug)]
enum Step {
    Upload(Vec<(u64, bool)>, bool),
    Claim(u8, u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        9 => (proptest::collection::vec((0u64..30, proptest::bool::weighted(0.1)), 0..5), proptest::bool::weighted(0.15))
            .prop_map(|(packages, replace)| Step::Upload(packages, replace)),
        18 => (0u8..3, 0u64..12).prop_map(|(claimer, id)| Step::Claim(claimer, id)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The same, written naively.
#[derive(Default)]
struct Model {
    one_time: VecDeque<u64>,
    last_resort: Option<u64>,
    handed_out: BTreeSet<u64>,
    claims: BTreeMap<(u8, u64), KeyPackage>,
}

impl Model {
    fn upload(&mut self, packages: &[(u64, bool)], replace: bool) {
        if replace {
            self.one_time.clear();
            self.last_resort = None;
        }
        for &(number, last_resort) in packages {
            if last_resort {
                self.last_resort = Some(number);
            } else if !self.one_time.contains(&number) && !self.handed_out.contains(&number) {
                self.one_time.push_back(number);
            }
        }
    }

    fn claim(&mut self, claimer: u8, id: u64) -> Option<KeyPackage> {
        if let Some(known) = self.claims.get(&(claimer, id)) {
            return Some(known.clone());
        }
        let found = match self.one_time.pop_front() {
            Some(number) => {
                assert!(self.handed_out.insert(number), "handed out twice");
                package(number, false)
            }
            None => package(self.last_resort?, true),
        };
        self.claims.insert((claimer, id), found.clone());
        Some(found)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn no_one_time_package_is_handed_out_twice(steps in steps()) {
        let mut machine = Machine::new(DIRECTORY);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Restart => machine = machine.restart(),
                Step::Upload(packages, replace) => {
                    model.upload(&packages, replace);
                    let packages = packages.iter().map(|(number, last)| package(*number, *last));
                    machine.apply_one(upload(packages, replace));
                }
                Step::Claim(claimer, id) => {
                    let answer = machine.apply_one(claim(&format!("claimer {claimer}"), id));
                    match model.claim(claimer, id) {
                        Some(expected) => prop_assert_eq!(claimed(&answer), expected),
                        None => prop_assert_eq!(reason(&answer), Some(Reason::KeyPackagesExhausted)),
                    }
                }
            }
            let status = machine.reader.key_package_status(b"bob").unwrap();
            prop_assert_eq!(status.one_time_left as usize, model.one_time.len());
            prop_assert_eq!(status.has_last_resort, model.last_resort.is_some());
        }
    }
}
