//! A little fuzzing of what turns bytes from outside into the types of the rules: never a panic, and what is accepted survives a round
//! trip.

use bytes::Bytes;
use concordat_proto::{gateway::v1 as gateway, log::v1 as log, ordering::v1 as ordering, raft::v1 as raft};
use group_log::{Content, Entry, Submission};
use proptest::prelude::*;
use prost::Message;
use testbed::{junk, seed};

/// Decodes the bytes as everything that comes in over the wire.
fn decode_as_everything(bytes: &Bytes) {
    macro_rules! decode {
        ($($kind:ty),* $(,)?) => { $( let _ = <$kind>::decode(bytes.clone()); )* };
    }
    decode!(
        ordering::SubmitRequest,
        ordering::SubscribeRequest,
        ordering::ReadEntriesRequest,
        ordering::ReadInboxRequest,
        ordering::BootstrapRequest,
        ordering::AddLearnerRequest,
        ordering::Outcome,
        ordering::QuorumState,
        gateway::SubmitRequest,
        gateway::SubmitStreamRequest,
        gateway::SubscribeRequest,
        gateway::CreateGroupRequest,
        gateway::UploadKeyPackagesRequest,
        gateway::SubscribeResponse,
        raft::IdentifyResponse,
    );
    if let Ok(entry) = log::Entry::decode(bytes.clone()) {
        let _ = Entry::try_from(entry);
    }
    if let Ok(content) = log::Content::decode(bytes.clone()) {
        let _ = Content::try_from(content);
    }
    if let Ok(accepted) = log::Accepted::decode(bytes.clone()) {
        let _ = group_log::Accepted::try_from(accepted);
    }
    if let Ok(cursor) = log::Cursor::decode(bytes.clone()) {
        let _ = group_log::Cursor::try_from(cursor);
    }
    if let Ok(command) = ordering::Command::decode(bytes.clone())
        && let Some(ordering::command::Command::Group(submission)) = command.command
        && let Ok(submission) = Submission::try_from(submission)
    {
        let wire = ordering::GroupSubmission::from(submission.clone());
        assert_eq!(Submission::try_from(wire).as_ref(), Ok(&submission));
    }
    let _ = service_kit::status::decode(bytes);
    let _ = group_log::Head::decode(bytes);
    let _ = group_log::Record::decode(bytes);
    let _ = group_log::CommitRef::decode(bytes);
}

fn good_submission() -> Vec<u8> {
    let content = log::Content {
        content: Some(log::content::Content::Commit(log::Commit {
            message: Bytes::from_static(b"commit"),
            welcome: Bytes::from_static(b"welcome"),
            group_info: Bytes::from_static(b"group info"),
            recipients: vec![log::WelcomeRecipient {
                client_id: Bytes::from_static(b"client"),
                key_package_ref: Bytes::from_static(b"reference"),
            }],
        })),
    };
    let submission = ordering::GroupSubmission {
        group_id: Bytes::from_static(b"group"),
        author: Bytes::from_static(b"author"),
        epoch: 3,
        parent_state_id: Bytes::from(vec![1; 32]),
        facts: None,
        content: Some(content),
        members_only: false,
    };
    ordering::Command { command: Some(ordering::command::Command::Group(submission)) }.encode_to_vec()
}

#[test]
fn the_classics_of_bad_input_decode_to_errors() {
    junk::classics().iter().for_each(decode_as_everything);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_as_everything(&bytes.into());
    }

    #[test]
    fn plausible_messages_never_panic(draw: u64) {
        decode_as_everything(&junk::plausible(&mut seed::rng(draw, 0), 4));
    }

    #[test]
    fn spoiled_messages_never_panic(draw: u64) {
        let mut rng = seed::rng(draw, 0);
        let mut message: Bytes = good_submission().into();
        for _ in 0..3 {
            message = junk::spoiled(&message, &mut rng);
            decode_as_everything(&message);
        }
    }
}
