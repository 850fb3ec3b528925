//! What is said about branches goes to the wire and comes back as it was; what can not be comes back as an error that names the field.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use bytes::Bytes;
use concordat_proto::{
    convert::{GroupCommand, WireError, in_order, log_entry},
    log::v1::{self as wire, Reason},
    ordering::v1::{self as ordering, command::Command as Kind, outcome::Outcome},
    relay::v1::sequence_response,
};
use group_log::{
    Accepted, ChainHash, ChainVerifier, ClientId, Commit, Content, Create, Decision, Entry, EntryId, GroupId,
    GroupKind, Policy, Refusal, StateId, Submission,
    fork::{
        Answer, BranchEntry, BranchRefusal, BranchTree, Close, Command, CommitFacts, GatewayId, Item, LeafId,
        LogEntry, Mark, MemoryFork, Rejection, Report,
    },
    limits::{MAX_COMMIT_BYTES, MAX_COMMIT_LEAVES, MAX_MESSAGE_BYTES, MAX_REPORT_ENTRIES},
};
use prost::Message;

fn facts() -> CommitFacts {
    let leaf = |byte| LeafId([byte; 32]);
    CommitFacts { author: Some(leaf(1)), removes: vec![leaf(2), leaf(3)], adds: vec![leaf(4)] }
}

fn commit(text: &'static str) -> Content {
    Content::Commit(Commit {
        message: Bytes::from_static(text.as_bytes()),
        welcome: Bytes::new(),
        group_info: Bytes::new(),
        recipients: Vec::new(),
    })
}

fn author() -> ClientId {
    ClientId::new(&b"ann"[..]).unwrap()
}

fn branch_entries() -> Vec<BranchEntry> {
    let first =
        BranchEntry { parent: StateId([7; 32]), author: author(), content: commit("c1"), facts: facts() };
    let message = Bytes::from_static(b"message");
    let below = |content| BranchEntry {
        parent: first.id().as_state(),
        author: author(),
        content,
        facts: CommitFacts::default(),
    };
    let (application, proposal) =
        (below(Content::Application { message: message.clone() }), below(Content::Proposal { message }));
    vec![first, application, proposal]
}

fn marks() -> Vec<Mark> {
    let ids = || vec![EntryId([1; 32]), EntryId([2; 32])];
    vec![
        Mark::Side { ids: ids(), owed: vec![LeafId([3; 32])] },
        Mark::Side { ids: Vec::new(), owed: Vec::new() },
        Mark::Late { ids: ids() },
        Mark::Stable { position: 9 },
    ]
}

fn submission(content: Content) -> Submission {
    let group_id = GroupId::new(&b"group"[..]).unwrap();
    Submission { group_id, author: author(), epoch: 3, parent_state_id: Some(StateId([7; 32])), content }
}

fn commands() -> Vec<Command> {
    let gateway = GatewayId([5; 16]);
    vec![
        Command::Submit { submission: submission(commit("c")), facts: facts() },
        Command::Submit { submission: submission(Content::Close), facts: CommitFacts::default() },
        Command::Report(Report { gateway, entries: branch_entries(), complete: true }),
        Command::Report(Report { gateway, entries: Vec::new(), complete: false }),
        Command::Close(Close { collection: 4, nonce: [6; 32] }),
        Command::Ack { gateway, registration: 6, position: 7 },
        Command::Register { gateway, position: 8, departures: 9 },
        Command::Release { gateway, registration: 10 },
        Command::Evict { gateway },
    ]
}

#[test]
fn commands_come_back_as_they_were() {
    for command in commands() {
        let before = GroupCommand { group_id: GroupId::new(&b"group"[..]).unwrap(), command };
        let bytes = ordering::Command::from(before.clone()).encode_to_vec();
        let after = ordering::Command::decode(Bytes::from(bytes)).unwrap().command.unwrap();
        assert_eq!(GroupCommand::try_from(after), Ok(before));
    }
}

#[test]
fn entries_of_branches_come_back_as_they_were_and_keep_their_ids() {
    for before in branch_entries() {
        let bytes = wire::BranchEntry::from(before.clone()).encode_to_vec();
        let after = BranchEntry::try_from(wire::BranchEntry::decode(&bytes[..]).unwrap()).unwrap();
        assert_eq!((after.id(), &after), (before.id(), &before));
    }
}

