//! The second act: the network splits, first in two, then in three; DeMLS groups go on everywhere, plain MLS groups only with a quorum;
//! a gateway dies while it holds a branch; the sites come back, one of them late; and in the end everybody is in one state.

mod acts;
mod proof;
mod world;

use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use links::Cut;
use mls_client::GroupKind;
use testbed::{ordering::OrderingClient, wait::until};
use tokio::time::{Instant, sleep};

use self::world::{Group, SITES, World};
use crate::{args::Args, limits::SETTLE_DEADLINE, limits::SHOWN_FINDINGS, progress::Progress};

/// How long the last site stays away after the others are together again.
const LATE: Duration = Duration::from_secs(3);

/// Runs everything. Returns whether the proof succeeded.
pub(crate) async fn run(args: &Args) -> anyhow::Result<bool> {
    let progress = Progress::new();
    let seed = args.seed.unwrap_or_else(|| rand::random::<u32>().into());
    progress.done(&format!("act two: the network splits; seed {seed}"));
    let world = World::start(if args.quick { 1 } else { 2 }, seed, &progress).await?;
    let outcome = play(&world, &progress).await;
    progress.finish();
    if args.keep || !matches!(outcome, Ok(true)) {
        world.cluster.keep_dir();
        eprintln!("Data and logs are kept in {}", world.cluster.dir().display());
    }
    outcome
}

async fn play(world: &World, progress: &Progress) -> anyhow::Result<bool> {
    let mut times = Vec::new();
    for group in &world.groups {
        for site in &group.members {
            acts::say(group, &site[0], "all together").await;
        }
    }
    progress.done("everybody has spoken");

    world.links.split(&[&[SITES[0], SITES[1]], &[SITES[2]]], Cut::Stall)?;
    progress.done(&format!("{} is cut off from the others", SITES[2]));
    times.push(("first commit on a branch of the minority", forked(world, 2).await?));
    for group in &world.groups {
        // The side with the quorum.
        acts::say(group, &group.members[0][1], "with a quorum").await;
        acts::remove(group, &group.members[0][0], &group.members[1][1]).await;
        // The side without.
        acts::say(group, &group.members[2][0], "without a quorum").await;
        if group.kind == GroupKind::Demls {
            acts::invite(group, &group.members[2][0], &group.members[2][2]).await;
        }
        acts::say(group, &group.members[2][1], "still without").await;
    }
    progress.done(&format!("both sides have committed and spoken: {}", tally(world)));

    world.links.split(&[], Cut::Stall)?;
    progress.done("all three sites are cut off from one another");
    for (site, what) in
        ["first commit on a branch at the first site", "the same at the second"].into_iter().enumerate()
    {
        times.push((what, forked(world, site).await?));
    }
    for group in &world.groups {
        for site in &group.members {
            acts::say(group, &site[0], "all alone").await;
        }
        if group.kind == GroupKind::Demls {
            acts::invite(group, &group.members[0][0], &group.members[0][2]).await;
            acts::remove(group, &group.members[1][0], &group.members[2][1]).await;
        }
        acts::say(group, &group.members[1][0], "after a removal").await;
    }
    progress.done(&format!("every site has committed and spoken: {}", tally(world)));

    let gateway = world.cluster.gateways()[2].clone();
    gateway.service().kill().await?;
    gateway.service().start()?;
    gateway.service().wait_live().await?;
    progress.done(&format!("the gateway at {} was killed while it held branches, and is back", SITES[2]));
    for group in world.groups.iter().filter(|group| group.kind == GroupKind::Demls) {
        acts::say(group, &group.members[2][0], "after my gateway's death").await;
    }

    world.links.heal_both(SITES[0], SITES[1])?;
    let first = Instant::now();
    progress.done(&format!("{} and {} reach each other again", SITES[0], SITES[1]));
    sleep(LATE).await;
    world.links.heal_all();
    let healed = Instant::now();
    progress.done(&format!("{} is back as well, {} ms late", SITES[2], first.elapsed().as_millis()));
    for group in &world.groups {
        progress.now(format!("waiting until {} is of one mind", group.name));
        let settled = until(format!("{} to be of one mind", group.name), SETTLE_DEADLINE, || {
            proof::is_settled(group).then_some(())
        });
        if settled.await.is_err() {
            progress.done(&format!("{} is not of one mind:\n  {}", group.name, proof::what_is_left(group)));
        }
    }
    times.push(("from the last link's healing to one state everywhere, nothing retained", healed.elapsed()));
    progress.done("everybody has come to rest");

    world.cluster.wait_caught_up().await?;
    let ids: Vec<_> = world.groups.iter().map(|group| group.id.clone()).collect();
    let logs =
        OrderingClient::new(world.cluster.ordering_addresses()).read_whole(&world.cluster, &ids).await?;
    let mut findings = Vec::new();
    let proofs: Vec<_> = world.groups.iter().map(|group| proof::prove(group, &logs, &mut findings)).collect();
    progress.finish();
    report(&times, &proofs, &findings);
    Ok(findings.is_empty())
}

/// Commits at a site until every DeMLS group has taken one on a branch; the longest time that this took.
async fn forked(world: &World, site: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    for group in world.groups.iter().filter(|group| group.kind == GroupKind::Demls) {
        let took = acts::until_forked(group, &group.members[site][0]).await;
        took.with_context(|| format!("{} does not go on without a quorum at {}", group.name, SITES[site]))?;
    }
    Ok(begun.elapsed())
}

fn tally(world: &World) -> String {
    let sum = |kind: GroupKind, of: fn(&Group) -> usize| -> usize {
        world.groups.iter().filter(|group| group.kind == kind).map(of).sum()
    };
    format!(
        "DeMLS: {} commits by the quorum, {} on branches; plain MLS: {} by the quorum, {} on branches, {} operations waiting",
        sum(GroupKind::Demls, |g| g.deeds().accepted),
        sum(GroupKind::Demls, |g| g.deeds().provisional),
        sum(GroupKind::Mls, |g| g.deeds().accepted),
        sum(GroupKind::Mls, |g| g.deeds().provisional),
        sum(GroupKind::Mls, |g| g.deeds().waiting)
    )
}

fn report(times: &[(&str, Duration)], proofs: &[proof::Proof], findings: &[String]) {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["step", "took"]);
    for (what, took) in times {
        table.add_row([(*what).to_owned(), format!("{} ms", took.as_millis())]);
    }
    println!("{table}");
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header([
        "group",
        "members",
        "epoch",
        "epoch authenticator",
        "messages",
        "readings checked",
        "marks of branches",
    ]);
    for proof in proofs {
        table.add_row([
            proof.name.clone(),
            proof.members.to_string(),
            proof.epoch.to_string(),
            proof.authenticator.clone(),
            proof.messages.to_string(),
            proof.readings.to_string(),
            proof.branches.to_string(),
        ]);
    }
    println!("{table}");
    findings.iter().take(SHOWN_FINDINGS).for_each(|finding| println!("WRONG: {finding}"));
    if findings.len() > SHOWN_FINDINGS {
        println!("WRONG: and {} more", findings.len() - SHOWN_FINDINGS);
    }
    if findings.is_empty() {
        println!(
            "PROVED: all members of every group are in one state with one epoch authenticator; every message of every side was read by\n\
             everyone entitled to it; nobody who was removed is back; plain MLS groups never forked; nothing is retained."
        );
    }
}
