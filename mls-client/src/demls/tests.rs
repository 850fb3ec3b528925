//! What is secret is overwritten when it goes. Each function names every field of a type, so that a new one has to be thought about; what
//! is secret among them must be of a type that overwrites itself, or it does not compile.

use super::{
    epoch_keys::EpochKeys,
    kv::KvStorage,
    secret::{Secret, SecretBuffer, is_wiped},
    state::EpochState,
    states::{Record, RecordChange},
};

fn secret(secret: &Secret, buffer: &SecretBuffer) {
    is_wiped(secret);
    is_wiped(buffer);
}

fn epoch_keys(keys: &EpochKeys) {
    is_wiped(keys);
    let EpochKeys {
        epoch: _,
        authenticator: _,
        init_handle: _,
        pprf,
        external_handle: _,
        external_secret,
        parent_input,
    } = keys;
    is_wiped(pprf);
    external_secret.iter().chain(parent_input).for_each(is_wiped);
}

fn state(state: &EpochState) {
    let EpochState { group_id: _, values, keys } = state;
    keys.iter().for_each(epoch_keys);
    openmls_values(values);
}

fn openmls_values(values: &KvStorage) {
    values.entries().values().for_each(|value| is_wiped(&**value));
}

fn stored(record: &Record, change: &RecordChange) {
    let Record { name: _, body } = record;
    is_wiped(body);
    match change {
        RecordChange::Put(_, body) => is_wiped(body),
        RecordChange::Delete(_) => {}
    }
}

#[test]
fn every_field_that_is_secret_is_overwritten_when_it_is_dropped() {
    let _: fn(&Secret, &SecretBuffer) = secret;
    let _: fn(&EpochState) = state;
    let _: fn(&Record, &RecordChange) = stored;
}
