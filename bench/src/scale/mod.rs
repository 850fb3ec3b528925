//! `bench scale`: what more of something costs. Each curve prints its points beside the growth that is expected.

mod groups;
mod html;
mod log_length;
mod members;
mod options;
mod point;
mod shards;
mod subscribers;

use anyhow::Context;

pub(crate) use self::options::{HELP, Options};
use self::{options::Curve, point::Point};
use crate::{machine::Machine, paths, process::version, progress::Progress, report, report::Report};

/// Runs the curves that were asked for.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let machine = Machine::look(&plan.data)?;
    let started_at = report::now();
    let binary = testbed::find_binary("ordering-service")?;
    let versions = [("concordat".to_owned(), version(&binary, &["--version"])?)].into();
    let progress = Progress::new(plan.steps());
    let mut points = Vec::new();
    for curve in &plan.curves {
        let measured = match curve {
            Curve::Groups => groups::run(&plan, &progress).await,
            Curve::LogLength => log_length::run(&plan, &progress).await,
            Curve::Members => members::run(&plan, &progress).await,
            Curve::Subscribers => subscribers::run(&plan, &progress).await,
            Curve::Shards => shards::run(&plan, &progress).await,
        };
        points.extend(measured.with_context(|| format!("the curve {curve:?}"))?);
    }
    progress.finish();
    println!("{}", Point::table(&points));
    let report = Report {
        benchmark: "scale".into(),
        started_at,
        seed: plan.seed,
        machine,
        versions,
        configuration: plan.configuration(),
        results: points,
    };
    let out = paths::results(options.common.out.as_deref())?;
    let [page, json, csv] = report.write(&out, &html::page(&report)?)?;
    println!("seed {}; written to {}, {} and {}", plan.seed, page.display(), json.display(), csv.display());
    Ok(())
}
