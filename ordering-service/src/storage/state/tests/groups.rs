use group_log::ChainVerifier;
use proptest::prelude::*;

use super::*;

fn winner(answer: &Answer) -> concordat_proto::log::v1::Entry {
    match answer {
        Answer::Superseded(superseded) => superseded.winner.clone().unwrap(),
        other => panic!("not superseded: {other:?}"),
    }
}

#[test]
fn one_commit_an_epoch_and_the_loser_gets_the_winner_whole() {
    let mut machine = Machine::new(1);
    // In one batch: each command sees what those before it did.
    let answers = machine.apply([
        create("g"),
        commit("g", 0, "mine", &["bob"]),
        commit("g", 0, "yours", &[]),
        commit("g", 0, "mine", &["bob"]),
    ]);
    assert!(matches!(&answers[1], Answer::Accepted(accepted) if accepted.seq == 2 && accepted.epoch == 1));
    assert_eq!(answers[3], answers[1]);
    let entry = winner(&answers[2]);
    assert_eq!(entry, machine.reader.entries(b"g", 1, 10, 9999).unwrap()[0]);
    let Some(Kind::Commit(commit_entry)) = entry.content.unwrap().content else { panic!("no commit") };
    assert_eq!(
        (&commit_entry.message[..], &commit_entry.welcome[..]),
        (&b"mine"[..], &b"welcome of mine"[..])
    );

    // The same again after a restart, from the disk and not from memory.
    let mut machine = machine.restart();
    let again = machine.apply([commit("g", 0, "yours", &[]), commit("g", 0, "mine", &["bob"])]);
    assert_eq!(again, [answers[2].clone(), answers[1].clone()]);
}

#[test]
fn readers_get_heads_pages_chains_and_group_infos() {
    let mut machine = Machine::new(1);
    machine.apply([create("g"), create("other")]);
    for epoch in 0..5 {
        machine.apply([
            message("g", epoch, &format!("m{epoch}")),
            commit("g", epoch, &format!("c{epoch}"), &[]),
        ]);
    }
    let reader = &machine.reader;
    let head = reader.head(b"g").unwrap().unwrap();
    assert_eq!((head.seq, head.epoch), (11, 5));
    assert_eq!(reader.head(b"none").unwrap(), None);
    assert_eq!(reader.head(b"other").unwrap().unwrap().seq, 1);

    let entries = reader.entries(b"g", 0, 100, usize::MAX).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
    let mut chain = ChainVerifier::new();
    for entry in &entries {
        chain.push(&entry.clone().try_into().unwrap()).unwrap();
    }
    assert_eq!(chain.chain(), head.chain);
    assert_eq!(reader.entries(b"g", 9, 100, usize::MAX).unwrap(), entries[9..]);
    assert_eq!(reader.entries(b"g", 3, 2, usize::MAX).unwrap(), entries[3..5]);
    assert_eq!(reader.entries(b"g", 3, 100, 1).unwrap(), entries[3..4]);
    assert!(reader.entries(b"g", 11, 100, usize::MAX).unwrap().is_empty());
    assert!(reader.entries(b"g", u64::MAX, 100, usize::MAX).unwrap().is_empty());
    assert!(reader.entries(b"none", 0, 100, usize::MAX).unwrap().is_empty());

    for entry in &entries {
        assert_eq!(reader.entry_chain(b"g", entry.seq).unwrap().unwrap().to_bytes(), entry.chain_hash);
    }
    assert_eq!(reader.entry_chain(b"g", 12).unwrap(), None);
    let info = reader.group_info(b"g").unwrap().unwrap();
    assert_eq!((info.epoch, &info.message[..]), (5, &b"group info of c4"[..]));
    assert_eq!(reader.group_info(b"none").unwrap(), None);
}

#[test]
fn the_observer_is_told_once_a_batch_with_the_newest_places() {
    let mut machine = Machine::new(1);
    machine.apply([
        create("g"),
        commit("g", 0, "a", &["bob"]),
        commit("g", 1, "b", &["bob", "carol"]),
        commit("g", 0, "late", &[]),
    ]);
    machine.apply([commit("g", 0, "later", &[])]);
    let client = |name: &'static str, position| {
        let client_id = Bytes::from_static(name.as_bytes());
        Advanced::Inbox { client_id, position }
    };
    let group = Advanced::Group { group_id: Bytes::from_static(b"g"), seq: 3 };
    assert_eq!(
        *machine.told.lock(),
        vec![(3, vec![group, client("bob", 2), client("carol", 2)]), (4, Vec::new())]
    );
}

#[test]
fn what_does_not_decode_is_refused_and_applied() {
    let mut machine = Machine::new(1);
    let unknown = Bytes::from_static(&[0xfa, 0x7f, 0x01, 0x00]);
    let answers = machine.apply([
        Bytes::from_static(b"\xff\xff"),
        Bytes::new(),
        unknown,
        submission("", 0, Kind::Application(Application { message: Bytes::from_static(b"m") })),
        encode(Cmd::Group(GroupSubmission::default())),
        message("nowhere", 0, "m"),
    ]);
    let reasons: Vec<_> = answers.iter().map(|answer| reason(answer).unwrap()).collect();
    assert_eq!(
        reasons,
        [
            Reason::Malformed,
            Reason::UnknownCommand,
            Reason::UnknownCommand,
            Reason::Malformed,
            Reason::Malformed,
            Reason::GroupNotFound
        ]
    );
    assert_eq!(machine.reader.last_applied().unwrap().index, 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn rubbish_is_refused_without_a_panic(
        commands in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..60),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 20),
    ) {
        let mut machine = Machine::new(1);
        machine.apply([create("g")]);
        let good = commit("g", 0, "a commit", &["bob", "carol"]);
        let flipped = flips.iter().map(|(at, bit)| {
            let mut bytes = good.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            Bytes::from(bytes)
        });
        let commands: Vec<_> = commands.into_iter().map(Bytes::from).chain(flipped).collect();
        let count = commands.len();
        prop_assert_eq!(machine.apply(commands).len(), count);
        let entries = machine.reader.entries(b"g", 0, 1000, usize::MAX).unwrap();
        prop_assert_eq!(machine.reader.head(b"g").unwrap().unwrap().seq, entries.len() as u64);
    }
}
