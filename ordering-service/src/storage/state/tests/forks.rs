//! DeMLS groups: what the rules decide is stored, found again, and carried over by restarts and snapshots.

use concordat_proto::convert::{self, GroupCommand, log_entry};
use group_log::{
    ChainVerifier, ClientId, Commit as LogCommit, Content as LogContent, GroupId, GroupKind as Kinds,
    KeyPackageRef, StateId, Submission, WelcomeRecipient as Recipient,
    fork::{
        BranchEntry, Close, Command as ForkCommand, CommitFacts, GatewayId, LeafId, LogEntry, Mark, Report,
    },
};

use super::*;

pub(super) const GATEWAY: GatewayId = GatewayId([1; 16]);
const OTHER: GatewayId = GatewayId([2; 16]);

pub(super) fn leaf(n: u8) -> LeafId {
    LeafId([n; 32])
}

pub(super) fn author() -> ClientId {
    ClientId::new(&b"alice"[..]).unwrap()
}

pub(super) fn group_id() -> GroupId {
    GroupId::new(&b"forked"[..]).unwrap()
}

pub(super) fn group_command(command: ForkCommand) -> Bytes {
    let command = GroupCommand { group_id: group_id(), command };
    concordat_proto::ordering::v1::Command::from(command).encode_to_vec().into()
}

pub(super) fn create_forked(kind: Kinds) -> ForkCommand {
    let group_info = Bytes::from_static(b"first group info");
    let create = group_log::Create { kind, policy: group_log::Policy::default(), group_info };
    let submission = Submission {
        group_id: group_id(),
        author: author(),
        epoch: 0,
        parent_state_id: None,
        content: LogContent::Create(create),
    };
    ForkCommand::Submit {
        submission,
        facts: CommitFacts { adds: vec![leaf(1), leaf(2), leaf(3)], ..CommitFacts::default() },
    }
}

pub(super) fn a_commit(text: &str, added: &[&str]) -> LogContent {
    let recipients = added.iter().map(|client| Recipient {
        client_id: ClientId::new(Bytes::copy_from_slice(client.as_bytes())).unwrap(),
        key_package_ref: KeyPackageRef::new(Bytes::from(format!("package of {client}"))).unwrap(),
    });
    LogContent::Commit(LogCommit {
        message: Bytes::copy_from_slice(text.as_bytes()),
        welcome: Bytes::from(format!("welcome of {text}")),
        group_info: Bytes::from(format!("group info of {text}")),
        recipients: recipients.collect(),
    })
}

pub(super) fn a_message(text: &str) -> LogContent {
    LogContent::Application { message: Bytes::copy_from_slice(text.as_bytes()) }
}

pub(super) fn by(author: u8) -> CommitFacts {
    CommitFacts { author: Some(leaf(author)), ..CommitFacts::default() }
}

pub(super) fn on_branch(parent: StateId, content: LogContent, facts: CommitFacts) -> BranchEntry {
    BranchEntry { parent, author: author(), content, facts }
}

fn submit(
    machine: &mut Machine,
    parent: StateId,
    epoch: u64,
    content: LogContent,
    facts: CommitFacts,
) -> Answer {
    let submission =
        Submission { group_id: group_id(), author: author(), epoch, parent_state_id: Some(parent), content };
    machine.apply_one(group_command(ForkCommand::Submit { submission, facts }))
}

fn report(machine: &mut Machine, gateway: GatewayId, entries: Vec<BranchEntry>) -> Answer {
    machine.apply_one(group_command(ForkCommand::Report(Report { gateway, entries, complete: true })))
}

fn close(machine: &mut Machine, collection: u64) -> Answer {
    machine.apply_one(group_command(ForkCommand::Close(Close { collection, nonce: [7; 32] })))
}

fn forked() -> (Machine, StateId) {
    let mut machine = Machine::new(1);
    machine.apply_one(group_command(create_forked(Kinds::Demls)));
    for gateway in [GATEWAY, OTHER] {
        machine.apply_one(group_command(ForkCommand::Register { gateway, position: 1, departures: 0 }));
    }
    let first = machine.reader.head(b"forked").unwrap().unwrap().state_id;
    (machine, first)
}

