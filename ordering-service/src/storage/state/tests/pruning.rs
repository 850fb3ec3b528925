use concordat_proto::ordering::v1::{GroupPruned, PruneGroup};
use group_log::{ChainVerifier, limits::DEDUPE_WINDOW};

use super::*;
use crate::storage::StorageError;

fn prune(group: &str, upto_seq: u64) -> Bytes {
    encode(Cmd::PruneGroup(PruneGroup { group_id: Bytes::copy_from_slice(group.as_bytes()), upto_seq }))
}

fn gone(answer: &Answer) -> (u64, u64) {
    match answer {
        Answer::GroupPruned(GroupPruned { pruned_seq, entries }) => (*pruned_seq, *entries),
        other => panic!("not pruned: {other:?}"),
    }
}

/// A group with a message and a commit that adds bob in each epoch.
fn machine(epochs: u64) -> Machine {
    let mut machine = Machine::new(1);
    machine.apply([create("g"), create("other")]);
    for epoch in 0..epochs {
        let adds: &[&str] = if epoch % 2 == 0 { &["bob"] } else { &[] };
        machine.apply([
            message("g", epoch, &format!("m{epoch}")),
            commit("g", epoch, &format!("c{epoch}"), adds),
        ]);
    }
    machine
}

/// Everything that tells of the group but where the bytes are.
fn seen(machine: &Machine) -> impl PartialEq + std::fmt::Debug + use<> {
    let reader = &machine.reader;
    let pruned = reader.pruned(b"g").unwrap();
    let entries = reader.entries(b"g", pruned.seq, 1000, usize::MAX).unwrap();
    (
        pruned,
        reader.head(b"g").unwrap(),
        reader.group_info(b"g").unwrap(),
        entries,
        reader.inbox(b"bob", 0, 100).unwrap(),
    )
}

#[test]
fn what_is_given_up_can_not_be_read_and_the_rest_is_as_before() {
    let mut machine = machine(6);
    let before = machine.reader.entries(b"g", 0, 100, usize::MAX).unwrap();
    assert_eq!(gone(&machine.apply_one(prune("g", 7))), (7, 7));
    assert_eq!(gone(&machine.apply_one(prune("g", 7))), (7, 0), "the same again changes nothing");
    let check = |machine: &Machine| {
        let reader = &machine.reader;
        for after in 0..7 {
            let error = reader.entries(b"g", after, 100, usize::MAX).unwrap_err();
            assert!(matches!(error, StorageError::Pruned(pruned) if pruned.seq == 7), "{error}");
            assert!(reader.entries(b"g", after, 2, usize::MAX).is_err());
        }
        assert_eq!(reader.entries(b"g", 7, 100, usize::MAX).unwrap(), before[7..]);
        let pruned = reader.pruned(b"g").unwrap();
        assert_eq!(pruned.chain.to_bytes(), before[6].chain_hash);
        let mut chain = ChainVerifier::after(pruned.seq, pruned.chain, None);
        for entry in &before[7..] {
            chain.push(&entry.clone().try_into().unwrap()).unwrap();
        }
        assert_eq!(reader.entries(b"other", 0, 100, usize::MAX).unwrap().len(), 1);
        assert_eq!(&reader.group_info(b"g").unwrap().unwrap().message[..], b"group info of c5");
    };
    check(&machine);
    let machine = machine.restart();
    check(&machine);
    let Copied { machine: copy, .. } = machine.copy_by_snapshot();
    check(&copy);
    assert_eq!(seen(&copy), seen(&machine));
}

