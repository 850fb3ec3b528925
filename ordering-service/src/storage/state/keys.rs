//! Keys of the state machine's rows. Integers are big-endian, so rows lie in the order of their numbers; names are preceded by
//! their length, so no name is a prefix of another.
//!
//! | tag | key | value |
//! |---|---|---|
//! | 01 | | position: last applied log id, membership |
//! | 02 | | up to which log index payloads came with a snapshot |
//! | 03 | log index | nothing: no row refers to this log entry |
//! | 04 | log index | nothing: a report of branches that rows refer to, any number of them |
//! | 05 | log index | the log index of the command after which no row refers to this log entry any more |
//! | 10 | group | head, of now or of up to 16 entries ago |
//! | 11 | group, seq | where the payload is, record |
//! | 12 | group, epoch | the commit that ended the epoch, where records do not say it |
//! | 13 | group, entry id | seq of a recent entry |
//! | 14 | group | state of the branches of a DeMLS group |
//! | 15 | group, entry id | what a DeMLS group's log says about the entry |
//! | 16 | group, entry id | an entry that waits for the close of a collection |
//! | 17 | group, leaf | nothing: the leaf is a member at the head |
//! | 18 | group, entry id | log index and position in the report that brought the entry |
//! | 19 | group, seq | what the cluster itself wrote into the log |
//! | 1a | group, place | the client at this place of the order in which members commit |
//! | 1b | group | what was pruned of the log |
//! | 20 | client, position | a Welcome that waits |
//! | 21 | client | how many wait |
//! | 30 | group | the shard it lives in |
//! | 40 | client | counts and numbers of its KeyPackages |
//! | 41 | client, number | a KeyPackage to be handed out once |
//! | 42 | client, reference | what became of a KeyPackage |
//! | 43 | client, claimer, claim id | the KeyPackage that a claim got |
//! | 44 | client, number | a claim, in order |
//! | 45 | client | the KeyPackage of last resort |
//! | 50 | group | the collection that is open |
//! | 51 | gateway, group | nothing: the gateway is registered for the group |
//! | 52 | gateway | when it was last seen |
//! | 53 | group | how many removals are owed |
//! | 54 | | when a leader last noted which gateways are there |
//! | 55 | group | nothing: something in the log of this DeMLS group is not stable yet |

use bytes::Bytes;

use crate::storage::wire::{DecodeError, Fields};

const POSITION: u8 = 0x01;
const BASE: u8 = 0x02;
const UNREFERENCED: u8 = 0x03;
const REPORT: u8 = 0x04;
const DROPPED: u8 = 0x05;
const HEAD: u8 = 0x10;
const RECORD: u8 = 0x11;
const COMMIT: u8 = 0x12;
const RECENT: u8 = 0x13;
const FORK: u8 = 0x14;
const RECORDED: u8 = 0x15;
const CANDIDATE: u8 = 0x16;
const MEMBER: u8 = 0x17;
const REPORTED: u8 = 0x18;
const MARK: u8 = 0x19;
const TURN: u8 = 0x1a;
const PRUNED: u8 = 0x1b;
const WELCOME: u8 = 0x20;
const INBOX: u8 = 0x21;
const SHARD_OF: u8 = 0x30;
const KEY_PACKAGES: u8 = 0x40;
const KEY_PACKAGE: u8 = 0x41;
const KEY_PACKAGE_REF: u8 = 0x42;
const CLAIM: u8 = 0x43;
const CLAIM_ORDER: u8 = 0x44;
const LAST_RESORT: u8 = 0x45;
const OPEN: u8 = 0x50;
const GROUP_OF: u8 = 0x51;
const GATEWAY: u8 = 0x52;
const OWED: u8 = 0x53;
const NOTED: u8 = 0x54;
const UNSTABLE: u8 = 0x55;