#[test]
fn entries_of_the_log_come_back_as_they_were_whoever_wrote_them() {
    let items = marks().into_iter().map(Item::Mark).chain([Item::Content(commit("c"))]);
    for item in items {
        let (author, facts) = match item {
            Item::Content(_) => (Some(author()), facts()),
            Item::Mark(_) => (None, CommitFacts::default()),
        };
        let (chain, state_id, bodies) = (ChainHash([2; 32]), StateId([1; 32]), branch_entries());
        let before = LogEntry { seq: 9, chain, epoch: 4, state_id, author, item, facts, bodies };
        let bodies = before.bodies.iter().cloned().map(Into::into).collect();
        assert_eq!(log_entry(wire::Entry::from(before.clone()), bodies), Ok(before));
    }
}

/// The hashes of a whole log with marks in it can be checked from what came over the wire, without bodies or facts.
#[test]
fn a_reader_of_any_group_sees_marks_and_checks_their_hashes() {
    let mut group = MemoryFork::new();
    let create = Content::Create(Create {
        kind: GroupKind::Demls,
        policy: Policy::default(),
        group_info: Bytes::from_static(b"info"),
    });
    let submission = Submission { epoch: 0, parent_state_id: None, ..submission(create) };
    group.apply(&Command::Submit { submission, facts: CommitFacts::default() });
    let first = group.current().unwrap().state_id;
    let entry = |parent, text| BranchEntry {
        parent,
        author: author(),
        content: commit(text),
        facts: CommitFacts::default(),
    };
    let (winner, loser) = (entry(first, "one"), entry(first, "two"));
    let gateway = GatewayId([5; 16]);
    group.apply(&Command::Register { gateway, position: 1, departures: 0 });
    group.apply(&Command::Report(Report { gateway, entries: vec![winner, loser], complete: true }));
    group.apply(&Command::Close(Close { collection: 1, nonce: [0; 32] }));
    group.apply(&Command::Ack { gateway, registration: 0, position: 3 });

    let mut verifier = ChainVerifier::new();
    let mut kinds = Vec::new();
    for seq in 1..=group.current().unwrap().seq {
        let wire = wire::Entry::from(group.log_entry(seq, CommitFacts::default()).unwrap());
        let entry = LogEntry::try_from(wire.clone()).unwrap();
        verifier.push_item(&entry).unwrap();
        kinds.push(entry.item.kind().name());
        assert_eq!(Entry::try_from(wire).ok(), entry.into_entry(), "what a client submitted is an Entry too");
    }
    assert_eq!(kinds, ["create", "commit", "side", "stable"]);
    assert_eq!(verifier.chain(), group.current().unwrap().chain);
}

/// Whatever a gateway holds, each of its reports fits into a command of 4 MiB, and together they say all.
#[test]
fn reports_are_split_by_number_and_by_size() {
    let mut log = MemoryFork::new();
    let create = Content::Create(Create {
        kind: GroupKind::Demls,
        policy: Policy::default(),
        group_info: Bytes::from_static(b"info"),
    });
    let submission = Submission { epoch: 0, parent_state_id: None, ..submission(create) };
    log.apply(&Command::Submit { submission, facts: CommitFacts::default() });
    let parent = log.current().unwrap().state_id;
    let author = ClientId::new(vec![7; 128]).unwrap();
    let gateway = GatewayId([5; 16]);
    let reports_of = |sizes: Vec<usize>| {
        let mut tree = BranchTree::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let mut message = vec![0; size.max(4)];
            message[..4].copy_from_slice(&(number as u32).to_be_bytes());
            let content = Content::Application { message: message.into() };
            let facts = CommitFacts::default();
            let entry = BranchEntry { parent, author: author.clone(), content, facts };
            assert_eq!(tree.insert(&log, entry).unwrap(), Ok(true));
        }
        tree.reports(&log, gateway).unwrap()
    };
    let cases =
        [vec![], vec![4; 2500], vec![MAX_MESSAGE_BYTES; 9], vec![3000; 1500], vec![MAX_MESSAGE_BYTES; 3]];
    for (sizes, parts) in cases.into_iter().zip([1, 3, 3, 2, 1]) {
        let expected = sizes.len();
        let reports = reports_of(sizes);
        assert_eq!(reports.iter().map(|report| report.entries.len()).sum::<usize>(), expected);
        assert_eq!(reports.len(), parts);
        let complete: Vec<_> = reports.iter().map(|report| report.complete).collect();
        assert!(complete.iter().rev().skip(1).all(|complete| !complete) && complete.last() == Some(&true));
        for report in reports {
            assert!(report.entries.len() <= MAX_REPORT_ENTRIES);
            let group_id = GroupId::new(vec![7; 256]).unwrap();
            let command = GroupCommand { group_id, command: Command::Report(report) };
            assert!(ordering::Command::from(command).encoded_len() <= 4 << 20);
        }
    }
}

