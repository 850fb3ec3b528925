use concordat_proto::ordering::v1::AckWelcomes;

use super::*;
use crate::storage::limits::INBOX_WELCOMES_PER_CLIENT;

fn acknowledge(client: &str, position: u64) -> Bytes {
    encode(Cmd::AckWelcomes(AckWelcomes { client_id: Bytes::copy_from_slice(client.as_bytes()), position }))
}

fn left(answer: &Answer) -> u32 {
    match answer {
        Answer::WelcomesAcked(acked) => acked.left,
        other => panic!("not acknowledged: {other:?}"),
    }
}

fn positions(machine: &Machine, client: &str, after: u64) -> Vec<u64> {
    let welcomes = machine.reader.inbox(client.as_bytes(), after, 5000).unwrap();
    welcomes.iter().map(|welcome| welcome.cursor.as_ref().unwrap().positions[0].position).collect()
}

#[test]
fn a_welcome_waits_for_its_client_until_it_is_acknowledged() {
    let mut machine = Machine::new(1);
    machine.apply([create("g"), commit("g", 0, "a", &["bob", "carol"]), commit("g", 1, "b", &["bob"])]);
    let welcomes = machine.reader.inbox(b"bob", 0, 10).unwrap();
    assert_eq!(positions(&machine, "bob", 0), [1, 2]);
    assert_eq!(positions(&machine, "bob", 1), [2]);
    assert_eq!(positions(&machine, "carol", 0), [1]);
    assert!(positions(&machine, "dave", 0).is_empty());
    let head = machine.reader.head(b"g").unwrap().unwrap();
    let newest = &welcomes[1];
    assert_eq!((newest.seq, newest.epoch, &newest.group_id[..]), (3, 2, &b"g"[..]));
    assert_eq!((&newest.chain_hash, &newest.state_id), (&head.chain.to_bytes(), &head.state_id.to_bytes()));
    assert_eq!(newest.kind, i32::from(GroupKind::Mls));
    assert_eq!(&newest.welcome[..], b"welcome of b");
    assert_eq!(newest.key_package_refs, [Bytes::from_static(b"package of bob")]);

    assert_eq!(left(&machine.apply_one(acknowledge("bob", 1))), 1);
    let mut machine = machine.restart();
    assert_eq!(positions(&machine, "bob", 0), [2]);
    assert_eq!(left(&machine.apply_one(acknowledge("bob", 1))), 1);
    assert_eq!(left(&machine.apply_one(acknowledge("bob", u64::MAX))), 0);
    assert_eq!(left(&machine.apply_one(acknowledge("nobody", 5))), 0);
    assert!(positions(&machine, "bob", 0).is_empty());
    assert_eq!(positions(&machine, "carol", 0), [1]);
    assert_eq!(reason(&machine.apply_one(acknowledge("", 1))), Some(Reason::Malformed));

    // What is delivered later comes after what was acknowledged.
    machine.apply([commit("g", 2, "c", &["bob"])]);
    assert_eq!(positions(&machine, "bob", 0).len(), 1);
}

#[test]
fn a_full_inbox_drops_its_oldest_welcomes() {
    let mut machine = Machine::new(1);
    machine.apply([create("g")]);
    let total = INBOX_WELCOMES_PER_CLIENT + 30;
    let epochs: Vec<u64> = (0..total).collect();
    for batch in epochs.chunks(100) {
        machine.apply(batch.iter().map(|epoch| commit("g", *epoch, "c", &["bob"])));
    }
    let waiting = positions(&machine, "bob", 0);
    assert_eq!(waiting, (31..=total).collect::<Vec<_>>());
    assert_eq!(left(&machine.apply_one(acknowledge("bob", 40))), INBOX_WELCOMES_PER_CLIENT as u32 - 10);
}
