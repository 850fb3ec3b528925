use proptest::prelude::*;

use super::{
    chunks::{cut, hash},
    pack::{pack, unpack},
    record::{StateRecord, decode_keys},
    *,
};
use crate::demls::{
    epoch_keys::EpochKeys,
    limits::{CHUNK_MAX_BYTES, CHUNK_MIN_BYTES},
};

/// Text that is full of lists, well formed and not.
fn jsonish() -> impl Strategy<Value = Vec<u8>> {
    let bytes =
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| serde_json::to_vec(&bytes).unwrap());
    let odd = proptest::collection::vec(proptest::sample::select(b"[],0123456789{}\": -".to_vec()), 0..20);
    proptest::collection::vec(prop_oneof![bytes, odd], 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_packed_value_is_unpacked_as_it_was(value in prop_oneof![jsonish(), proptest::collection::vec(any::<u8>(), 0..400)]) {
        let unpacked = unpack(&pack(&value)).unwrap();
        prop_assert_eq!(unpacked.as_slice(), value);
    }

    #[test]
    fn arbitrary_bytes_never_panic_any_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = unpack(&bytes);
        let _ = StateRecord::decode(&bytes);
        let _ = decode_keys(&bytes);
        let _ = EpochKeys::decode(&bytes);
        let _ = crate::demls::DmlsMessage::decode(&bytes);
        let _ = RecordName::from_parts(i64::from(bytes.first().copied().unwrap_or(0)), &bytes);
    }

    #[test]
    fn chunks_are_the_value_and_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
        let chunks = cut(&bytes);
        prop_assert_eq!(&chunks.concat(), &bytes);
        for (position, chunk) in chunks.iter().enumerate() {
            prop_assert!(chunk.len() <= CHUNK_MAX_BYTES);
            prop_assert!(chunk.len() >= CHUNK_MIN_BYTES || position + 1 == chunks.len());
        }
    }

    #[test]
    fn a_small_change_leaves_most_chunks_as_they_were(seed: u8, at in 0usize..30_000) {
        let before: Vec<u8> = (0..30_000u32).map(|i| hash(&[i.to_be_bytes().as_slice(), &[seed]].concat())[0]).collect();
        let mut after = before.clone();
        after.insert(at, 0);
        let known: std::collections::HashSet<_> = cut(&before).into_iter().collect();
        let new: usize = cut(&after).into_iter().filter(|chunk| !known.contains(chunk)).map(<[u8]>::len).sum();
        prop_assert!(new <= 4 * CHUNK_MAX_BYTES, "{} bytes are new", new);
    }

    #[test]
    fn a_state_record_is_read_back_as_it_was(
        parent in proptest::option::of(any::<[u8; 32]>()),
        values in proptest::collection::btree_map(jsonish(), proptest::collection::vec(0u32..1 << 30, 0..20), 0..6),
    ) {
        let record = StateRecord { parent: parent.map(StateId), values };
        let read = StateRecord::decode(&record.encode()).unwrap();
        prop_assert_eq!((read.parent, read.values), (record.parent, record.values));
    }
}

#[test]
fn byte_strings_pack_to_themselves() {
    let value =
        serde_json::to_vec(&serde_json::json!({ "secret": vec![255u8; 1000], "short": [1, 2, 3] })).unwrap();
    assert!(pack(&value).len() < 1000 + 50);
}

#[test]
fn record_names_are_read_back_as_they_were() {
    for name in
        [RecordName::State(StateId([1; 32])), RecordName::Keys(StateId([2; 32])), RecordName::Chunk(77)]
    {
        let (kind, id) = name.to_parts();
        assert_eq!(RecordName::from_parts(kind as i64, &id).unwrap(), name);
    }
}

#[test]
fn damaged_records_are_reported_and_orphans_are_swept() {
    let group = GroupId::from_slice(b"group");
    let put = |name, body: &[u8]| RecordChange::Put(name, Zeroizing::new(body.to_vec()));
    let state = StateRecord { parent: None, values: BTreeMap::from([(b"key".to_vec(), vec![5])]) }.encode();

    let mut records = MemoryRecords::default();
    records.apply(group.as_slice(), &[put(RecordName::State(StateId([1; 32])), &state)]).unwrap();
    assert!(matches!(BranchStates::open(&records, group.clone()), Err(StoreError::Damaged(_))));
    records.apply(group.as_slice(), &[put(RecordName::Keys(StateId([1; 32])), &[])]).unwrap();
    assert!(matches!(BranchStates::open(&records, group.clone()), Err(StoreError::Damaged(_))));
    records
        .apply(
            group.as_slice(),
            &[put(RecordName::Chunk(5), b"\x0avalue"), put(RecordName::Chunk(9), b"lost")],
        )
        .unwrap();
    let mut states = BranchStates::open(&records, group.clone()).unwrap();
    assert_eq!(states.ids().count(), 1);

    states.store(&mut records, StateChange::new()).unwrap();
    assert!(records.get(group.as_slice(), RecordName::Chunk(9)).unwrap().is_none());
    assert!(records.get(group.as_slice(), RecordName::Chunk(5)).unwrap().is_some());
    assert!(matches!(states.read(&records, &StateId([2; 32])), Err(StoreError::UnknownState(_))));
}