/// The whole log as a gateway gets it: entries, and the bodies that marks name.
pub(super) fn log(reader: &ShardReader) -> Vec<LogEntry> {
    let entries = reader.entries(b"forked", 0, usize::MAX, usize::MAX).unwrap();
    let entries = entries.into_iter().map(|entry| {
        let plain = log_entry(entry.clone(), Vec::new()).unwrap();
        let ids: Vec<_> = match plain.mark() {
            Some(Mark::Side { ids, .. } | Mark::Late { ids }) => ids.iter().map(|id| id.0).collect(),
            _ => Vec::new(),
        };
        let bodies = reader.branch_entries(b"forked", &ids, usize::MAX).unwrap();
        log_entry(entry, bodies).unwrap()
    });
    entries.collect()
}

fn kinds(machine: &Machine) -> Vec<&'static str> {
    log(&machine.reader).iter().map(|entry| entry.item.kind().name()).collect()
}

#[test]
fn a_branch_becomes_canonical_and_the_other_is_readable_on_the_side() {
    let (mut machine, first) = forked();
    let won = on_branch(first, a_commit("won", &["dan"]), by(1));
    let said = on_branch(won.id().as_state(), a_message("said on the branch"), CommitFacts::default());
    let more = on_branch(won.id().as_state(), a_commit("more", &[]), by(2));
    let lost = on_branch(first, a_commit("lost", &["eve"]), by(3));
    let answer = report(&mut machine, GATEWAY, vec![won.clone(), said.clone(), more.clone()]);
    assert!(matches!(answer, Answer::BranchesReported(ref r) if (r.new_entries, r.collection) == (3, 1)));
    let open = machine.reader.open_collections(10).unwrap();
    assert_eq!((open.len(), open[0].number, open[0].opened_at_ms, open[0].candidates), (1, 1, 7, 3));
    let answer = submit(&mut machine, first, 0, a_commit("impatient", &[]), by(1));
    assert!(matches!(answer, Answer::Reconciling(_)));
    report(&mut machine, OTHER, vec![won.clone(), lost.clone()]);

    let answer = close(&mut machine, 1);
    assert!(
        matches!(answer, Answer::CollectionClosed(ref c) if (c.adopted, c.sides) == (3, 1)),
        "{answer:?}"
    );
    assert_eq!(machine.reader.open_collections(10).unwrap(), []);
    let log = log(&machine.reader);
    assert_eq!(kinds(&machine), ["create", "commit", "application", "commit", "side"]);
    assert_eq!(log[1].facts, won.facts, "facts are delivered");
    assert_eq!(log[4].bodies, std::slice::from_ref(&lost));
    let mut verifier = ChainVerifier::new();
    for entry in &log {
        verifier.push_item(entry).unwrap();
    }

    // Whoever was added by what is canonical now has a Welcome; whoever was added by what lost has none.
    let welcomes = machine.reader.inbox(b"dan", 0, 10).unwrap();
    assert_eq!((welcomes.len(), welcomes[0].seq, &welcomes[0].welcome[..]), (1, 2, &b"welcome of won"[..]));
    assert_eq!(machine.reader.inbox(b"eve", 0, 10).unwrap(), []);
    let info = machine.reader.group_info(b"forked").unwrap().unwrap();
    assert_eq!((info.epoch, &info.message[..]), (2, &b"group info of more"[..]));

    // The same bytes get the same final answers, from the log and without it.
    for _ in 0..2 {
        let answer = submit(&mut machine, first, 0, won.content.clone(), won.facts.clone());
        assert!(matches!(answer, Answer::Accepted(ref a) if a.seq == 2), "{answer:?}");
        let answer = submit(&mut machine, first, 0, lost.content.clone(), lost.facts.clone());
        assert!(
            matches!(answer, Answer::Superseded(ref s) if s.winner.as_ref().unwrap().seq == 2),
            "{answer:?}"
        );
        machine = machine.restart();
    }
    let answer = close(&mut machine, 1);
    assert!(matches!(answer, Answer::CollectionClosed(ref c) if (c.adopted, c.sides) == (0, 0)));
}

