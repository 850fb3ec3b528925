//! The life of a group: members come and go, commits race, messages flow, and everybody stays in the same state.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        ClaimKeyPackageRequest, CloseGroupRequest, GetGroupInfoRequest, GetHeadRequest, SetPolicyRequest,
        UploadKeyPackagesRequest, WatchWelcomesRequest,
    },
    log::v1::{Policy, content::Content},
    ordering::v1::{LocateRequest, WatchQuorumRequest, ordering_client::OrderingClient},
};
use tonic::{Code, transport::Endpoint};

use crate::support::{
    Events, accepted, assert_refused, client, create_request, gateway, member::Member, pair,
    real::RealCluster, soon, submit, superseded, until,
};

const GROUP: &[u8] = b"group";

#[tokio::test(flavor = "multi_thread")]
async fn members_spread_over_two_gateways_share_one_log_and_one_state() {
    let cluster = RealCluster::start().await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let (mut at_east, mut at_west) = (client(&east, b"alice"), client(&west, b"bob"));

    // Bob uploads a KeyPackage in the west, Alice claims it in the east and adds him.
    let upload = UploadKeyPackagesRequest { key_packages: vec![bob.key_package(false)], replace: false };
    at_west.upload_key_packages(upload).await.unwrap();
    at_east.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let claim = ClaimKeyPackageRequest { client_id: Bytes::from_static(b"bob"), claim_id: Bytes::new() };
    let package = at_east.claim_key_package(claim).await.unwrap().into_inner().key_package.unwrap();
    let add = alice.commit(&[("bob", package.key_package)], &[]);
    accepted(submit(&mut at_east, add).await);
    alice.merge();

    // His Welcome waits in the west; from there he follows the log.
    let mut inbox = at_west.watch_welcomes(WatchWelcomesRequest { cursor: None }).await.unwrap().into_inner();
    let welcome = soon("a Welcome", inbox.message()).await.unwrap().unwrap().welcome.unwrap();
    bob.join(&welcome.welcome);
    assert_eq!(bob.authenticator(), alice.authenticator());
    let mut follows = Events::open(&mut at_west, GROUP, Some((welcome.seq, welcome.chain_hash))).await;

    accepted(submit(&mut at_east, alice.say("hello")).await);
    assert_eq!(bob.process(&follows.entry().await).as_deref(), Some("hello"));
    accepted(submit(&mut at_east, alice.update()).await);
    alice.merge();
    bob.process(&follows.entry().await);
    assert_eq!(bob.authenticator(), alice.authenticator());

    // Both gateways show the same log, hash for hash.
    let (mut from_east, mut from_west) =
        (Events::open(&mut at_east, GROUP, None).await, Events::open(&mut at_west, GROUP, None).await);
    let logs = (from_east.entries(4).await, from_west.entries(4).await);
    assert_eq!(logs.0, logs.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_concurrent_commits_one_wins_and_the_loser_gets_the_winner() {
    let cluster = RealCluster::start().await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let (mut at_east, mut at_west) = (client(&east, b"alice"), client(&west, b"bob"));
    let (mut alice, mut bob) = pair(&mut at_east, b"race").await;

    let (from_alice, from_bob) = (alice.update(), bob.update());
    let (mut a, mut b) = (at_east.clone(), at_west.clone());
    let (first, second) = tokio::join!(submit(&mut a, from_alice.clone()), submit(&mut b, from_bob.clone()));
    let alice_won = matches!(first, concordat_proto::gateway::v1::submit_response::Outcome::Accepted(_));
    let (won, lost) = if alice_won { (first, second) } else { (second, first) };
    let (winner, loser) = if alice_won { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
    let (won, lost) = (accepted(won), superseded(lost).winner.unwrap());
    assert_eq!((won.seq, &won.state_id), (lost.seq, &lost.state_id));

    // The loser goes on from the winner that came with the answer, and is next.
    winner.merge();
    loser.abandon();
    loser.process(&lost);
    assert_eq!(winner.authenticator(), loser.authenticator());
    let again = loser.update();
    accepted(submit(&mut at_west, again).await);

    // The same bytes again, at the other gateway: the same answers.
    let (again_alice, again_bob) =
        (submit(&mut at_west, from_alice).await, submit(&mut at_east, from_bob).await);
    let (again_won, again_lost) = if alice_won { (again_alice, again_bob) } else { (again_bob, again_alice) };
    assert_eq!(accepted(again_won), won);
    assert_eq!(superseded(again_lost).winner.unwrap(), lost);
}

/// Commits of one group go on while the node that leads its shard stops, and every one of them is in the log once.
#[tokio::test(flavor = "multi_thread")]
async fn commits_go_on_when_the_leader_of_their_shard_stops() {
    const COMMITS: u64 = 12;
    let cluster = RealCluster::start().await;
    let addresses = cluster.addresses();
    let gateway = gateway(&addresses).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    let mut log = Events::open(&mut calls, GROUP, None).await;
    let (mut nodes, _disk) = cluster.into_nodes();
    for n in 0..COMMITS {
        if n == COMMITS / 3 {
            let leader = leader(&addresses[0], GROUP).await;
            let at = nodes.iter().position(|node| node.addresses().api.to_string() == leader).unwrap();
            soon("the leader stops", nodes.remove(at).stop()).await;
        }
        accepted(submit(&mut calls, alice.update()).await);
        alice.merge();
    }
    let entries = log.entries(2 + COMMITS as usize).await;
    assert!(entries.iter().map(|e| e.seq).eq(1..=2 + COMMITS));
    assert_eq!(alice.epoch(), 1 + COMMITS);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_ordered_and_what_was_is_still_read() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    let (mut nodes, _disk) = cluster.into_nodes();
    for _ in 0..2 {
        let node = nodes.pop().unwrap();
        soon("a node stops", node.stop()).await;
    }
    let commit = alice.update();
    let mut answer = Ok(());
    until("the loss is believed", async || {
        answer = calls.submit(commit.clone()).await.map(drop);
        answer.as_ref().is_err_and(|e| service_kit::status::reason(e).as_deref() == Some("NO_QUORUM"))
    })
    .await;
    let facts = assert_refused(&answer.unwrap_err(), Code::Unavailable, "NO_QUORUM");
    assert!(facts.retry_after.is_some());
    let request = GetGroupInfoRequest { group_id: Bytes::from_static(GROUP) };
    assert_refused(&calls.get_group_info(request).await.unwrap_err(), Code::Unavailable, "NO_QUORUM");
    let entries = Events::open(&mut calls, GROUP, None).await.entries(2).await;
    assert!(entries.iter().map(|e| e.seq).eq(1..=2));
}

/// Who leads a group's shard, as the node at `address` sees it.
async fn leader(address: &str, group: &'static [u8]) -> String {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut node = OrderingClient::new(endpoint.connect().await.unwrap());
    let locate = LocateRequest { group_id: Bytes::from_static(group), linearizable: true };
    let shard = node.locate(locate).await.unwrap().into_inner().shard;
    let mut states = node.watch_quorum(WatchQuorumRequest::default()).await.unwrap().into_inner();
    loop {
        let state = soon("a report", states.message()).await.unwrap().unwrap();
        let leader = state.shards.into_iter().find(|s| s.shard == shard).map(|s| s.leader_address);
        if let Some(leader) = leader.filter(|l| !l.is_empty()) {
            return leader;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_joins_by_an_external_commit_to_the_published_group_info() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, _) = pair(&mut calls, GROUP).await;
    accepted(submit(&mut calls, alice.update()).await);
    alice.merge();

    let mut carol = Member::new("carol");
    let mut carols = client(&gateway, b"carol");
    let request = GetGroupInfoRequest { group_id: Bytes::from_static(GROUP) };
    let info = carols.get_group_info(request).await.unwrap().into_inner();
    let head = info.head.unwrap();
    assert_eq!(head.epoch, alice.epoch());
    let joining = carol.join_external(&info.group_info);
    accepted(submit(&mut carols, joining).await);

    let mut follows = Events::open(&mut calls, GROUP, Some((head.seq, head.chain_hash))).await;
    alice.process(&follows.entry().await);
    carol.merge_if_pending();
    assert_eq!(alice.authenticator(), carol.authenticator());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_info_behind_the_head_is_not_handed_out() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let mut without = alice.update();
    without.group_info = Bytes::new();
    accepted(submit(&mut calls, without).await);
    alice.merge();
    let request = GetGroupInfoRequest { group_id: Bytes::from_static(GROUP) };
    let error = calls.get_group_info(request.clone()).await.unwrap_err();
    let facts = assert_refused(&error, Code::FailedPrecondition, "GROUP_INFO_BEHIND");
    assert_eq!((&facts.metadata["head_epoch"][..], &facts.metadata["got"][..]), ("1", "0"));
    // The next commit with one puts it right, and is validated although the newest GroupInfo was behind.
    accepted(submit(&mut calls, alice.update()).await);
    assert_eq!(calls.get_group_info(request).await.unwrap().into_inner().head.unwrap().epoch, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn proposals_are_committed_by_somebody_else() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let mut calls = client(&gateway, b"alice");
    let (mut alice, mut bob) = pair(&mut calls, GROUP).await;
    let proposal = bob.propose_update();
    let at = accepted(submit(&mut calls, proposal.clone()).await);
    assert_eq!(accepted(submit(&mut calls, proposal).await), at, "the same bytes again");
    let mut follows = Events::open(&mut calls, GROUP, None).await;
    let entries = follows.entries(at.seq as usize).await;
    alice.process(entries.last().unwrap());
    accepted(submit(&mut calls, alice.update()).await);
    alice.merge();
    bob.process(&follows.entry().await);
    assert_eq!(alice.authenticator(), bob.authenticator());
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_change_groups_end_and_ids_stay_taken() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let (mut alice, mut calls) = (Member::new("alice"), client(&gateway, b"alice"));
    let info = alice.create(GROUP);
    let first = calls.create_group(create_request(info.clone())).await.unwrap().into_inner();
    assert_eq!(
        calls.create_group(create_request(info)).await.unwrap().into_inner(),
        first,
        "the same bytes again"
    );
    let other = create_request(Member::new("mallory").create(GROUP));
    assert_refused(&calls.create_group(other).await.unwrap_err(), Code::AlreadyExists, "GROUP_EXISTS");

    let group_id = Bytes::from_static(GROUP);
    let policy = Some(Policy { past_epochs: Some(2), ..Policy::default() });
    let change = SetPolicyRequest { group_id: group_id.clone(), epoch: 0, policy };
    assert_eq!(calls.set_policy(change.clone()).await.unwrap().into_inner().accepted.unwrap().seq, 2);
    let mut wrong = change;
    wrong.policy = Some(Policy { past_epochs: Some(65), ..Policy::default() });
    assert_refused(&calls.set_policy(wrong).await.unwrap_err(), Code::InvalidArgument, "POLICY_INVALID");

    let close = CloseGroupRequest { group_id: group_id.clone(), epoch: 0 };
    assert_eq!(calls.close_group(close).await.unwrap().into_inner().accepted.unwrap().seq, 3);
    let error = calls.submit(alice.update()).await.unwrap_err();
    assert_refused(&error, Code::FailedPrecondition, "GROUP_CLOSED");
    let head = calls
        .get_head(GetHeadRequest { group_id, linearizable: true })
        .await
        .unwrap()
        .into_inner()
        .head
        .unwrap();
    assert!(head.closed);
    let mut follows = Events::open(&mut calls, GROUP, None).await;
    let (entries, told) = follows.caught_up().await;
    assert_eq!(told, head);
    assert!(matches!(entries[2].content.as_ref().unwrap().content, Some(Content::Close(_))));
}
