//! `bench topology`: what an order of commits costs as sites move apart, for each way of making one.
//!
//! Real processes at emulated sites ([`links`]), real MLS commits, an open loop: latencies count from the moment that a commit was due.

mod chain;
mod chains;
mod client;
mod contention;
mod crossover;
mod dimls;
mod faults;
mod html;
mod limits;
mod load;
mod options;
mod ordered;
mod presets;
mod row;
mod scratch;
mod sizes;
mod spec;
mod split;
mod table;
mod world;

pub(crate) use chains::Chains;
pub(crate) use client::{Answer, Client};
pub(crate) use crossover::{OVERLAP_HIGH, overlap, told as crossover};
pub(crate) use dimls::{MESSAGES, UPDATES};
pub(crate) use options::{HELP, Options};
pub(crate) use row::Row;
pub(crate) use sizes::ANY;
pub(crate) use spec::Topology;
pub(crate) use world::floor_of;

use std::collections::BTreeMap;

use anyhow::Context;

use self::{ordered::Ordered, world::Design};
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
    let (chains, sync) = (Chains::default(), machine.disk.append_p50());
    let mut rows = Vec::new();
    for members in &plan.sizes {
        progress.now(format!("what an update costs in a group of {members}"));
        let members = *members;
        rows.extend(tokio::task::spawn_blocking(move || sizes::run(members)).await??);
        progress.done(&format!("what an update costs in a group of {members}"));
    }
    for topology in &plan.topologies {
        for design in [Design::Consensus, Design::Lead] {
            let of = Ordered { plan: &plan, sync, topology, design, chains: &chains, progress: &progress };
            let measured = scratch::within(&plan.data, "topology-", async |dir| of.measure(dir).await).await;
            rows.extend(measured.with_context(|| of.label())?);
        }
        let taken_in = |members| sizes::taken_in(&rows, members);
        let measured = dimls::run(&plan, topology, taken_in, sync, &progress).await;
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
