//! Order and idempotency through the submit stream, also across a change of leaders.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Cluster, SHARD, Submitter, commit, create};
use concordat_proto::ordering::v1::{Submission, outcome::Outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_commit_wins_each_epoch_and_everybody_learns_which() {
    let cluster = Cluster::start(3).await;
    assert!(matches!(cluster.submit(SHARD, create("race")).await, Outcome::Accepted(_)));
    let leader = cluster.leader(SHARD).await;
    let mut stream = Submitter::open(cluster.ordering(leader).await).await.unwrap();
    for epoch in 0..20 {
        let rivals: u64 = 8;
        let submission = |id: u64| Submission {
            id,
            shard: SHARD,
            command: commit("race", epoch, format!("rival {id}").as_bytes()),
        };
        stream.send((1..=rivals).map(submission).collect()).await;
        let mut answers = BTreeMap::new();
        for _ in 0..rivals {
            let (id, outcome) = stream.next().await.expect("an answer for each");
            assert!(answers.insert(id, outcome).is_none(), "answered twice");
        }
        let mut winners = BTreeSet::new();
        let mut accepted = 0;
        for outcome in answers.values() {
            match outcome {
                Outcome::Accepted(a) => {
                    accepted += 1;
                    winners.insert(a.seq);
                    assert_eq!(a.epoch, epoch + 1);
                }
                Outcome::Superseded(s) => {
                    winners.insert(s.winner.as_ref().expect("the winner").seq);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((accepted, winners.len()), (1, 1), "epoch {epoch}");
        // The same bytes again: the same answers, from any node.
        for (id, outcome) in answers {
            let other = leader % 3 + 1;
            let mut elsewhere = Submitter::open(cluster.ordering(other).await).await.unwrap();
            let again =
                elsewhere.submit(SHARD, commit("race", epoch, format!("rival {id}").as_bytes())).await;
            let again = match again {
                // That node has not applied the epoch's end yet.
                Outcome::NotLeader(_) => {
                    stream.submit(SHARD, commit("race", epoch, format!("rival {id}").as_bytes())).await
                }
                decided => decided,
            };
            assert_eq!(again, outcome);
        }
    }
    // Contention does not fill the log: losers that waited were decided without being proposed.
    let status = cluster.node(leader).node().shards.get().unwrap().get(SHARD).unwrap().metrics();
    assert!(status.last_log_index.unwrap() < 20 * 8, "{:?}", status.last_log_index);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_leader_change_the_same_bytes_get_the_same_answers() {
    let mut cluster = Cluster::start(3).await;
    assert!(matches!(cluster.submit(SHARD, create("moved")).await, Outcome::Accepted(_)));
    let mut answers = Vec::new();
    for epoch in 0..10 {
        let winner = cluster.submit(SHARD, commit("moved", epoch, b"first")).await;
        let loser = cluster.submit(SHARD, commit("moved", epoch, b"second")).await;
        assert!(matches!((&winner, &loser), (Outcome::Accepted(_), Outcome::Superseded(_))));
        answers.push((winner, loser));
    }
    let before = cluster.leader(SHARD).await;
    cluster.stop_node(before).await;
    let after = cluster.leader(SHARD).await;
    assert_ne!(before, after);
    for (epoch, (winner, loser)) in answers.iter().enumerate() {
        assert_eq!(cluster.submit(SHARD, commit("moved", epoch as u64, b"first")).await, *winner);
        assert_eq!(cluster.submit(SHARD, commit("moved", epoch as u64, b"second")).await, *loser);
    }
    assert!(matches!(cluster.submit(SHARD, commit("moved", 10, b"next")).await, Outcome::Accepted(_)));
    cluster.start_node(before).await;
    let entries = cluster.entries(before, "moved", 12).await;
    assert_eq!(entries.len(), 12);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ending_the_requests_lets_the_answers_finish() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(SHARD).await;
    let stream = Submitter::open(cluster.ordering(leader).await).await.unwrap();
    let count = 300;
    let submissions =
        (0..count).map(|id| Submission { id, shard: SHARD, command: create(&format!("g{id}")) });
    stream.send(submissions.collect()).await;
    let mut answers = stream.finish();
    let mut answered = BTreeSet::new();
    while let Some(response) = answers.message().await.unwrap() {
        answered.extend(response.outcomes.into_iter().map(|a| a.id));
    }
    assert_eq!(answered.len(), count as usize);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_says_who_leads() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(SHARD).await;
    let mut stream = Submitter::open(cluster.ordering(leader % 3 + 1).await).await.unwrap();
    match stream.submit(SHARD, create("elsewhere")).await {
        Outcome::NotLeader(to) => {
            assert_eq!(to.leader_node_id, leader);
            assert_eq!(to.leader_address, cluster.node(leader).addresses().api.to_string());
        }
        other => panic!("{other:?}"),
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_every_submission_is_still_answered() {
    let mut cluster = Cluster::start(3).await;
    cluster.group_with("stuck", 1).await;
    let leader = cluster.leader(SHARD).await;
    let mut stream = Submitter::open(cluster.ordering(leader).await).await.unwrap();
    // Followers go first, so that the leader has nobody left to hand over to.
    for follower in (1..=3).filter(|id| *id != leader) {
        cluster.stop_node(follower).await;
    }
    stream
        .send((0..50).map(|id| Submission { id, shard: SHARD, command: commit("stuck", 1, b"c") }).collect())
        .await;
    for _ in 0..50 {
        match stream.next().await.expect("an answer for each").1 {
            Outcome::Unknown(_) | Outcome::NotLeader(_) => {}
            other => panic!("{other:?}"),
        }
    }
    for follower in (1..=3).filter(|id| *id != leader) {
        cluster.start_node(follower).await;
    }
    // Whatever became of it, the same bytes again are decided.
    assert!(matches!(cluster.submit(SHARD, commit("stuck", 1, b"c")).await, Outcome::Accepted(_)));
    cluster.stop().await;
}
