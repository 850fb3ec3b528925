//! What holds for every history: random ones, over and over.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use group_log::{
    ChainHash, ChainVerifier, ClientId, CommitRef, Content, Decision, EntryId, EntryKind, GroupKind, Head,
    Limits, MemoryLog, Offer, Policy, Record, Refusal, StateId, Submission, limits::DEDUPE_WINDOW, validate,
    verify_entry,
};
use proptest::{collection::vec, prelude::*};
use support::{
    application, commit, commit_adding, create, create_as, made_in, policy, proposal, seeded, submission,
};

/// One step of a random history, relative to the head at that moment.
#[derive(Clone, Copy, Debug)]
struct Step {
    kind: u8,
    author: u8,
    epochs_behind: i64,
    text: u8,
    with_parent: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let epochs_behind = prop_oneof![6 => Just(0), 3 => 1..4i64, 1 => Just(-1)];
    (0..24u8, 0..3u8, epochs_behind, 0..6u8, any::<bool>()).prop_map(
        |(kind, author, epochs_behind, text, with_parent)| Step {
            kind,
            author,
            epochs_behind,
            text,
            with_parent,
        },
    )
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn submit(log: &MemoryLog, step: Step) -> Submission {
    let author = ["ann", "bob", "cyn"][usize::from(step.author)];
    let text = step.text.to_string();
    let Some(head) = log.current() else { return submission("g", author, 7, create(&text)) };
    let epoch = head.epoch.saturating_add_signed(-step.epochs_behind);
    let content = match step.kind {
        0..=8 if step.text == 0 => commit_adding(&text, &["dan", "eve", "dan"]),
        0..=8 => commit(&text),
        9..=15 => application(&text),
        16..=19 => proposal(&text),
        20..=21 => policy(step.text.into()),
        22 => create(&text),
        _ if step.text == 0 => Content::Close,
        _ => application(&text),
    };
    let plain = submission("g", author, epoch, content);
    if step.with_parent && step.epochs_behind == 0 { made_in(head.state_id, plain) } else { plain }
}

/// Plays a history. Returns the log and every submission with its decision.
fn play(steps: Vec<Step>) -> (MemoryLog, Vec<(Submission, Decision)>) {
    let mut log = MemoryLog::new();
    let mut answers = Vec::new();
    for step in steps {
        let submission = submit(&log, step);
        let decision = log.apply(&submission);
        answers.push((submission, decision));
    }
    (log, answers)
}

proptest! {
    #![proptest_config(seeded(400))]

    #[test]
    fn an_answer_given_once_is_given_again_after_any_later_history(steps in history()) {
        let (log, answers) = play(steps);
        for (submission, decision) in answers {
            // A refusal names the head of its time, and may turn into something else: only answers about the log are final.
            if !matches!(decision, Decision::Refused(_)) {
                let mut again = log.clone();
                prop_assert_eq!(again.admit(&submission, &Limits::REPLICATED), decision.clone());
                prop_assert_eq!(again.apply(&submission), decision);
                prop_assert_eq!(&again, &log);
            }
        }
    }

    #[test]
    fn numbers_are_contiguous_and_the_chain_verifies(steps in history()) {
        let (log, _) = play(steps);
        let entries: Vec<_> = log.entries(0, usize::MAX).collect();
        let numbers: Vec<_> = entries.iter().map(|entry| entry.seq).collect();
        let head = log.current().unwrap();
        prop_assert_eq!(numbers, (1..=head.seq).collect::<Vec<_>>());

        let mut verifier = ChainVerifier::new();
        prop_assert_eq!(verifier.push_all(&entries), Ok(()));
        prop_assert_eq!(verifier.chain(), head.chain);
        prop_assert_eq!(verifier.position(), Some((head.epoch, head.state_id)));
        let mut chain = ChainHash::START;
        for entry in &entries {
            chain = verify_entry(&chain, entry).unwrap();
        }
        prop_assert_eq!(chain, head.chain);
    }

    #[test]
    fn every_epoch_has_one_commit(steps in history()) {
        let (log, answers) = play(steps);
        let mut commits = BTreeMap::new();
        for entry in log.entries(1, usize::MAX).filter(|entry| entry.content.kind() == EntryKind::Commit) {
            prop_assert_eq!(commits.insert(entry.epoch, entry.seq), None);
        }
        let head = log.current().unwrap();
        prop_assert_eq!(commits.keys().copied().collect::<Vec<_>>(), (head.first_epoch..head.epoch).collect::<Vec<_>>());
        for (submission, decision) in answers {
            if let Decision::Superseded { winner_seq } = decision {
                prop_assert_eq!(commits.get(&submission.epoch), Some(&winner_seq));
            }
        }
    }

    #[test]
    fn an_altered_log_is_noticed(steps in history(), at in any::<prop::sample::Index>(), how in 0..6u8) {
        let (log, _) = play(steps);
        let mut entries: Vec<_> = log.entries(1, usize::MAX).collect();
        let at = at.index(entries.len());
        let altered = &mut entries[at];
        match how {
            0 => altered.epoch += 1,
            1 => altered.state_id.0[0] ^= 1,
            2 => altered.author = None,
            3 => altered.chain.0[31] ^= 1,
            4 => altered.content = application("something else"),
            _ => { entries.remove(at); }
        }
        let checked = ChainVerifier::new().push_all(&entries);
        // Cutting off the end can not be noticed from the rest alone.
        prop_assert_eq!(checked.is_ok(), how > 4 && at == entries.len());
    }

    #[test]
    fn stored_forms_come_back_as_they_were(steps in history()) {
        let (log, _) = play(steps);
        let head = log.current().unwrap();
        prop_assert_eq!(&Head::decode(&head.encode()).unwrap(), head);
        use group_log::View;
        for seq in 1..=head.seq {
            let record = log.record(seq).unwrap().unwrap();
            prop_assert_eq!(Record::decode(&record.encode()).unwrap(), record);
        }
        for epoch in head.first_epoch..head.epoch {
            let commit = log.commit_ending(epoch).unwrap().unwrap();
            prop_assert_eq!(CommitRef::decode(&commit.encode()).unwrap(), commit);
        }
    }

    #[test]
    fn cut_and_lengthened_forms_are_refused(steps in history(), cut in any::<prop::sample::Index>()) {
        let (log, _) = play(steps);
        let whole = log.current().unwrap().encode();
        prop_assert!(Head::decode(&whole[..cut.index(whole.len())]).is_err());
        prop_assert!(Head::decode(&[whole.as_slice(), &[0]].concat()).is_err());
    }
}

proptest! {
    #![proptest_config(seeded(4000))]

    #[test]
    fn decoders_never_panic_and_one_head_has_one_form(mut bytes in vec(any::<u8>(), 0..160), likely in any::<bool>()) {
        if likely && bytes.len() > 2 {
            (bytes[0], bytes[1], bytes[2]) = (1, bytes[1] % 4, bytes[2] % 70);
        }
        if let Ok(head) = Head::decode(&bytes) {
            prop_assert_eq!(head.encode(), bytes.clone());
        }
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        if let Ok(commit) = CommitRef::decode(&bytes) {
            prop_assert_eq!(commit.encode(), bytes);
        }
    }

    #[test]
    fn any_head_comes_back_as_it_was(
        kind in 0..3usize, past_epochs in 0..=64u32, retained in any::<Option<(u32, u16)>>(), numbers in any::<[u64; 6]>(), hashes in any::<[[u8; 32]; 2]>(),
    ) {
        let (retain_entries, retain_hours) = retained.map_or((0, 0), |(entries, hours)| (entries.into(), hours.into()));
        let policy = Policy { past_epochs, retain_entries, retain_hours };
        let [first_epoch, epoch, seq, closed, group_info_seq, group_info_epoch] = numbers.map(|number| number >> 2);
        let head = Head {
            kind: [GroupKind::Mls, GroupKind::Demls, GroupKind::Dimls][kind],
            policy,
            first_epoch,
            epoch,
            state_id: StateId(hashes[0]),
            seq,
            chain: ChainHash(hashes[1]),
            closed: (closed != 0).then_some(closed),
            group_info_seq,
            group_info_epoch,
            turn: None,
        };
        prop_assert_eq!(Head::decode(&head.encode()), Ok(head));
    }
}

#[test]
fn a_repeated_message_is_recognised_within_the_window_and_the_index_stays_bounded() {
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    let first = submission("g", "bob", 0, application("first"));
    let accepted = log.apply(&first);
    for n in 0..DEDUPE_WINDOW - 1 {
        log.apply(&submission("g", "ann", 0, application(&n.to_string())));
    }
    assert_eq!(log.apply(&first), accepted, "still within the window");
    log.apply(&submission("g", "ann", 0, application("one more")));
    assert_eq!(log.recent_len() as u64, DEDUPE_WINDOW);
    let again = log.apply(&first);
    assert!(
        matches!(again, Decision::Accepted(new) if new.seq == DEDUPE_WINDOW + 3),
        "outside it is new: {again:?}"
    );
}

#[test]
fn commits_and_the_create_are_recognised_forever() {
    let mut log = MemoryLog::new();
    let created = submission("g", "ann", 0, create("info"));
    let answer = log.apply(&created);
    let winner = submission("g", "ann", 0, commit("winner"));
    let accepted = log.apply(&winner);
    for epoch in 1..DEDUPE_WINDOW + 10 {
        log.apply(&submission("g", "bob", epoch, commit(&epoch.to_string())));
    }
    assert_eq!(log.recent_len(), 0, "commits need no index");
    assert_eq!(log.apply(&created), answer);
    assert_eq!(log.apply(&winner), accepted);
    assert_eq!(
        log.apply(&submission("g", "bob", 0, commit("loser"))),
        Decision::Superseded { winner_seq: 2 }
    );
}

#[test]
fn a_closed_group_still_answers_for_what_it_holds_and_accepts_nothing_new() {
    let mut log = MemoryLog::new();
    let history = [
        submission("g", "ann", 0, create("info")),
        submission("g", "ann", 0, proposal("p")),
        submission("g", "ann", 0, commit("a")),
        submission("g", "bob", 0, application("late")),
        submission("g", "bob", 1, policy(0)),
        submission("g", "ann", 1, Content::Close),
    ];
    let answers: Vec<_> = history.iter().map(|submission| log.apply(submission)).collect();
    assert!(answers.iter().all(|answer| matches!(answer, Decision::Accepted(_))), "{answers:?}");
    for (submission, answer) in history.iter().zip(answers) {
        assert_eq!(log.apply(submission), answer);
    }
    let closed = Decision::Refused(Refusal::GroupClosed { closed_seq: 6 });
    assert_eq!(log.apply(&submission("g", "bob", 1, commit("b"))), closed);
    assert_eq!(log.apply(&submission("g", "bob", 1, application("hello"))), closed);
    assert_eq!(log.apply(&submission("g", "bob", 1, policy(3))), closed);
    assert_eq!(log.apply(&submission("g", "bob", 0, commit("b"))), Decision::Superseded { winner_seq: 3 });
}

#[test]
fn a_group_id_belongs_to_its_first_create() {
    let mut log = MemoryLog::new();
    let first = submission("g", "ann", 3, create("info"));
    let answer = log.apply(&first);
    assert_eq!(log.apply(&submission("g", "bob", 3, create("info"))), answer, "the same bytes from anybody");
    let others = [
        submission("g", "ann", 3, create("other")),
        submission("g", "ann", 4, create("info")),
        submission("g", "ann", 3, create_as(GroupKind::Demls, Policy::default(), "info")),
        submission(
            "g",
            "ann",
            3,
            create_as(GroupKind::Mls, Policy { past_epochs: 1, ..Policy::default() }, "info"),
        ),
    ];
    for other in others {
        let refused = log.apply(&other);
        assert!(matches!(refused, Decision::Refused(Refusal::GroupExists { .. })), "{refused:?}");
    }
}

#[test]
fn a_welcome_waits_once_for_each_client() {
    let log = {
        let mut log = MemoryLog::new();
        log.apply(&submission("g", "ann", 0, create("info")));
        log
    };
    let adding = submission("g", "ann", 0, commit_adding("c", &["eve", "dan", "eve"]));
    let (_, change) = group_log::apply(&log, &adding, Offer::default()).unwrap();
    let change = change.unwrap();
    let names: Vec<_> = change.welcomes.iter().map(|note| note.client_id.clone()).collect();
    assert_eq!(names, [support::client("dan"), support::client("eve")]);
    assert!(change.welcomes.iter().all(|note| note.key_package_refs.len() == 1));
    assert_eq!((change.head.group_info_seq, change.head.group_info_epoch), (2, 1));
}

#[test]
fn what_is_too_long_or_impossible_is_refused_with_the_limit() {
    let limits = Limits { message_bytes: 4, commit_bytes: 64, group_info_bytes: 4, welcome_recipients: 2 };
    let refusal = |content| validate(&submission("g", "ann", 0, content), &limits).unwrap_err();
    let too_large = |content| match refusal(content) {
        Refusal::TooLarge { limit, got, .. } => (limit, got),
        other => panic!("{other}"),
    };
    assert_eq!(too_large(application("12345")), (4, 5));
    assert_eq!(too_large(create("12345")), (4, 5));
    assert_eq!(too_large(commit_adding("c", &["a", "b", "c"])), (2, 3));
    assert_eq!(too_large(commit(&"c".repeat(65))), (64, 65));
    assert!(matches!(refusal(proposal("")), Refusal::Malformed { field: "message", .. }));
    assert!(matches!(refusal(policy(65)), Refusal::PolicyInvalid { max: 64, got: 65, .. }));
    let Content::Commit(mut no_welcome) = commit_adding("c", &["a"]) else { unreachable!() };
    no_welcome.welcome = Bytes::new();
    assert!(matches!(refusal(Content::Commit(no_welcome)), Refusal::Malformed { field: "welcome", .. }));
    let far = submission("g", "ann", u64::MAX, commit("c"));
    assert!(matches!(validate(&far, &limits), Err(Refusal::EpochOutOfRange { got: u64::MAX, .. })));
    let placed = made_in(StateId([0; 32]), submission("g", "ann", 0, create("i")));
    assert!(matches!(validate(&placed, &limits), Err(Refusal::Malformed { field: "parent_state_id", .. })));
}

#[test]
fn no_configuration_admits_more_than_the_replicated_limits() {
    let wide = Limits { message_bytes: usize::MAX, ..Limits::REPLICATED };
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 0, create("info")));
    let long = application(&"x".repeat(Limits::REPLICATED.message_bytes + 1));
    let refused = log.admit(&submission("g", "ann", 0, long.clone()), &wide);
    assert!(matches!(refused, Decision::Refused(Refusal::TooLarge { .. })));
    assert_eq!(log.apply(&submission("g", "ann", 0, long)), refused);
}

