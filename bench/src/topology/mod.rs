//! `bench topology`: what an order of commits costs as sites move apart, for each way of making one.
//!
//! Real processes at emulated sites ([`links`]), real MLS commits, an open loop: latencies count from the moment that a commit was due.

mod chain;
mod client;
mod contention;
mod crossover;
mod dimls;
mod faults;
mod html;
mod limits;
mod load;
mod options;
mod presets;
mod row;
mod scratch;
mod sizes;
mod spec;
mod split;
mod table;
mod world;

pub(crate) use chain::Chain;
pub(crate) use client::{Answer, Client};
pub(crate) use crossover::{OVERLAP_HIGH, overlap, told as crossover};
pub(crate) use dimls::{MESSAGES, UPDATES};
pub(crate) use options::{HELP, Options};
pub(crate) use row::Row;
pub(crate) use sizes::ANY;
pub(crate) use spec::Topology;
pub(crate) use world::floor_of;

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;

use self::{
    limits::{TURN_MEMBERS_MAX, TURNS_RATE},
    load::Load,
    options::Plan,
    world::{Design, World},
};
use crate::{machine::Machine, paths, progress::Progress, report, report::Report};

/// What is not measured, and why.
pub(crate) const MISSING: &[(&str, &str)] = &[
    (
        "turns",
        "only in groups of at most 16 members: in a larger one a round of turns takes longer than the load lasts",
    ),
    (
        "dimls",
        "every member gets every item over a subscription of its own, but only two at each site (one in groups of more than 16) are sessions \
         that decrypt, for all of them share this machine; acknowledgements are counted in bytes and not sent under load",
    ),
];

/// Measures and reports.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let machine = Machine::look(&plan.data)?;
    let started_at = report::now();
    let progress = Progress::new(plan.runs());
    let mut rows = Vec::new();
    for members in &plan.sizes {
        progress.now(format!("what an update costs in a group of {members}"));
        let members = *members;
        rows.extend(tokio::task::spawn_blocking(move || sizes::run(members)).await??);
        progress.done(&format!("what an update costs in a group of {members}"));
    }
    for topology in &plan.topologies {
        for design in [Design::Consensus, Design::Lead] {
            let measured = scratch::within(&plan.data, "topology-", async |dir| {
                measure(&plan, &machine, topology, design, dir, &progress).await
            });
            let measured = measured.await;
            rows.extend(measured.with_context(|| format!("{} on {}", design.name(), topology.name))?);
        }
        let taken_in = |members| sizes::taken_in(&rows, members);
        let measured = dimls::run(&plan, topology, taken_in, machine.disk.append_p50(), &progress).await;
        let measured = measured.with_context(|| format!("dimls on {}", topology.name))?;
        rows.extend(measured);
    }
    progress.finish();
    println!("{}", table::latencies(&rows));
    println!("{}", table::costs(&rows));
    println!("{}", table::splits(&rows));
    println!("{}", table::sizes(&rows));
    println!("{}", table::crossover(&rows));
    crossover(&rows).iter().for_each(|line| println!("{line}"));
    for (design, why) in MISSING {
        println!("not measured: {design}: {why}");
    }
    let report = Report {
        benchmark: "topology".into(),
        started_at,
        seed: plan.seed,
        machine,
        versions: BTreeMap::from([("concordat".into(), env!("CARGO_PKG_VERSION").into())]),
        configuration: plan.configuration(),
        results: rows,
    };
    let out = paths::results(options.common.out.as_deref())?;
    let [page, json, csv] = report.write(&out, &html::page(&report)?)?;
    println!("seed {}; written to {}, {} and {}", plan.seed, page.display(), json.display(), csv.display());
    Ok(())
}

async fn measure(
    plan: &Plan,
    machine: &Machine,
    topology: &Topology,
    design: Design,
    dir: &Path,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let label = format!("{} on {}", design.name(), topology.name);
    progress.now(format!("{label}: starting the processes"));
    let world = World::start(design, topology, dir, plan.seed).await?;
    let changing = world.keep_changing();
    let sync = machine.disk.append_p50();
    let mut rows = Vec::new();
    for members in &plan.members {
        progress.now(format!("{label}: {} commits/s, groups of {members}", plan.rate));
        let load =
            Load { rate: plan.rate, time: plan.time, members: *members, sync, turn: None, seed: plan.seed };
        let loaded = load::run(&world, load, &format!("load-{members}")).await?;
        rows.push(Row::new(topology, design.name(), *members, plan.rate, &loaded));
        progress.done(&format!("{label}, groups of {members}: {} commits", loaded.commits));
        if design == Design::Consensus && *members <= TURN_MEMBERS_MAX {
            progress.now(format!("turns on {}: groups of {members}", topology.name));
            let turn = world.turn(sync);
            let loaded = load::run(
                &world,
                Load { turn: Some(turn), rate: plan.rate * TURNS_RATE, ..load },
                &format!("turns-{members}"),
            )
            .await?;
            let row = Row::new(topology, "turns", *members, plan.rate * TURNS_RATE, &loaded);
            rows.push(Row { turn_ms: Some(turn.as_secs_f64() * 1e3), ..row });
            progress.done(&format!(
                "turns on {}, groups of {members}: {} commits",
                topology.name, loaded.commits
            ));
        }
    }
    if design == Design::Consensus {
        for members in plan.compared() {
            progress.now(format!("{label}: {} commits/s, groups of {members}", plan.rate));
            let load = Load { rate: plan.rate, time: plan.time, members, sync, turn: None, seed: plan.seed };
            let loaded = load::run(&world, load, &format!("compared-{members}")).await?;
            rows.push(Row::new(topology, design.name(), members, plan.rate, &loaded));
            progress.done(&format!("{label}, groups of {members}: {} commits", loaded.commits));
        }
    }
    drop(changing);
    world.links.heal_all();
    let mut contention = Vec::new();
    for members in &plan.contention {
        progress.now(format!("{label}: {members} members commit at once"));
        contention.push(contention::run(&world, *members, "contention").await?);
    }
    if design == Design::Consensus {
        let mut in_turn = Vec::new();
        for members in &plan.contention {
            progress.now(format!("turns on {}: {members} members want to commit", topology.name));
            in_turn.push(contention::in_turn(&world, *members, world.turn(sync), "in-turn").await?);
        }
        if let Some(row) = rows.iter_mut().find(|row| row.design == "turns") {
            row.add_contention(&in_turn);
        }
    }
    progress.now(format!("{label}: the leader dies, the home site is cut off"));
    let faults = faults::run(&world, plan.fault, "probe").await?;
    progress.done(&format!("{label}: contention and faults"));
    if design == Design::Consensus {
        progress.now(format!("demls on {}: the network is split", topology.name));
        world.lead_from_home().await?;
        if let Some(split) = split::run(&world, plan.fault, dir, plan.seed).await? {
            if let Some(row) = rows.first_mut() {
                row.client_bytes_per_commit = Some(split.mls_bytes_per_commit);
            }
            rows.push(Row::of_split(&topology.name, topology.sites.len(), &split));
        }
        progress.done(&format!("demls on {}: a split and its end", topology.name));
    }
    // They concern the design on the topology, whatever the size of the groups.
    if let Some(row) = rows.first_mut() {
        row.add_contention(&contention);
        row.add_faults(&faults);
    }
    Ok(rows)
}