#[test]
fn answers_stay_the_same_but_a_winner_that_is_gone_is_not_shown() {
    let mut machine = machine(3);
    let again =
        [create("g"), message("g", 2, "m2"), commit("g", 0, "c0", &["bob"]), commit("g", 2, "c2", &["bob"])];
    let before = machine.apply(again.clone());
    assert!(before.iter().all(|answer| matches!(answer, Answer::Accepted(_))));
    let lost = [commit("g", 0, "other", &[]), commit("g", 2, "other", &[])];
    assert_eq!(gone(&machine.apply_one(prune("g", u64::MAX))), (6, 6));
    let mut machine = machine.restart();
    assert_eq!(machine.apply(again), before);
    let answers = machine.apply(lost.clone());
    assert!(matches!(&answers[0], Answer::Superseded(superseded) if superseded.winner.is_none()));
    assert!(
        matches!(&answers[1], Answer::Superseded(superseded) if superseded.winner.as_ref().unwrap().seq == 7)
    );
    let Ok(Command { command: Some(Cmd::Group(commit)) }) = Command::decode(lost[0].clone()) else {
        panic!("a commit")
    };
    assert_eq!(
        machine.reader.decided(&commit, machine.at_ms).unwrap().unwrap().outcome,
        Some(answers[0].clone())
    );
}

#[test]
fn welcomes_go_with_their_commits() {
    let mut machine = machine(6);
    let waiting = |machine: &Machine| -> Vec<u64> {
        machine.reader.inbox(b"bob", 0, 100).unwrap().iter().map(|welcome| welcome.seq).collect()
    };
    assert_eq!(waiting(&machine), [3, 7, 11]);
    machine.apply([prune("g", 8)]);
    assert_eq!(waiting(&machine), [11]);
    let mut machine = machine.restart();
    assert_eq!(waiting(&machine), [11]);
    let ack = concordat_proto::ordering::v1::AckWelcomes {
        client_id: Bytes::from_static(b"bob"),
        position: u64::MAX,
    };
    let acked = machine.apply_one(encode(Cmd::AckWelcomes(ack)));
    assert!(matches!(acked, Answer::WelcomesAcked(acked) if acked.left == 0));
}

#[test]
fn records_outside_the_window_leave_the_state_too() {
    let mut machine = Machine::new(1);
    machine.apply([create("g")]);
    let epochs = (DEDUPE_WINDOW + 600).next_multiple_of(100);
    for begin in (0..epochs).step_by(100) {
        machine.apply((begin..begin + 100).map(|epoch| commit("g", epoch, "c", &[])));
    }
    let records = |machine: &Machine| machine.dump().iter().filter(|(key, _)| key[0] == 0x11).count() as u64;
    let head = machine.reader.head(b"g").unwrap().unwrap();
    assert_eq!(records(&machine), head.seq);
    loop {
        if gone(&machine.apply_one(prune("g", u64::MAX))).1 == 0 {
            break;
        }
    }
    assert_eq!(records(&machine), DEDUPE_WINDOW + 1);
    assert_eq!(machine.reader.entries(b"g", head.seq - 1, 10, usize::MAX).unwrap().len(), 1);
    assert!(matches!(machine.apply_one(commit("g", epochs, "next", &[])), Answer::Accepted(_)));
    assert!(matches!(machine.apply_one(message("g", epochs + 1, "m")), Answer::Accepted(_)));
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut machine = machine(1);
    let before = machine.dump();
    let answers =
        machine.apply([prune("", 3), prune(&"x".repeat(300), 3), prune("nowhere", 3), prune("g", 0)]);
    assert_eq!(reason(&answers[0]), Some(Reason::Malformed));
    assert_eq!(reason(&answers[1]), Some(Reason::Malformed));
    assert_eq!((gone(&answers[2]), gone(&answers[3])), ((0, 0), (0, 0)));
    let plain = |rows: Vec<(Vec<u8>, Vec<u8>)>| {
        rows.into_iter().filter(|(key, _)| key[0] >= 0x10).collect::<Vec<_>>()
    };
    assert_eq!(plain(machine.dump()), plain(before));
}

#[test]
fn one_batch_or_many_come_to_the_same() {
    let commands = |epoch: u64| {
        [
            message("g", epoch, "m"),
            commit("g", epoch, "c", &["bob"]),
            prune("g", epoch),
            prune("g", 2 * epoch),
        ]
    };
    let all: Vec<Bytes> = std::iter::once(create("g")).chain((0..20).flat_map(commands)).collect();
    let (mut whole, mut parts) = (Machine::new(1), Machine::new(1));
    whole.apply(all.clone());
    for command in all {
        parts.apply([command]);
    }
    assert_eq!(whole.dump(), parts.dump());
}
