//! Public handshakes are validated before they can burn an epoch, on exactly the state that they claim.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{GetGroupInfoRequest, SubmitRequest},
    log::v1::WelcomeRecipient,
};
use group_log::{ClientId, Commit, Content, Decision, GroupId, Submission};
use tonic::Code;

use crate::support::{
    Client, Events, accepted, assert_refused, client, create_request,
    fake::FakeCluster,
    gateway,
    member::{Member, tampered},
    pair, submit,
};

const GROUP: &[u8] = b"group";

async fn refused(calls: &mut Client, request: SubmitRequest, code: Code, reason: &str) {
    let error = calls.submit(request).await.map(|_| ()).unwrap_err();
    assert_refused(&error, code, reason);
}

fn epoch(cluster: &FakeCluster) -> u64 {
    cluster.get(|state| state.logs[GROUP].current().unwrap().epoch)
}

#[tokio::test]
async fn a_commit_that_nobody_could_process_is_refused_and_burns_no_epoch() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    let honest = alice.update();
    let bad = SubmitRequest { message: tampered(&honest.message), ..SubmitRequest::default() };
    refused(&mut calls, bad, Code::InvalidArgument, "INVALID_COMMIT").await;
    assert_eq!(epoch(&cluster), 1);
    accepted(submit(&mut calls, honest).await);
    assert_eq!(epoch(&cluster), 2);
}

#[tokio::test]
async fn a_gateway_that_did_not_see_the_last_commits_catches_up_before_it_judges() {
    let cluster = FakeCluster::start(1).await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let (mut at_east, mut at_west) = (client(&east, b"alice"), client(&west, b"alice"));
    let (mut alice, _) = pair(&mut at_east, GROUP).await;
    for round in 0..4 {
        // The west sees only the last commit of each round, without a GroupInfo, and follows the others from the log.
        for _ in 0..3 {
            let mut commit = alice.update();
            commit.group_info = Bytes::new();
            accepted(submit(&mut at_east, commit).await);
            alice.merge();
        }
        let honest = alice.update();
        let bad = SubmitRequest { message: tampered(&honest.message), ..SubmitRequest::default() };
        refused(&mut at_west, bad, Code::InvalidArgument, "INVALID_COMMIT").await;
        let answer = accepted(submit(&mut at_west, honest).await);
        alice.merge();
        assert_eq!(answer.epoch, alice.epoch(), "round {round}");
    }
}

#[tokio::test]
async fn a_commit_that_refers_to_a_proposal_from_another_gateway_is_valid() {
    let cluster = FakeCluster::start(1).await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let (mut at_east, mut at_west) = (client(&east, b"bob"), client(&west, b"alice"));
    let (mut alice, mut bob) = pair(&mut at_east, GROUP).await;
    let at = accepted(submit(&mut at_east, bob.propose_update()).await);
    let mut log = Events::open(&mut at_west, GROUP, None).await;
    alice.process(log.entries(at.seq as usize).await.last().unwrap());
    accepted(submit(&mut at_west, alice.update()).await);
}

#[tokio::test]
async fn a_commit_for_an_epoch_to_come_is_refused_with_the_epoch_that_is() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    alice.update();
    alice.merge();
    let error = calls.submit(alice.update()).await.unwrap_err();
    let facts = assert_refused(&error, Code::FailedPrecondition, "EPOCH_AHEAD");
    assert_eq!((&facts.metadata["head_epoch"][..], &facts.metadata["got"][..]), ("1", "2"));
}

#[tokio::test]
async fn a_group_info_must_be_of_the_state_after_the_commit() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    let before = alice.group_info(true);
    let other_group = Member::new("alice").create(b"another group");
    let abandoned = alice.update();
    alice.abandon();
    let commit = alice.update();
    // The one before the commit, one of another group, and one of the same epoch after another commit.
    for info in [before, other_group, abandoned.group_info.clone()] {
        let wrong = SubmitRequest { group_info: info, ..commit.clone() };
        refused(&mut calls, wrong, Code::InvalidArgument, "MALFORMED").await;
    }
    accepted(submit(&mut calls, commit.clone()).await);
    let info =
        calls.get_group_info(GetGroupInfoRequest { group_id: Bytes::from_static(GROUP) }).await.unwrap();
    assert_eq!(info.into_inner().group_info, commit.group_info);
}

