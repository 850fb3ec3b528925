use concordat_proto::ordering::v1::{AckWelcomes, AssignGroup, ClaimKeyPackage, UploadKeyPackages};

use super::*;
use crate::raft::types::DIRECTORY;

fn assign(group: &str, shard: u32) -> Bytes {
    encode(Cmd::AssignGroup(AssignGroup { group_id: Bytes::copy_from_slice(group.as_bytes()), shard }))
}

fn assigned(answer: &Answer) -> u32 {
    match answer {
        Answer::GroupAssigned(assigned) => assigned.shard,
        other => panic!("not assigned: {other:?}"),
    }
}

#[test]
fn the_first_assignment_of_a_group_wins_for_good() {
    let mut machine = Machine::new(DIRECTORY);
    let answers = machine.apply([assign("g", 2), assign("g", 1), assign("h", 1)]);
    assert_eq!(answers.iter().map(assigned).collect::<Vec<_>>(), [2, 2, 1]);
    let mut machine = machine.restart();
    assert_eq!(assigned(&machine.apply_one(assign("g", 3))), 2);
    assert_eq!(machine.reader.locate(b"g").unwrap(), Some(2));
    assert_eq!(machine.reader.locate(b"none").unwrap(), None);
    for bad in [assign("", 1), assign(&"g".repeat(257), 1), assign("x", 0), assign("x", 65)] {
        assert_eq!(reason(&machine.apply_one(bad)), Some(Reason::Malformed));
    }
}

#[test]
fn commands_for_another_kind_of_shard_are_refused() {
    let client_id = Bytes::from_static(b"bob");
    let for_directory = [
        assign("g", 1),
        encode(Cmd::UploadKeyPackages(UploadKeyPackages {
            client_id: client_id.clone(),
            ..Default::default()
        })),
        encode(Cmd::ClaimKeyPackage(ClaimKeyPackage { client_id: client_id.clone(), ..Default::default() })),
    ];
    let for_data = [create("g"), encode(Cmd::AckWelcomes(AckWelcomes { client_id, position: 1 }))];
    for (shard, commands) in [(1, &for_directory[..]), (DIRECTORY, &for_data[..])] {
        let mut machine = Machine::new(shard);
        let empty = machine.dump().len();
        for answer in machine.apply(commands.iter().cloned()) {
            assert_eq!(reason(&answer), Some(Reason::WrongShard));
        }
        // The position, and one row for each entry that nothing refers to.
        assert_eq!(machine.dump().len(), empty + 1 + commands.len());
    }
}
