use concordat_proto::ordering::v1::AckWelcomes;
use proptest::prelude::*;

use super::*;

/// Commands over two groups and three clients, most of which are accepted, many again and again.
fn commands() -> impl Strategy<Value = Vec<Bytes>> {
    let group = || prop_oneof![Just("g"), Just("h")];
    let added = prop_oneof![Just(&[][..]), Just(&["bob"][..]), Just(&["bob", "carol"][..])];
    let text = || prop_oneof![Just("a"), Just("b"), Just("c")];
    let command = prop_oneof![
        1 => group().prop_map(create),
        6 => (group(), 0u64..6, text(), added).prop_map(|(group, epoch, text, added)| commit(group, epoch, text, added)),
        4 => (group(), 0u64..6, text()).prop_map(|(group, epoch, text)| message(group, epoch, text)),
        3 => (group(), 0u64..6, text()).prop_map(|(group, epoch, text)| proposal(group, epoch, text)),
        1 => (group(), 0u64..6, 0u32..4).prop_map(|(group, epoch, past)| policy(group, epoch, past)),
        1 => (0u64..60).prop_map(|position| {
            encode(Cmd::AckWelcomes(AckWelcomes { client_id: Bytes::from_static(b"bob"), position }))
        }),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
    ];
    proptest::collection::vec(command, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_restarts_change_neither_answers_nor_state(
        commands in commands(),
        cuts in proptest::collection::vec((1usize..12, proptest::bool::weighted(0.1)), 60),
    ) {
        let mut one_by_one = Machine::new(1);
        let mut batched = Machine::new(1);
        // Groups exist from the start in most runs, so that most commands mean something.
        let commands: Vec<_> = [create("g"), create("h")].into_iter().chain(commands).collect();
        let expected: Vec<_> =
            commands.iter().map(|command| one_by_one.apply_one(command.clone())).collect();
        let (mut answers, mut left) = (Vec::new(), &commands[..]);
        for (size, restart) in cuts {
            let (batch, rest) = left.split_at(size.min(left.len()));
            if !batch.is_empty() {
                answers.extend(batched.apply(batch.iter().cloned()));
            }
            if restart {
                batched = batched.restart();
            }
            left = rest;
        }
        answers.extend(if left.is_empty() { Vec::new() } else { batched.apply(left.iter().cloned()) });
        prop_assert_eq!(answers, expected);
        prop_assert_eq!(batched.dump(), one_by_one.dump());
        for group in ["g", "h"] {
            prop_assert_eq!(
                batched.reader.entries(group.as_bytes(), 0, 1000, usize::MAX).unwrap(),
                one_by_one.reader.entries(group.as_bytes(), 0, 1000, usize::MAX).unwrap()
            );
        }
    }
}

#[test]
fn entries_at_or_below_the_last_applied_one_change_nothing() {
    let mut machine = Machine::new(1);
    let entries = [create("g"), commit("g", 0, "a", &["bob"])];
    machine.apply(entries.clone());
    let before = machine.dump();
    machine.next = 0;
    let again: Vec<_> = entries
        .into_iter()
        .zip(0..)
        .map(|(command, index)| Committed {
            entry: LogEntry {
                log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, index),
                payload: EntryPayload::Normal(Proposed { at_ms: 7, command }),
            },
            wanted: false,
        })
        .collect();
    apply(&machine.state, &again).unwrap();
    assert_eq!(machine.dump(), before);
    assert_eq!(machine.told.lock().len(), 1);
    assert!(machine.storage.failure().is_none());
}