/// The largest commit with the most facts that the rules let through is reported alone, and fits.
#[test]
fn the_largest_commit_fits_into_one_command() {
    let leaf = |n: usize| LeafId([n as u8; 32]);
    let facts = CommitFacts {
        author: Some(leaf(0)),
        removes: (0..MAX_COMMIT_LEAVES).map(leaf).collect(),
        adds: (0..MAX_COMMIT_LEAVES).map(leaf).collect(),
    };
    let with = |bytes| {
        let (message, welcome, group_info) = (vec![1; bytes].into(), Bytes::new(), Bytes::new());
        Content::Commit(Commit { message, welcome, group_info, recipients: Vec::new() })
    };
    let room = MAX_COMMIT_BYTES - facts.size();
    assert!(facts.validate(&with(room)).is_ok());
    assert!(matches!(facts.validate(&with(room + 1)), Err(Refusal::TooLarge { .. })));
    let author = ClientId::new(vec![7; 128]).unwrap();
    let entry = BranchEntry { parent: StateId([7; 32]), author, content: with(room), facts };
    let report = Report { gateway: GatewayId([5; 16]), entries: vec![entry], complete: true };
    let group_id = GroupId::new(vec![7; 256]).unwrap();
    let command = GroupCommand { group_id, command: Command::Report(report) };
    assert!(ordering::Command::from(command).encoded_len() <= 4 << 20);
}

#[test]
fn bodies_are_put_into_the_order_of_their_mark() {
    let entries = branch_entries();
    let ids = vec![entries[2].id(), EntryId([9; 32]), entries[0].id()];
    let found = in_order(&Mark::Late { ids }, entries.clone());
    assert_eq!(found, [entries[2].clone(), entries[0].clone()]);
}

#[test]
fn answers_keep_what_they_say() {
    let owed = vec![LeafId([1; 32])];
    let accepted = Accepted { seq: 1, epoch: 2, state_id: StateId([6; 32]), chain: ChainHash([7; 32]) };
    let outcomes = [
        (Answer::Decided(Decision::Accepted(accepted)), Outcome::Accepted(accepted.into())),
        (Answer::OnSide { seq: 4, late: true }, Outcome::OnSide(wire::OnSide { seq: 4, late: true })),
        (
            Answer::Reported { new: 3, collecting: Some(2) },
            Outcome::BranchesReported(ordering::BranchesReported { new_entries: 3, collection: 2 }),
        ),
        (
            Answer::Closed { adopted: 1, sides: 2 },
            Outcome::CollectionClosed(ordering::CollectionClosed { adopted: 1, sides: 2 }),
        ),
        (Answer::NotOpen, Outcome::CollectionClosed(ordering::CollectionClosed::default())),
        (
            Answer::Gateways { stable: 5 },
            Outcome::GatewayNoted(ordering::GatewayNoted { stable: 5, registration: 0 }),
        ),
        (
            Answer::Registered { stable: 5, registration: 6 },
            Outcome::GatewayNoted(ordering::GatewayNoted { stable: 5, registration: 6 }),
        ),
    ];
    for (answer, outcome) in outcomes {
        assert_eq!(Outcome::from(answer), outcome);
    }
    assert!(matches!(Outcome::from(Answer::Retry), Outcome::Reconciling(_)));
    let Outcome::RemoveFirst(first) = Outcome::from(Answer::RemoveFirst { owed }) else {
        panic!("remove first")
    };
    assert_eq!(first.owed, [Bytes::from_static(&[1; 32])]);
}

#[test]
fn every_rejection_has_a_reason_and_its_facts() {
    let (entry, parent) = (EntryId([1; 32]), StateId([2; 32]));
    let refusal = Refusal::TooLarge { field: "message", limit: 1, got: 2 };
    let what = "registered gateways";
    let cases = [
        (Rejection::GroupNotFound, Reason::GroupNotFound, ""),
        (Rejection::WrongKind { got: GroupKind::Mls }, Reason::WrongKind, "got"),
        (Rejection::Gap { entry, parent }, Reason::BranchGap, "parent_state_id"),
        (Rejection::TooMany { limit: 1, got: 2 }, Reason::TooLarge, "limit"),
        (Rejection::Full { what, limit: 1, got: 2 }, Reason::Quota, "limit"),
        (Rejection::Impossible { entry, refusal }, Reason::TooLarge, "entry"),
        (Rejection::PositionAhead { head_seq: 1, got: 2 }, Reason::CursorAhead, "head_seq"),
        (Rejection::NotRegistered, Reason::NotRegistered, ""),
        (Rejection::Overtaken { departures: 2, got: 1 }, Reason::NotRegistered, "departures"),
        (Rejection::NotAcknowledged { head_seq: 2, got: 1 }, Reason::NotRegistered, "expected"),
        (Rejection::NotFollowed { stable: 1, got: 0 }, Reason::NotRegistered, "expected"),
    ];
    for (rejection, reason, fact) in cases {
        let refused = wire::Refused::from(&rejection);
        assert_eq!(refused.reason(), reason, "{rejection}");
        assert!(fact.is_empty() || refused.metadata.contains_key(fact), "{rejection}: {fact}");
        assert_eq!(refused.message, rejection.to_string());
    }
}

