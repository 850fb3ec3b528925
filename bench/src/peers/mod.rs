//! `bench peers`: what one would use instead, doing the same work with the same clients on the same machine.
//!
//! A round starts each system with empty disks, in an order drawn from the seed, loads it at every level, and ends it before the next
//! begins. Ratios are taken within a round, so that what the machine does meanwhile weighs on both sides, and their spread over the
//! rounds is shown.

mod html;
mod options;
mod rounds;
mod table;

pub(crate) use options::{HELP, Options};

use crate::{machine::Machine, paths, report, report::Report};

/// Runs the comparison.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let machine = Machine::look(&plan.data)?;
    let started_at = report::now();
    let versions = plan.versions()?;
    let results = rounds::run(&plan).await?;
    println!("{}", table::levels(&results));
    println!("{}", table::ratios(&results));
    println!("{}", table::alone(&results, &machine));
    let report = Report {
        benchmark: "peers".into(),
        started_at,
        seed: plan.seed,
        machine,
        versions,
        configuration: plan.configuration(),
        results,
    };
    let out = paths::results(options.common.out.as_deref())?;
    let [page, json, csv] = report.write(&out, &html::page(&report)?)?;
    println!("seed {}; written to {}, {} and {}", plan.seed, page.display(), json.display(), csv.display());
    Ok(())
}