#[tokio::test]
async fn a_welcome_must_be_for_the_stated_recipients_and_for_those_who_are_added() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    let (carol, dave) = (Member::new("carol"), Member::new("dave"));
    let both = alice.commit(&[("carol", carol.key_package(false)), ("dave", dave.key_package(false))], &[]);
    let wrong: [fn(&mut SubmitRequest); 6] = [
        |r| r.recipients.clear(),
        |r| drop(r.recipients.pop()),
        |r| r.recipients[0].key_package_ref = Bytes::from_static(b"another"),
        |r| r.recipients[1] = r.recipients[0].clone(),
        |r| r.recipients.push(WelcomeRecipient { client_id: "x".into(), key_package_ref: "y".into() }),
        |r| r.welcome = Bytes::new(),
    ];
    for (n, spoil) in wrong.into_iter().enumerate() {
        let mut spoilt = both.clone();
        spoil(&mut spoilt);
        let error = calls.submit(spoilt).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{n}");
        assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    }
    // A Welcome that fits its recipients, but not the commit.
    alice.abandon();
    let erin = Member::new("erin");
    let other = alice.commit(&[("erin", erin.key_package(false))], &[]);
    let crossed = SubmitRequest { welcome: other.welcome, recipients: other.recipients, ..both.clone() };
    refused(&mut calls, crossed, Code::InvalidArgument, "MALFORMED").await;
    accepted(submit(&mut calls, both).await);
}

#[tokio::test]
async fn private_handshakes_pass_and_external_commits_to_them_are_still_validated() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::private("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    for _ in 0..3 {
        accepted(submit(&mut calls, alice.update()).await);
        alice.merge();
    }
    let request = GetGroupInfoRequest { group_id: Bytes::from_static(GROUP) };
    let info = calls.get_group_info(request).await.unwrap().into_inner().group_info;
    let mut bob = Member::private("bob");
    let joining = bob.join_external(&info);
    let bad = SubmitRequest { message: tampered(&joining.message), ..SubmitRequest::default() };
    refused(&mut calls, bad, Code::InvalidArgument, "INVALID_COMMIT").await;
    accepted(submit(&mut calls, joining).await);
    assert_eq!(epoch(&cluster), 4);
}

/// A gateway cannot check confirmation tags. One that was tampered with on the way goes into its transcript, and from the second commit
/// after it on nothing would validate any more; the newest GroupInfo puts it right.
#[tokio::test]
async fn a_poisoned_state_is_rebuilt_from_the_newest_group_info_before_anything_is_refused() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;

    let mut poison = alice.update().message.to_vec();
    // PublicMessage ends with confirmation_tag<V> and membership_tag<V>, 33 bytes each.
    let at = poison.len() - 40;
    poison[at] ^= 1;
    let poison = SubmitRequest { message: poison.into(), ..SubmitRequest::default() };
    accepted(submit(&mut calls, poison).await);
    alice.merge();
    // The next commit comes in through somebody who does not validate.
    let next = alice.update();
    alice.merge();
    cluster.set(|state| {
        let log = state.logs.get_mut(GROUP).unwrap();
        let content = Content::Commit(Commit {
            message: next.message,
            welcome: Bytes::new(),
            group_info: next.group_info,
            recipients: Vec::new(),
        });
        let submission = Submission {
            group_id: GroupId::new(GROUP).unwrap(),
            author: ClientId::new(&b"alice"[..]).unwrap(),
            epoch: 2,
            parent_state_id: None,
            content,
        };
        assert!(matches!(log.apply(&submission), Decision::Accepted(_)));
    });
    let answer = accepted(submit(&mut calls, alice.update()).await);
    assert_eq!(answer.epoch, 4);
}

#[tokio::test]
async fn what_cannot_be_followed_from_outside_is_left_to_its_members() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    alice.create(GROUP);
    let without_tree = alice.group_info(false);
    calls.create_group(create_request(without_tree)).await.unwrap();
    let mut commit = alice.update();
    commit.group_info = Bytes::new();
    accepted(submit(&mut calls, commit).await);
}

#[tokio::test]
async fn a_group_begins_only_with_a_group_info_that_is_valid() {
    let cluster = FakeCluster::start(1).await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    let mut info = alice.create(GROUP).to_vec();
    // The signature is at the end.
    *info.last_mut().unwrap() ^= 1;
    let error = calls.create_group(create_request(info.into())).await.unwrap_err();
    assert_refused(&error, Code::InvalidArgument, "MALFORMED");
    cluster.get(|state| assert!(state.logs.is_empty()));
}