#[test]
fn a_client_that_is_added_twice_on_one_branch_gets_both_welcomes() {
    let (mut machine, first) = forked();
    let mut parent = first;
    let mut entries = Vec::new();
    for text in ["one", "two", "three"] {
        let entry = on_branch(parent, a_commit(text, &["dan"]), by(1));
        parent = entry.id().as_state();
        entries.push(entry);
    }
    report(&mut machine, GATEWAY, entries);
    close(&mut machine, 1);
    let welcomes = machine.reader.inbox(b"dan", 0, 1).unwrap();
    assert_eq!(welcomes.iter().map(|welcome| welcome.seq).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(welcomes[2].welcome, "welcome of three");
    let position = welcomes[0].cursor.clone().unwrap().positions[0].position;
    let ack = encode(Cmd::AckWelcomes(concordat_proto::ordering::v1::AckWelcomes {
        client_id: Bytes::from_static(b"dan"),
        position,
    }));
    assert!(matches!(machine.apply_one(ack), Answer::WelcomesAcked(ref acked) if acked.left == 0));
    assert_eq!(machine.reader.inbox(b"dan", 0, 1).unwrap(), []);
}

#[test]
fn removals_that_are_owed_come_first_and_are_found_by_the_index() {
    let (mut machine, first) = forked();
    let removal = CommitFacts { removes: vec![leaf(3)], ..by(1) };
    let lost = on_branch(first, a_commit("removal", &[]), removal.clone());
    submit(&mut machine, first, 0, a_commit("canonical", &[]), by(2));
    report(&mut machine, GATEWAY, vec![lost]);
    assert_eq!(machine.reader.groups_that_owe(10).unwrap(), 1);
    let head = machine.reader.head(b"forked").unwrap().unwrap();
    let answer = submit(&mut machine, head.state_id, 1, a_commit("other", &[]), by(2));
    assert!(matches!(answer, Answer::RemoveFirst(ref r) if r.owed == [Bytes::from_static(&[3; 32])]));
    let answer = submit(&mut machine, head.state_id, 1, a_commit("removal again", &[]), removal);
    assert!(matches!(answer, Answer::Accepted(_)));
    assert_eq!(machine.reader.groups_that_owe(10).unwrap(), 0);
}

#[test]
fn gateways_are_found_with_their_groups_until_they_are_evicted() {
    let (mut machine, first) = forked();
    let known: Vec<_> = machine.reader.gateways(10).unwrap().iter().map(|gateway| gateway.id).collect();
    assert_eq!(known, [GATEWAY, OTHER]);
    assert_eq!(machine.reader.groups_of(&OTHER, None, 10).unwrap(), ["forked"]);
    assert!(machine.reader.groups_of(&OTHER, Some(b"forked"), 10).unwrap().is_empty());

    submit(&mut machine, first, 0, a_commit("canonical", &[]), by(2));
    assert_eq!(machine.reader.holding_back(b"forked").unwrap(), [GATEWAY, OTHER]);
    assert_eq!(machine.reader.unstable_groups(None, 10).unwrap(), ["forked"]);
    assert!(machine.reader.unstable_groups(Some(b"forked"), 10).unwrap().is_empty());
    let ack = ForkCommand::Ack { gateway: GATEWAY, registration: 0, position: 2 };
    machine.apply_one(group_command(ack));
    assert_eq!(kinds(&machine), ["create", "commit"], "the other gateway holds stable back");
    assert_eq!(machine.reader.holding_back(b"forked").unwrap(), [OTHER]);
    let answer = machine.apply_one(group_command(ForkCommand::Evict { gateway: OTHER }));
    assert!(matches!(answer, Answer::GatewayNoted(ref noted) if noted.stable == 2), "{answer:?}");
    assert_eq!(kinds(&machine), ["create", "commit", "stable"]);
    assert_eq!(machine.reader.gateways(10).unwrap().len(), 1);
    assert!(machine.reader.groups_of(&OTHER, None, 10).unwrap().is_empty());
    assert!(machine.reader.unstable_groups(None, 10).unwrap().is_empty());
    assert!(machine.reader.holding_back(b"forked").unwrap().is_empty());

    // What an evicted gateway brings is late: in the log, and readable.
    let late = on_branch(first, a_commit("late", &[]), by(3));
    report(&mut machine, OTHER, vec![late.clone()]);
    assert_eq!(kinds(&machine), ["create", "commit", "stable", "late"]);
    assert_eq!(log(&machine.reader)[3].bodies, std::slice::from_ref(&late));
    let answer = submit(&mut machine, first, 0, late.content, late.facts);
    assert!(matches!(answer, Answer::Superseded(_)), "another commit had ended its epoch before");
}

#[test]
fn a_gateway_that_lets_go_of_its_last_group_is_known_no_more_and_can_come_back() {
    let (mut machine, first) = forked();
    let release = |registration| ForkCommand::Release { gateway: OTHER, registration };
    submit(&mut machine, first, 0, a_commit("canonical", &[]), by(2));
    let answer = machine.apply_one(group_command(release(0)));
    assert_eq!(reason(&answer), Some(Reason::NotRegistered), "it has not acknowledged the commit");
    machine.apply_one(group_command(ForkCommand::Ack { gateway: OTHER, registration: 0, position: 2 }));
    for _ in 0..2 {
        let answer = machine.apply_one(group_command(release(0)));
        assert!(matches!(answer, Answer::GatewayNoted(_)), "{answer:?}");
        let known: Vec<_> = machine.reader.gateways(10).unwrap().iter().map(|gateway| gateway.id).collect();
        assert_eq!(known, [GATEWAY]);
        assert!(machine.reader.groups_of(&OTHER, None, 10).unwrap().is_empty());
    }
    assert_eq!(kinds(&machine), ["create", "commit"]);

    let register = |departures| ForkCommand::Register { gateway: OTHER, position: 2, departures };
    let answer = machine.apply_one(group_command(register(0)));
    let Answer::Refused(ref refused) = answer else { panic!("expected a refusal, got {answer:?}") };
    assert_eq!(refused.metadata[convert::DEPARTURES], "1");
    let answer = machine.apply_one(group_command(register(1)));
    assert!(matches!(answer, Answer::GatewayNoted(ref noted) if noted.registration == 1), "{answer:?}");
    assert_eq!(machine.reader.groups_of(&OTHER, None, 10).unwrap(), ["forked"]);
}

#[test]
fn a_gateway_that_is_seen_is_noted_now_and_then() {
    let (mut machine, _) = forked();
    let seen = |machine: &Machine| machine.reader.gateways(1).unwrap()[0].seen_at_ms;
    let note = |ids: Vec<Bytes>| {
        encode(Cmd::NoteGateways(concordat_proto::ordering::v1::NoteGateways { gateway_ids: ids }))
    };
    let known = Bytes::copy_from_slice(&GATEWAY.0);
    let hour = 3_600_000;
    let cases = [
        (30_000, 7),
        (70_000, 70_000),
        (80_000, 70_000),
        (70_000 + hour, 70_000 + hour),
        // A clock that goes back takes nothing away.
        (60 + hour, 70_000 + hour),
    ];
    for (at_ms, expected) in cases {
        machine.at_ms = at_ms;
        machine.apply_one(note(vec![known.clone(), Bytes::from_static(&[9; 16])]));
        assert_eq!(seen(&machine), expected);
    }
    let known = machine.reader.gateways(10).unwrap();
    assert_eq!(known.len(), 2, "only registered gateways are noted");
    assert_eq!(known[1].seen_at_ms, 7, "the other was not there");
    // Three days without a note are days without a quorum: they count for nobody.
    machine.at_ms = 60 + 73 * hour;
    machine.apply_one(note(Vec::new()));
    let seen: Vec<_> = machine.reader.gateways(10).unwrap().iter().map(|known| known.seen_at_ms).collect();
    assert_eq!(seen, [70_000 + 73 * hour, 7 + 72 * hour]);
    assert_eq!(machine.reader.gateways_noted_at_ms().unwrap(), Some(machine.at_ms));
    let known = Bytes::copy_from_slice(&GATEWAY.0);
    assert_eq!(reason(&machine.apply_one(note(vec![Bytes::new()]))), Some(Reason::Malformed));
    assert_eq!(reason(&machine.apply_one(note(vec![known; 1025]))), Some(Reason::TooLarge));
}

#[test]
fn what_can_not_be_is_refused_alike_and_changes_nothing() {
    let (mut machine, first) = forked();
    machine.apply_one(submission(
        "plain",
        0,
        Kind::Create(Create {
            kind: GroupKind::Mls.into(),
            policy: None,
            group_info: Bytes::from_static(b"info"),
        }),
    ));
    let before = machine.reader.entries(b"forked", 0, 100, usize::MAX).unwrap();
    let gap = on_branch(StateId([9; 32]), a_commit("nowhere", &[]), by(1));
    assert_eq!(reason(&report(&mut machine, GATEWAY, vec![gap])), Some(Reason::BranchGap));
    let no_parent = submission(
        "forked",
        0,
        Kind::Commit(Commit { message: Bytes::from_static(b"commit"), ..Commit::default() }),
    );
    assert_eq!(reason(&machine.apply_one(no_parent)), Some(Reason::Malformed));
    let ahead = group_command(ForkCommand::Ack { gateway: GATEWAY, registration: 0, position: 99 });
    assert_eq!(reason(&machine.apply_one(ahead)), Some(Reason::CursorAhead));
    let stranger =
        group_command(ForkCommand::Ack { gateway: GatewayId([9; 16]), registration: 0, position: 1 });
    assert_eq!(reason(&machine.apply_one(stranger)), Some(Reason::NotRegistered));
    for (group, expected) in [("plain", Reason::WrongKind), ("nobody", Reason::GroupNotFound)] {
        let entry = on_branch(first, a_commit("c", &[]), by(1));
        let report = Report { gateway: GATEWAY, entries: vec![entry], complete: true };
        let group_id = GroupId::new(Bytes::copy_from_slice(group.as_bytes())).unwrap();
        let command = GroupCommand { group_id, command: ForkCommand::Report(report) };
        let bytes = concordat_proto::ordering::v1::Command::from(command).encode_to_vec();
        assert_eq!(reason(&machine.apply_one(bytes.into())), Some(expected));
    }
    let entries = machine.reader.entries(b"forked", 0, 100, usize::MAX).unwrap();
    assert_eq!(entries, before);
    assert_eq!(machine.reader.open_collections(10).unwrap(), []);
}

/// A report holds many payloads: it is kept and sent once, and purged only if nothing of it was new.
#[test]
fn payloads_of_reports_survive_a_purge_and_travel_in_snapshots() {
    let (mut machine, first) = forked();
    let mut parent = first;
    let mut entries = Vec::new();
    for n in 0..50u8 {
        let entry =
            on_branch(parent, a_commit(&format!("commit {n} {}", "x".repeat(1000)), &[]), by(1 + n % 2));
        parent = entry.id().as_state();
        entries.push(entry);
    }
    let lost = on_branch(first, a_commit("lost", &[]), by(2));
    entries.push(lost.clone());
    report(&mut machine, GATEWAY, entries.clone());
    report(&mut machine, OTHER, entries);
    close(&mut machine, 1);
    let before = log(&machine.reader);
    assert_eq!(before.len(), 52);

    let last = machine.state.last_applied().unwrap();
    let sweeper = machine.storage.0.sweeper.clone();
    machine.state.log.purge(last);
    crate::storage::log::sweeper::Sweep::purged(&*sweeper, 1, last);
    machine.storage.wait_swept();
    drop(sweeper);
    machine = machine.restart();
    assert_eq!(log(&machine.reader), before);

    let copy = machine.copy_by_snapshot();
    // Each entry carries its text three times.
    let report = 3 * 51 * 1020;
    assert!(copy.bytes < 2 * report, "the report was sent once, not once for each entry: {}", copy.bytes);
    assert_eq!(log(&copy.machine.reader), before);
    assert_eq!(copy.machine.reader.branch_entries(b"forked", &[lost.id().0], 1 << 20).unwrap().len(), 1);
    assert_eq!(
        copy.machine.reader.fork_state(b"forked").unwrap(),
        machine.reader.fork_state(b"forked").unwrap()
    );
}