/// The key of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowKey<'a> {
    Position,
    Base,
    Unreferenced { index: u64 },
    Report { index: u64 },
    Dropped { index: u64 },
    Head { group: &'a [u8] },
    Record { group: &'a [u8], seq: u64 },
    Commit { group: &'a [u8], epoch: u64 },
    Recent { group: &'a [u8], id: &'a [u8; 32] },
    Fork { group: &'a [u8] },
    Recorded { group: &'a [u8], id: &'a [u8; 32] },
    Candidate { group: &'a [u8], id: &'a [u8; 32] },
    Member { group: &'a [u8], leaf: &'a [u8; 32] },
    Reported { group: &'a [u8], id: &'a [u8; 32] },
    Mark { group: &'a [u8], seq: u64 },
    Turn { group: &'a [u8], index: u32 },
    Pruned { group: &'a [u8] },
    Welcome { client: &'a [u8], position: u64 },
    Inbox { client: &'a [u8] },
    ShardOf { group: &'a [u8] },
    KeyPackages { client: &'a [u8] },
    KeyPackage { client: &'a [u8], number: u64 },
    KeyPackageRef { client: &'a [u8], reference: &'a [u8] },
    Claim { client: &'a [u8], claimer: &'a [u8], claim: &'a [u8] },
    ClaimOrder { client: &'a [u8], number: u64 },
    LastResort { client: &'a [u8] },
    Open { group: &'a [u8] },
    GroupOf { gateway: &'a [u8; 16], group: &'a [u8] },
    Gateway { gateway: &'a [u8; 16] },
    Owed { group: &'a [u8] },
    Noted,
    Unstable { group: &'a [u8] },
}

impl RowKey<'_> {
    /// The bytes of the key.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let key = |tag: u8| KeyBytes(Vec::with_capacity(64)).byte(tag);
        match *self {
            RowKey::Position => key(POSITION),
            RowKey::Base => key(BASE),
            RowKey::Unreferenced { index } => key(UNREFERENCED).int(index),
            RowKey::Report { index } => key(REPORT).int(index),
            RowKey::Dropped { index } => key(DROPPED).int(index),
            RowKey::Head { group } => key(HEAD).name(group),
            RowKey::Record { group, seq } => key(RECORD).name(group).int(seq),
            RowKey::Commit { group, epoch } => key(COMMIT).name(group).int(epoch),
            RowKey::Recent { group, id } => key(RECENT).name(group).bytes(id),
            RowKey::Fork { group } => key(FORK).name(group),
            RowKey::Recorded { group, id } => key(RECORDED).name(group).bytes(id),
            RowKey::Candidate { group, id } => key(CANDIDATE).name(group).bytes(id),
            RowKey::Member { group, leaf } => key(MEMBER).name(group).bytes(leaf),
            RowKey::Reported { group, id } => key(REPORTED).name(group).bytes(id),
            RowKey::Mark { group, seq } => key(MARK).name(group).int(seq),
            RowKey::Turn { group, index } => key(TURN).name(group).int(index.into()),
            RowKey::Pruned { group } => key(PRUNED).name(group),
            RowKey::Welcome { client, position } => key(WELCOME).name(client).int(position),
            RowKey::Inbox { client } => key(INBOX).name(client),
            RowKey::ShardOf { group } => key(SHARD_OF).name(group),
            RowKey::KeyPackages { client } => key(KEY_PACKAGES).name(client),
            RowKey::KeyPackage { client, number } => key(KEY_PACKAGE).name(client).int(number),
            RowKey::KeyPackageRef { client, reference } => key(KEY_PACKAGE_REF).name(client).name(reference),
            RowKey::Claim { client, claimer, claim } => key(CLAIM).name(client).name(claimer).name(claim),
            RowKey::ClaimOrder { client, number } => key(CLAIM_ORDER).name(client).int(number),
            RowKey::LastResort { client } => key(LAST_RESORT).name(client),
            RowKey::Open { group } => key(OPEN).name(group),
            RowKey::GroupOf { gateway, group } => key(GROUP_OF).bytes(gateway).name(group),
            RowKey::Gateway { gateway } => key(GATEWAY).bytes(gateway),
            RowKey::Owed { group } => key(OWED).name(group),
            RowKey::Noted => key(NOTED),
            RowKey::Unstable { group } => key(UNSTABLE).name(group),
        }
        .0
    }
}

/// What the key of a row says to those who walk over all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    /// Where the state stands: [`RowKey::Position`], [`RowKey::Base`], [`RowKey::Unreferenced`] and [`RowKey::Dropped`]. Meaningful on
    /// this node only.
    Local,
    /// [`RowKey::Record`]: refers to a row of the log, to one that a [`RowKey::Report`] refers to, or to none.
    Record,
    /// [`RowKey::Report`]: refers to a row of the log, by its key.
    Report,
    /// Everything else.
    Plain,
}

/// The kind of the row with this key.
pub(crate) fn row_kind(key: &[u8]) -> Result<RowKind, DecodeError> {
    match key.first() {
        Some(&(POSITION | BASE | UNREFERENCED | DROPPED)) => Ok(RowKind::Local),
        Some(&RECORD) => Ok(RowKind::Record),
        Some(&REPORT) => Ok(RowKind::Report),
        Some(
            &(HEAD | COMMIT | RECENT | FORK | RECORDED | CANDIDATE | MEMBER | REPORTED | MARK | TURN
            | PRUNED | WELCOME | INBOX | SHARD_OF | KEY_PACKAGES | KEY_PACKAGE | KEY_PACKAGE_REF | CLAIM
            | CLAIM_ORDER | LAST_RESORT | OPEN | GROUP_OF | GATEWAY | OWED | NOTED | UNSTABLE),
        ) => Ok(RowKind::Plain),
        Some(&got) => Err(DecodeError::Value { what: "row tag", got: got.into() }),
        None => Err(DecodeError::Short { what: "row tag", needed: 1, left: 0 }),
    }
}

/// The number at the end of a key that ends with one.
pub(crate) fn trailing_number(key: &[u8]) -> Result<u64, DecodeError> {
    let at = key.len().saturating_sub(8);
    Fields::new(Bytes::copy_from_slice(&key[at..])).int("number at the end of a key")
}

/// The name at the end of a key that is made of a tag, `fixed` bytes and a name.
pub(crate) fn trailing_name(key: &[u8], fixed: usize) -> Result<Bytes, DecodeError> {
    let at = 1 + fixed + 2;
    match key.get(at..) {
        Some(name) => Ok(Bytes::copy_from_slice(name)),
        None => Err(DecodeError::Short { what: "name at the end of a key", needed: at, left: key.len() }),
    }
}

struct KeyBytes(Vec<u8>);

impl KeyBytes {
    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn int(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    // Names are at most 256 bytes long, so two bytes hold the length.
    fn name(self, name: &[u8]) -> Self {
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.bytes(&length.to_be_bytes()).bytes(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take_name<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
        let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
        let (name, rest) = bytes[2..].split_at(length);
        *bytes = rest;
        name
    }

    /// Reads a key back, to show that it says all that went in.
    fn decode(bytes: &[u8]) -> RowKey<'_> {
        let number = || trailing_number(bytes).unwrap();
        let mut rest = &bytes[1..];
        match bytes[0] {
            POSITION => RowKey::Position,
            BASE => RowKey::Base,
            UNREFERENCED => RowKey::Unreferenced { index: number() },
            REPORT => RowKey::Report { index: number() },
            DROPPED => RowKey::Dropped { index: number() },
            PRUNED => RowKey::Pruned { group: take_name(&mut rest) },
            HEAD => RowKey::Head { group: take_name(&mut rest) },
            RECORD => RowKey::Record { group: take_name(&mut rest), seq: number() },
            COMMIT => RowKey::Commit { group: take_name(&mut rest), epoch: number() },
            RECENT => {
                let group = take_name(&mut rest);
                RowKey::Recent { group, id: rest.try_into().unwrap() }
            }
            FORK => RowKey::Fork { group: take_name(&mut rest) },
            RECORDED | CANDIDATE | MEMBER | REPORTED => {
                let group = take_name(&mut rest);
                let id: &[u8; 32] = rest.try_into().unwrap();
                match bytes[0] {
                    RECORDED => RowKey::Recorded { group, id },
                    CANDIDATE => RowKey::Candidate { group, id },
                    MEMBER => RowKey::Member { group, leaf: id },
                    _ => RowKey::Reported { group, id },
                }
            }
            MARK => RowKey::Mark { group: take_name(&mut rest), seq: number() },
            TURN => RowKey::Turn { group: take_name(&mut rest), index: number().try_into().unwrap() },
            OPEN => RowKey::Open { group: take_name(&mut rest) },
            GROUP_OF => {
                let (gateway, mut rest) = rest.split_first_chunk().unwrap();
                RowKey::GroupOf { gateway, group: take_name(&mut rest) }
            }
            GATEWAY => RowKey::Gateway { gateway: rest.try_into().unwrap() },
            OWED => RowKey::Owed { group: take_name(&mut rest) },
            NOTED => RowKey::Noted,
            UNSTABLE => RowKey::Unstable { group: take_name(&mut rest) },
            WELCOME => RowKey::Welcome { client: take_name(&mut rest), position: number() },
            INBOX => RowKey::Inbox { client: take_name(&mut rest) },
            SHARD_OF => RowKey::ShardOf { group: take_name(&mut rest) },
            KEY_PACKAGES => RowKey::KeyPackages { client: take_name(&mut rest) },
            KEY_PACKAGE => RowKey::KeyPackage { client: take_name(&mut rest), number: number() },
            KEY_PACKAGE_REF => {
                RowKey::KeyPackageRef { client: take_name(&mut rest), reference: take_name(&mut rest) }
            }
            CLAIM => RowKey::Claim {
                client: take_name(&mut rest),
                claimer: take_name(&mut rest),
                claim: take_name(&mut rest),
            },
            CLAIM_ORDER => RowKey::ClaimOrder { client: take_name(&mut rest), number: number() },
            LAST_RESORT => RowKey::LastResort { client: take_name(&mut rest) },
            tag => panic!("unknown tag {tag}"),
        }
    }

    proptest! {
        #[test]
        fn keys_say_all_that_went_in(a: Vec<u8>, b: Vec<u8>, c: Vec<u8>, number: u64, id: [u8; 32]) {
            let (group, client) = (&a[..], &a[..]);
            let gateway = id.first_chunk().unwrap();
            let keys = [
                RowKey::Position,
                RowKey::Base,
                RowKey::Unreferenced { index: number },
                RowKey::Head { group },
                RowKey::Record { group, seq: number },
                RowKey::Commit { group, epoch: number },
                RowKey::Recent { group, id: &id },
                RowKey::Welcome { client, position: number },
                RowKey::Inbox { client },
                RowKey::ShardOf { group },
                RowKey::KeyPackages { client },
                RowKey::KeyPackage { client, number },
                RowKey::KeyPackageRef { client, reference: &b },
                RowKey::Claim { client, claimer: &b, claim: &c },
                RowKey::ClaimOrder { client, number },
                RowKey::LastResort { client },
                RowKey::Report { index: number },
                RowKey::Dropped { index: number },
                RowKey::Pruned { group },
                RowKey::Fork { group },
                RowKey::Recorded { group, id: &id },
                RowKey::Candidate { group, id: &id },
                RowKey::Member { group, leaf: &id },
                RowKey::Reported { group, id: &id },
                RowKey::Mark { group, seq: number },
                RowKey::Open { group },
                RowKey::GroupOf { gateway, group },
                RowKey::Gateway { gateway },
                RowKey::Owed { group },
                RowKey::Noted,
                RowKey::Unstable { group },
            ];
            prop_assert_eq!(trailing_name(&RowKey::Open { group }.encode(), 0).unwrap(), group);
            prop_assert_eq!(trailing_name(&RowKey::GroupOf { gateway, group }.encode(), 16).unwrap(), group);
            for key in keys {
                let bytes = key.encode();
                prop_assert_eq!(decode(&bytes), key);
                prop_assert!(row_kind(&bytes).is_ok());
            }
        }

        #[test]
        fn records_lie_in_order_and_apart_from_other_groups(group: Vec<u8>, other: Vec<u8>, seqs: (u64, u64)) {
            let key = |group: &[u8], seq| RowKey::Record { group, seq }.encode();
            prop_assert_eq!(key(&group, seqs.0).cmp(&key(&group, seqs.1)), seqs.0.cmp(&seqs.1));
            prop_assume!(group != other);
            let between = |bytes: &[u8]| {
                (key(&group, 0)..=key(&group, u64::MAX)).contains(&bytes.to_vec())
            };
            prop_assert!(!between(&key(&other, seqs.0)));
        }
    }
}