#[test]
fn a_branch_refuses_with_a_reason_or_says_whom_to_remove_first() {
    use sequence_response::Outcome;
    let parent = StateId([2; 32]);
    let cases = [
        (BranchRefusal::WrongKind { got: GroupKind::Mls }, Reason::WrongKind),
        (BranchRefusal::GroupClosed { closed_seq: 1 }, Reason::GroupClosed),
        (BranchRefusal::Impossible(Refusal::GroupNotFound), Reason::GroupNotFound),
        (BranchRefusal::UnknownParent { parent }, Reason::BranchGap),
        (BranchRefusal::BelowPromise { promised: 2, got: 1 }, Reason::BelowPromise),
        (BranchRefusal::DeadBranch { seq: 1 }, Reason::DeadBranch),
        (BranchRefusal::NotALeaf { child: EntryId([1; 32]) }, Reason::NotALeaf),
        (BranchRefusal::Full { what: "entries", limit: 1 }, Reason::Overloaded),
    ];
    for (refusal, reason) in cases {
        let Outcome::Refused(refused) = Outcome::from(&refusal) else { panic!("{refusal}") };
        assert_eq!(refused.reason(), reason, "{refusal}");
    }
    let owed = vec![LeafId([1; 32])];
    assert!(matches!(Outcome::from(&BranchRefusal::RemoveFirst { owed }), Outcome::RemoveFirst(_)));
}

#[test]
fn the_wrong_field_is_named() {
    let error = |kind: Kind| GroupCommand::try_from(kind).unwrap_err().to_string();
    let (group_id, gateway_id) = (Bytes::from_static(b"group"), Bytes::from_static(&[1; 16]));
    let report = |entries| {
        let (group_id, gateway_id) = (group_id.clone(), gateway_id.clone());
        Kind::ReportBranches(ordering::ReportBranches { group_id, gateway_id, entries, complete: true })
    };
    let good = || wire::BranchEntry::from(branch_entries().remove(0));
    let missing = wire::BranchEntry { content: None, ..good() };
    assert!(error(report(vec![missing])).starts_with("branch_entry.content must be"));
    let short = wire::BranchEntry { parent_state_id: Bytes::from_static(&[1; 31]), ..good() };
    assert!(error(report(vec![good(), short])).starts_with("branch_entry.parent_state_id must be 32 bytes"));
    let nobody = wire::BranchEntry { author: Bytes::new(), ..good() };
    assert!(error(report(vec![nobody])).starts_with("branch_entry.author must be"));
    let facts = Some(wire::CommitFacts { adds: vec![Bytes::new()], ..Default::default() });
    assert!(error(report(vec![wire::BranchEntry { facts, ..good() }])).starts_with("facts.adds must be 32"));
    let mark = wire::BranchEntry { content: Some(marks().remove(0).into()), ..good() };
    assert!(error(report(vec![mark])).contains("got a mark of the cluster"));
    let evict = ordering::EvictGateway { group_id: group_id.clone(), gateway_id: Bytes::new() };
    assert_eq!(error(Kind::EvictGateway(evict)), "gateway_id must be 16 bytes, got 0 bytes");
    let evict = ordering::EvictGateway { group_id: Bytes::new(), gateway_id };
    assert_eq!(error(Kind::EvictGateway(evict)), "group_id must be 1 to 256 bytes, got 0 bytes");
    let nonce = Bytes::from_static(b"short");
    let close = ordering::CloseCollection { group_id, collection: 1, nonce };
    assert_eq!(error(Kind::CloseCollection(close)), "nonce must be 32 bytes, got 5 bytes");
    assert!(error(Kind::AckWelcomes(ordering::AckWelcomes::default())).contains("a command for one group"));
    let side = wire::Side { ids: vec![Bytes::from_static(b"x")], ..Default::default() };
    let content = wire::Content { content: Some(wire::content::Content::Side(side)) };
    let WireError { field, .. } = Item::try_from(content).unwrap_err();
    assert_eq!(field, "content.side.ids");
}
