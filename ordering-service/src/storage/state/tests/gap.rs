//! A log that goes on behind a snapshot whose purge was not noted before the process ended.

use super::*;

#[test]
fn a_log_that_goes_on_behind_a_snapshot_is_purged_up_to_where_the_state_is() {
    let mut machine = Machine::new(1);
    machine.apply([create("before"), message("before", 0, "m")]);
    let mut copy = machine.copy_by_snapshot().machine;
    let early =
        LogEntry { log_id: LogId::new(LeaderId { term: 1, node_id: 1 }, 0), payload: EntryPayload::Blank };
    copy.storage.0.medium.write(&[(1, Change::Append(vec![early]))]).unwrap();
    copy.apply_one(create("after"));
    let copy = copy.restart();
    let applied = copy.state.last_applied().unwrap();
    assert_eq!(applied.index, 2);
    assert_eq!(copy.state.log.bounds(), (Some(applied), Some(applied)));
    copy.storage.wait_swept();
    assert_eq!(copy.reader.entries(b"before", 0, 9, usize::MAX).unwrap().len(), 2);
    let copy = copy.restart();
    assert_eq!(copy.state.log.bounds(), (Some(applied), Some(applied)));
    assert_eq!(copy.reader.entries(b"after", 0, 9, usize::MAX).unwrap().len(), 1);
}
