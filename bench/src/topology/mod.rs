//! `bench topology`: what an order of commits costs as sites move apart, for each way of making one.
//!
//! Real processes at emulated sites ([`links`]), real MLS commits, an open loop: latencies count from the moment that a commit was due.

mod chain;
mod client;
mod contention;
mod faults;
mod html;
mod limits;
mod load;
mod options;
mod presets;
mod row;
mod spec;
mod table;
mod world;

pub(crate) use options::{HELP, Options};
pub(crate) use row::Row;
pub(crate) use spec::Topology;
pub(crate) use world::floor_of;

use std::collections::BTreeMap;

use anyhow::Context;

use self::{
    load::Load,
    options::Plan,
    world::{Design, World},
};
use crate::{machine::Machine, paths, progress::Progress, report, report::Report};

/// What the issue asks for and this build cannot measure.
pub(crate) const MISSING: &[(&str, &str)] = &[
    ("turns", "the rules have no policy yet that gives each member its turn to commit"),
    ("demls", "gateways and clients do not carry on without a quorum in this benchmark yet"),
    ("dimls", "this benchmark does not drive groups without an order yet"),
];

/// Measures and reports.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let machine = Machine::look(&plan.data)?;
    let started_at = report::now();
    let progress = Progress::new(plan.runs());
    let mut rows = Vec::new();
    for topology in &plan.topologies {
        for design in [Design::Consensus, Design::Lead] {
            let measured = measure(&plan, &machine, topology, design, &progress).await;
            rows.extend(measured.with_context(|| format!("{} on {}", design.name(), topology.name))?);
        }
    }
    progress.finish();
    println!("{}", table::latencies(&rows));
    println!("{}", table::costs(&rows));
    for (design, why) in MISSING {
        println!("{design}: cannot run yet: {why}");
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
    let [json, csv] = report.write(&out)?;
    let page = json.with_extension("html");
    std::fs::write(&page, html::page(&report)?).with_context(|| format!("writing {}", page.display()))?;
    println!("seed {}; written to {}, {} and {}", plan.seed, page.display(), json.display(), csv.display());
    Ok(())
}

async fn measure(
    plan: &Plan,
    machine: &Machine,
    topology: &Topology,
    design: Design,
    progress: &Progress,
) -> anyhow::Result<Vec<Row>> {
    let label = format!("{} on {}", design.name(), topology.name);
    progress.now(format!("{label}: starting the processes"));
    std::fs::create_dir_all(&plan.data).with_context(|| format!("creating {}", plan.data.display()))?;
    let dir = tempfile::Builder::new().prefix("topology-").tempdir_in(&plan.data)?;
    let world = World::start(design, topology, dir.path(), plan.seed).await?;
    let changing = world.keep_changing();
    let sync = std::time::Duration::from_secs_f64(machine.disk.append_p50_us / 1e6);
    let mut rows = Vec::new();
    for members in &plan.members {
        progress.now(format!("{label}: {} commits/s, groups of {members}", plan.rate));
        let load = Load { rate: plan.rate, time: plan.time, members: *members, sync };
        let loaded = load::run(&world, load, &format!("load-{members}")).await?;
        rows.push(Row::new(topology, design, *members, plan.rate, &loaded));
        progress.done(&format!("{label}, groups of {members}: {} commits", loaded.commits));
    }
    drop(changing);
    world.links.heal_all();
    let mut contention = Vec::new();
    for members in &plan.contention {
        progress.now(format!("{label}: {members} members commit at once"));
        contention.push(contention::run(&world, *members, "contention").await?);
    }
    progress.now(format!("{label}: the leader dies, the home site is cut off"));
    let faults = faults::run(&world, plan.fault, "probe").await?;
    progress.done(&format!("{label}: contention and faults"));
    // They concern the design on the topology, whatever the size of the groups.
    if let Some(row) = rows.first_mut() {
        row.add_contention(&contention);
        row.add_faults(&faults);
    }
    Ok(rows)
}