#[test]
fn hashes_are_what_the_documentation_says() {
    // Written out by hand, so that another implementation can compare itself with this test.
    use sha2::{Digest, Sha256};
    let part = |bytes: &[u8]| [&(bytes.len() as u64).to_be_bytes()[..], bytes].concat();
    let hash = |parts: &[&[u8]]| <[u8; 32]>::from(Sha256::digest(parts.concat()));
    let state_0 = hash(&[&part(b"concordat create v1"), &part(b"g"), &5u64.to_be_bytes(), &part(b"info")]);
    assert_eq!(group_log::hash::create_state_id(&support::group("g"), 5, b"info"), StateId(state_0));
    let state_1 = hash(&[&part(b"concordat commit v1"), &state_0, &part(b"commit")]);
    assert_eq!(group_log::hash::commit_state_id(&StateId(state_0), b"commit"), StateId(state_1));
    let chain_1 = hash(&[
        &part(b"concordat chain v1"),
        &[0; 32],
        &1u64.to_be_bytes(),
        &1u64.to_be_bytes(),
        &5u64.to_be_bytes(),
        &state_0,
        &part(b"ann"),
        &1u64.to_be_bytes(),
        &5u64.to_be_bytes(),
        &part(b"info"),
    ]);
    let mut log = MemoryLog::new();
    log.apply(&submission("g", "ann", 5, create("info")));
    assert_eq!(log.entry(1).unwrap().chain, ChainHash(chain_1));
    let id = hash(&[&part(b"concordat application v1"), &state_0, &part(b"hello")]);
    assert_eq!(group_log::hash::entry_id(&StateId(state_0), &application("hello")), EntryId(id));
}

#[test]
fn ids_have_bounds_and_are_not_shown() {
    assert!(ClientId::new(Bytes::new()).is_err());
    assert!(ClientId::new(vec![0; 129]).is_err());
    assert_eq!(format!("{:?}", support::client("secret")), "ClientId(6 bytes)");
    assert_eq!(format!("{:?}", application("secret")), "Application(6 bytes)");
    assert!(StateId::from_slice(&[0; 31]).is_err());
}
