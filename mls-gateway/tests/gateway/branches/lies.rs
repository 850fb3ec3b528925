//! Acknowledgements that are not true: refused where that can be seen; and where it cannot, nothing is lost all the same.

use concordat_proto::{
    convert::GroupCommand,
    gateway::v1::{ReadBranchEntriesRequest, submit_response::Outcome},
    ordering::v1::{Outcome as Answer, outcome},
    relay::v1::ForwardRequest,
};
use group_log::{
    GroupId,
    fork::{Command, GatewayId, Item, Mark},
};
use prost::Message;
use tonic::{Code, Status};

use super::{
    relay::{from, relay},
    site::{GROUP, Site, add, after, create, made_in, provisional, sites},
};
use crate::support::{Events, accepted, assert_refused, fake::FakeCluster, member::Member, submit, until};

/// Has a gateway pass on a command, as another gateway.
async fn forward(site: &Site, command: Command) -> Result<outcome::Outcome, Status> {
    let group_id = GroupId::new(GROUP.to_vec()).unwrap();
    let command = concordat_proto::ordering::v1::Command::from(GroupCommand { group_id, command });
    let request = ForwardRequest { shard: 1, command: command.encode_to_vec().into(), hops_left: 1 };
    let answer = relay(site).forward(from("fake", request)).await?.into_inner();
    Ok(Answer::decode(answer.outcome).unwrap().outcome.unwrap())
}

fn reason(answer: outcome::Outcome) -> String {
    match answer {
        outcome::Outcome::Refused(refused) => refused.reason().as_str_name().to_owned(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[tokio::test]
async fn a_gateway_speaks_for_itself_only_and_of_what_there_is() {
    let cluster = FakeCluster::start(3).await;
    let site = sites(&cluster, 1, |_, _| false).await.remove(0);
    let mut calls = site.client(b"alice");
    let mut alice = Member::new("alice");
    let first = create(&mut calls, &mut alice).await;
    site.registered(&cluster).await;
    let own = site.gateway().demls().unwrap().store().gateway_id();
    let before = cluster.get(|state| state.forks.groups[GROUP].fork.state().clone());

    // In the name of the gateway that is asked.
    for command in [
        Command::Ack { gateway: own, registration: 0, position: 1 },
        Command::Register { gateway: own, position: 1, departures: 0 },
        Command::Release { gateway: own, registration: 0 },
        Command::Report(group_log::fork::Report { gateway: own, entries: Vec::new(), complete: true }),
    ] {
        let refused = forward(&site, command).await.unwrap_err();
        assert_refused(&refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    // Nodes alone evict.
    let refused = forward(&site, Command::Evict { gateway: own }).await.unwrap_err();
    assert_refused(&refused, Code::InvalidArgument, "MALFORMED");
    // By one that the cluster does not count on, and of an entry that there is not.
    let liar = GatewayId([3; 16]);
    let answer = forward(&site, Command::Ack { gateway: liar, registration: 0, position: 1 }).await.unwrap();
    assert_eq!(reason(answer), "REASON_NOT_REGISTERED");
    let answer =
        forward(&site, Command::Register { gateway: liar, position: 99, departures: 0 }).await.unwrap();
    assert_eq!(reason(answer), "REASON_CURSOR_AHEAD");
    forward(&site, Command::Register { gateway: liar, position: 1, departures: 0 }).await.unwrap();
    let answer = forward(&site, Command::Ack { gateway: liar, registration: 0, position: 99 }).await.unwrap();
    assert_eq!(reason(answer), "REASON_CURSOR_AHEAD");

    let state = cluster.get(|state| state.forks.groups[GROUP].fork.state().clone());
    assert_eq!(state.stable, before.stable);
    assert_eq!(state.gateways[&own], before.gateways[&own]);
    accepted(submit(&mut calls, made_in(&first, alice.update())).await);
}

/// A gateway acknowledges what it has not read, or another one does in its name where that cannot be seen: the log becomes stable above
/// its branch.
#[tokio::test]
async fn a_branch_that_an_acknowledgement_denied_is_late_and_not_lost() {
    let cluster = FakeCluster::start(3).await;
    let sites = sites(&cluster, 2, |_, _| false).await;
    let (mut there, mut here) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut there, &mut alice).await;
    let second = add(&mut there, &mut alice, &mut bob, &first).await;
    let mut events = Events::open(&mut here, GROUP, None).await;
    events.caught_up().await;
    for site in &sites {
        site.registered(&cluster).await;
    }
    sites[0].cut_off();
    let branch = made_in(&second, alice.update());
    let id = provisional(submit(&mut there, branch.clone()).await).entry_id;
    let canonical = made_in(&second, bob.update());
    let third = after(&second, &canonical);
    let seq = accepted(submit(&mut here, canonical).await).seq;
    bob.merge();
    let lied_about = sites[0].gateway().demls().unwrap().store().gateway_id();
    forward(&sites[1], Command::Ack { gateway: lied_about, registration: 0, position: seq }).await.unwrap();
    until("the log is stable above the branch", async || {
        cluster.get(|state| state.forks.groups[GROUP].fork.state().stable >= seq)
    })
    .await;

    sites[0].mend();
    until("the branch is late", async || {
        cluster.get(|state| {
            let items = state.forks.groups[GROUP].items();
            items.iter().any(|item| matches!(item, Item::Mark(Mark::Late { ids }) if ids[0].to_bytes() == id))
        })
    })
    .await;
    // Whoever still has the state it was made in can read it, at any gateway.
    let asked = ReadBranchEntriesRequest { group_id: GROUP.into(), entry_ids: vec![id] };
    until("it can be read", async || {
        !here.read_branch_entries(asked.clone()).await.unwrap().into_inner().entries.is_empty()
    })
    .await;
    let Outcome::Superseded(lost) = submit(&mut there, branch).await else { panic!("its author is told") };
    assert_eq!(lost.winner.unwrap().state_id, third.to_bytes());
    accepted(submit(&mut here, made_in(&third, bob.update())).await);
}
