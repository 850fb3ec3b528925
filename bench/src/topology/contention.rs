//! Many members of one group commit at the same moment: one wins each epoch, the others build theirs again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::Serialize;
use testbed::wait::until;
use tokio::task::JoinSet;

use super::{
    chain::Chain,
    chains::Chains,
    client::{Answer, Arrivals},
    limits::{ATTEMPT_DEADLINE, DELIVERY_DEADLINE},
    load::member,
    world::World,
};

/// What it cost until everybody's commit was in the log.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Contention {
    /// Members that want to commit at the same moment.
    pub(crate) members: usize,
    /// Commits that lost their epoch, for each one that won.
    pub(crate) wasted_per_commit: f64,
    /// From the moment until the last one's commit was in the log.
    pub(crate) all_done_ms: f64,
}

/// Each member commits once. Losers go on with the next epoch when everybody has been answered.
pub(crate) async fn run(world: &World, chains: &Chains, members: usize) -> anyhow::Result<Contention> {
    let chain = group(chains, "contention", members).await?;
    let turns = world.turns();
    world.clients[turns[0]].create(&chain).await?;
    world.clients[turns[0]].commit(&chain.commits[0], ATTEMPT_DEADLINE, ATTEMPT_DEADLINE).await?;
    let begun = Instant::now();
    let (mut left, mut epoch, mut wasted): (Vec<usize>, _, _) = ((0..members).collect(), 1, 0_usize);
    while !left.is_empty() {
        let mut rivals = JoinSet::new();
        for member in &left {
            let member = *member;
            let client = world.clients[turns[member % turns.len()]].clone();
            let number = u8::try_from(member % 250)?;
            let Some(message) = chain.rival(epoch, number) else { anyhow::bail!("the chain is too short") };
            rivals.spawn(async move {
                let answer = client.commit(&message, ATTEMPT_DEADLINE, ATTEMPT_DEADLINE).await?;
                anyhow::Ok((member, answer))
            });
        }
        let mut winners = 0;
        while let Some(answered) = rivals.join_next().await {
            match answered?? {
                (member, Some(Answer::Accepted)) => {
                    winners += 1;
                    left.retain(|m| *m != member);
                }
                (_, Some(Answer::Superseded)) => wasted += 1,
                (_, None) => anyhow::bail!("a commit was not decided within {ATTEMPT_DEADLINE:?}"),
            }
        }
        anyhow::ensure!(winners == 1, "epoch {epoch} has {winners} winners");
        epoch += 1;
    }
    Ok(Contention {
        members,
        wasted_per_commit: wasted as f64 / members as f64,
        all_done_ms: millis(begun.elapsed()),
    })
}

/// The same in a group whose members take turns: each commits when it has the commit of the one before it.
pub(crate) async fn in_turn(
    world: &World,
    chains: &Chains,
    members: usize,
    turn: Duration,
) -> anyhow::Result<Contention> {
    let chain = group(chains, "in-turn", members).await?;
    let turns = world.turns();
    let first = &world.clients[turns[0]];
    first.create(&chain).await?;
    first.commit(&chain.commits[0], ATTEMPT_DEADLINE, ATTEMPT_DEADLINE).await?;
    let arrivals = Arc::new(Arrivals::default());
    let _followers: Vec<_> = world.clients.iter().map(|client| client.follow(&chain.id, &arrivals)).collect();
    let ready = || arrivals.last(&chain.id, 0, world.clients.len()).map(drop);
    until("every site to follow the group", DELIVERY_DEADLINE, ready).await?;
    first.take_turns(&chain, 1, (0..members).map(member).collect(), turn).await?;
    let begun = Instant::now();
    let mut wasted = 0_usize;
    for number in 0..members {
        let client = &world.clients[turns[number % turns.len()]];
        let has_last = || arrivals.is_at(&chain.id, number as u64, &client.site).then_some(());
        until("a commit to arrive", DELIVERY_DEADLINE, has_last).await?;
        let message = &chain.commits[number + 1];
        match client.commit_as(&member(number), message, ATTEMPT_DEADLINE, ATTEMPT_DEADLINE).await? {
            Some(Answer::Accepted) => {}
            Some(Answer::Superseded) => wasted += 1,
            None => anyhow::bail!("a commit was not decided within {ATTEMPT_DEADLINE:?}"),
        }
    }
    Ok(Contention {
        members,
        wasted_per_commit: wasted as f64 / members as f64,
        all_done_ms: millis(begun.elapsed()),
    })
}

/// The group of one level: each of its members commits once, after the one that has added them.
async fn group(chains: &Chains, name: &str, members: usize) -> anyhow::Result<Arc<Chain>> {
    let built = chains.get(&format!("{name}-of-{members}"), members.max(2), 1, members + 1).await?;
    built.into_iter().next().context("no chain was built")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
