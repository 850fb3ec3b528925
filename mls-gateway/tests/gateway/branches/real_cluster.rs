//! The same against a real cluster: nodes that stop and come back, on real disks.

use std::time::{Duration, Instant};

use concordat_proto::gateway::v1::Mode;
use group_log::fork::Mode as GroupMode;
use mls_gateway::demls::Times;
use ordering_service::{
    dev::{local_config, start_node},
    node::Seams,
};

use super::site::{
    FORKED_WITHIN, GROUP, add, after, branch_entry, create, in_front_of, made_in, provisional, told_mode,
};
use crate::support::{Events, accepted, member::Member, real::RealCluster, soon, submit, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_real_cluster_loses_its_quorum_and_takes_the_branch_over_when_it_is_back() {
    let cluster = RealCluster::start().await;
    // The times that a deployment has.
    let times = Times { ack_pause: Duration::from_millis(200), ..Times::default() };
    let sites = in_front_of(cluster.addresses(), 3, |_, _| true, times).await;
    let (mut one, mut two) = (sites[0].client(b"alice"), sites[1].client(b"bob"));
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let first = create(&mut one, &mut alice).await;
    let second = add(&mut one, &mut alice, &mut bob, &first).await;
    let mut events = Events::open(&mut two, GROUP, None).await;
    events.caught_up().await;
    let mut three = sites[2].client(b"carol");
    let mut third_events = Events::open(&mut three, GROUP, None).await;
    third_events.caught_up().await;
    for site in &sites {
        site.is_counted_on().await;
    }

    let (mut nodes, disk) = cluster.into_nodes();
    let (third_node, second_node) = (nodes.pop().unwrap(), nodes.pop().unwrap());
    let ids = [&second_node, &third_node].map(|node| node.node().identity.node_id);
    third_node.stop().await;
    let lost = Instant::now();
    let stopping = tokio::spawn(second_node.stop());
    let commit = made_in(&second, alice.update());
    let third = after(&second, &commit);
    let answer = provisional(submit(&mut one, commit.clone()).await);
    let took = lost.elapsed();
    // Twice, because the node that stops takes its time, and other tests take theirs.
    assert!(took < FORKED_WITHIN * 2, "it took {took:?}");
    assert_eq!((answer.copies, answer.state_id), (2, third.to_bytes()));
    alice.merge();
    assert_eq!(branch_entry(&mut events).await, third.to_bytes());
    assert_eq!(branch_entry(&mut third_events).await, third.to_bytes());
    bob.process_message(&commit.message);
    let said = made_in(&third, bob.say("hello"));
    provisional(submit(&mut two, said.clone()).await);

    stopping.await.unwrap();
    for id in ids {
        let config = local_config(disk.path(), id).unwrap();
        nodes.push(soon("the node", start_node(disk.path(), config, Seams::system())).await.unwrap());
    }
    told_mode(&mut events, Mode::Ordered).await;
    for site in &sites {
        site.in_mode(GroupMode::Ordered).await;
    }
    assert_eq!(accepted(submit(&mut one, commit).await).state_id, third.to_bytes());
    let seq = accepted(submit(&mut two, said).await).seq;
    until("everybody has read it", async || sites.iter().all(|site| site.group().log_seq().unwrap() >= seq))
        .await;
    accepted(submit(&mut one, made_in(&third, alice.update())).await);
}
