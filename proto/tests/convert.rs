//! What goes to the wire comes back as it was; what can not be comes back as an error that names the field.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

use bytes::Bytes;
use concordat_proto::{convert::WireError, log::v1 as wire, ordering::v1::GroupSubmission};
use group_log::{
    Accepted, ChainHash, ClientId, Commit, Content, Create, Cursor, CursorError, Entry, GroupId, GroupKind,
    KeyPackageRef, Policy, Refusal, StateId, Submission, Turns, WelcomeRecipient,
};
use prost::Message;

fn contents() -> Vec<Content> {
    let message = Bytes::from_static(b"message");
    let recipient = WelcomeRecipient {
        client_id: ClientId::new(&b"dan"[..]).unwrap(),
        key_package_ref: KeyPackageRef::new(&b"ref"[..]).unwrap(),
    };
    let create = |kind| {
        let group_info = message.clone();
        Content::Create(Create {
            kind,
            policy: Policy { past_epochs: 0, retain_entries: 9, retain_hours: 0 },
            group_info,
        })
    };
    vec![
        create(GroupKind::Mls),
        create(GroupKind::Demls),
        create(GroupKind::Dimls),
        Content::Proposal { message: message.clone() },
        Content::Commit(Commit {
            message: message.clone(),
            welcome: message.clone(),
            group_info: Bytes::new(),
            recipients: vec![recipient],
        }),
        Content::Application { message: message.clone() },
        Content::PolicyChange {
            policy: Policy { past_epochs: 64, retain_entries: 1 << 62, retain_hours: 48 },
            turns: None,
        },
        Content::PolicyChange {
            policy: Policy { past_epochs: 1, ..Policy::default() },
            turns: Some(Turns {
                turn_ms: 500,
                order: vec![ClientId::new("ann").unwrap(), ClientId::new("bob").unwrap()],
            }),
        },
        Content::Close,
    ]
}

fn submission(content: Content, parent_state_id: Option<StateId>) -> Submission {
    let group_id = GroupId::new(vec![7; 256]).unwrap();
    let author = ClientId::new(&b"ann"[..]).unwrap();
    Submission { group_id, author, epoch: 3, parent_state_id, content }
}

#[test]
fn submissions_come_back_as_they_were() {
    for content in contents() {
        for parent in [None, Some(StateId([1; 32]))] {
            let before = submission(content.clone(), parent);
            let bytes = GroupSubmission::from(before.clone()).encode_to_vec();
            let after = GroupSubmission::decode(Bytes::from(bytes)).unwrap();
            assert_eq!(Submission::try_from(after), Ok(before));
        }
    }
}

#[test]
fn entries_cursors_and_answers_come_back_as_they_were() {
    for content in contents() {
        for author in [None, Some(ClientId::new(&b"ann"[..]).unwrap())] {
            let (chain, state_id) = (ChainHash([2; 32]), StateId([1; 32]));
            let before = Entry { seq: 9, chain, epoch: 4, state_id, author, content: content.clone() };
            assert_eq!(Entry::try_from(wire::Entry::from(before.clone())), Ok(before));
        }
    }
    let cursors = [
        Cursor::START,
        Cursor::Canonical { seq: 4, chain: Some(ChainHash([3; 32])) },
        Cursor::Branch { fork: StateId([4; 32]), state: StateId([5; 32]), n: 6 },
    ];
    for cursor in cursors {
        assert_eq!(Cursor::try_from(wire::Cursor::from(cursor)), Ok(cursor));
    }
    let accepted = Accepted { seq: 1, epoch: 2, state_id: StateId([6; 32]), chain: ChainHash([7; 32]) };
    assert_eq!(Accepted::try_from(wire::Accepted::from(accepted)), Ok(accepted));
}

#[test]
fn the_wrong_field_is_named_with_what_was_expected() {
    let good = || GroupSubmission::from(submission(Content::Close, None));
    let error = |wrong: GroupSubmission| -> (&'static str, String) {
        let WireError { field, got, .. } = Submission::try_from(wrong).unwrap_err();
        (field, got)
    };
    assert_eq!(error(GroupSubmission { group_id: Bytes::new(), ..good() }), ("group_id", "0 bytes".into()));
    assert_eq!(
        error(GroupSubmission { author: vec![0; 129].into(), ..good() }),
        ("author", "129 bytes".into())
    );
    let parent_state_id = Bytes::from_static(&[0; 31]);
    assert_eq!(error(GroupSubmission { parent_state_id, ..good() }), ("parent_state_id", "31 bytes".into()));
    assert_eq!(error(GroupSubmission { content: None, ..good() }), ("content", "nothing".into()));
    let content = Some(wire::Content { content: None });
    assert_eq!(error(GroupSubmission { content, ..good() }), ("content", "nothing".into()));
    for kind in [0, 4, -1] {
        let create = wire::Create { kind, policy: None, group_info: Bytes::new() };
        let content = Some(wire::Content { content: Some(wire::content::Content::Create(create)) });
        assert_eq!(error(GroupSubmission { content, ..good() }), ("content.create.kind", kind.to_string()));
    }
    let no_chain = Cursor::try_from(wire::Cursor { chain: None }).unwrap_err();
    assert_eq!(no_chain.to_string(), "cursor.chain must be canonical or branch, got nothing");
}

#[test]
fn an_absent_policy_is_the_default() {
    let create = wire::Create { kind: 1, policy: None, group_info: Bytes::from_static(b"info") };
    let content = wire::Content { content: Some(wire::content::Content::Create(create)) };
    let Ok(Content::Create(create)) = Content::try_from(content) else { panic!("a create") };
    assert_eq!(create.policy, Policy::default());
}

#[test]
fn refusals_carry_their_facts() {
    let refused = wire::Refused::from(&Refusal::EpochAhead { head_epoch: 4, got: 9 });
    assert_eq!(refused.reason(), wire::Reason::EpochAhead);
    assert_eq!((refused.metadata["head_epoch"].as_str(), refused.metadata["got"].as_str()), ("4", "9"));
    let refused = wire::Refused::from(&CursorError::Ahead { head_seq: 1, got: 2 });
    assert_eq!(refused.reason(), wire::Reason::CursorAhead);
    let refused = wire::Refused::from(&WireError::missing("content", "something"));
    assert_eq!((refused.reason(), refused.metadata["field"].as_str()), (wire::Reason::Malformed, "content"));
}
