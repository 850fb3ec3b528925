//! `bench advise`: which way of ordering to choose on a topology, from what `bench topology` has measured on this machine.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::{
    paths,
    topology::{Row, Topology, floor_of},
};

/// Updates of a group that overlap more often than this waste much work.
const OVERLAP_HIGH: f64 = 0.2;

/// `bench advise`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A preset or a TOML file.
    #[arg(long, value_name = "PRESET|FILE")]
    topology: String,
    /// Members of a group.
    #[arg(long)]
    group_size: usize,
    /// Commits of one group in a second, all members together.
    #[arg(long)]
    update_rate: f64,
    /// The group has to go on in every part of a split network.
    #[arg(long)]
    survives_splits: bool,
    /// Results of `bench topology` (JSON). By default the newest in <target>/bench.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Measured {
    results: Vec<Row>,
}

/// Answers in a few lines on stdout.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(options.group_size > 0, "--group-size: expected at least 1");
    ensure!(
        options.update_rate > 0.0,
        "--update-rate: expected more than 0 a second, got {}",
        options.update_rate
    );
    let topology = Topology::find(&options.topology)?;
    let from = match &options.from {
        Some(file) => file.clone(),
        None => newest(&paths::results(None)?)?,
    };
    let text = fs::read_to_string(&from).with_context(|| format!("reading {}", from.display()))?;
    let measured: Measured = serde_json::from_str(&text)
        .with_context(|| format!("{} holds no results of `bench topology`; make some", from.display()))?;
    for line in advice(options, &topology, &measured.results)? {
        println!("{line}");
    }
    println!("measured: {}", from.display());
    Ok(())
}

fn newest(dir: &Path) -> anyhow::Result<PathBuf> {
    let is_result = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("topology-") && name.ends_with(".json")
    };
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    // Their names end with the time they were begun at.
    files.filter(is_result).max().with_context(|| {
        format!(
            "there are no results in {}: run `bench topology` first, or name a file with --from",
            dir.display()
        )
    })
}

/// The measurement that is nearest: by its floor first, then by the size of its groups.
fn nearest<'a>(rows: &'a [Row], design: &str, floor_ms: f64, group_size: usize) -> Option<&'a Row> {
    let distance = |row: &Row| {
        let size = (row.group_size as f64 / group_size as f64).ln().abs();
        (row.floor_ms / floor_ms).ln().abs() * 10.0 + size
    };
    let of_design = rows.iter().filter(|row| row.design == design && row.floor_ms > 0.0);
    of_design.min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn advice(options: &Options, topology: &Topology, rows: &[Row]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for design in ["consensus", "lead"] {
        let voters = design == "consensus";
        let floor = floor_of(topology, voters).as_secs_f64() * 1e3;
        // Where members and server are at one site the way takes no time, but not nothing.
        let Some(row) = nearest(rows, design, floor.max(0.1), options.group_size) else { continue };
        let p50 = row.ordering_p50_ms + (floor - row.floor_ms).max(-row.ordering_p50_ms / 2.0);
        // The share of commits that find another one under way.
        let overlap = 1.0 - (-options.update_rate * p50 / 1e3).exp();
        lines.push(format!(
            "{design}: about {p50:.0} ms to order a commit at the median (network {floor:.1} ms; measured on `{}` with groups of {}: {:.1} ms, \
             {:.2} times the floor), {:.0} % of commits at {}/s would meet another one",
            row.topology,
            row.group_size,
            row.ordering_p50_ms,
            row.ordering_p50_to_floor,
            overlap * 100.0,
            options.update_rate
        ));
        expected.push((design, p50, overlap));
    }
    let Some(&(_, consensus, overlap)) = expected.iter().find(|(design, ..)| *design == "consensus") else {
        bail!("no measurement of `consensus` is among the results; run `bench topology`");
    };
    let faults = rows.iter().find(|row| row.design == "consensus" && row.leader_death_ms.is_some());
    if let Some(death) = faults.and_then(|row| row.leader_death_ms.map(|ms| (ms, &row.topology))) {
        lines.push(format!(
            "when a leader dies: consensus was without service for {:.0} ms (on `{}`), a lead server until it is back",
            death.0, death.1
        ));
    }
    let lead = expected.iter().find(|(design, ..)| *design == "lead").map(|(_, p50, _)| *p50);
    lines.push(if options.survives_splits {
        "choose: groups of kind demls over consensus: only they go on where no quorum is in reach; what that costs is not measured here yet"
            .into()
    } else if overlap > OVERLAP_HIGH {
        format!(
            "choose: fewer updates, or a design without an order (dimls, not measured here yet): at {}/s {:.0} % of commits would be built in vain once or more",
            options.update_rate,
            overlap * 100.0
        )
    } else {
        match lead {
            Some(lead) if consensus > 2.0 * lead => format!(
                "choose: consensus, if no single site may stop the group; a lead server is {:.1} times as fast if its loss is bearable",
                consensus / lead
            ),
            _ => "choose: consensus: it hardly costs more than a lead server here, and survives the loss of a site".into(),
        }
    });
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(design: &str, topology: &str, floor_ms: f64, p50: f64) -> Row {
        let (design, topology) = (design.into(), topology.into());
        Row {
            design,
            topology,
            floor_ms,
            ordering_p50_ms: p50,
            ordering_p50_to_floor: p50 / floor_ms,
            group_size: 16,
            ..Row::default()
        }
    }

    fn ask(update_rate: f64, survives_splits: bool) -> String {
        let topology = Topology::find("continent").unwrap();
        let options = Options {
            topology: "continent".into(),
            group_size: 16,
            update_rate,
            survives_splits,
            from: None,
        };
        let rows = [
            row("consensus", "near", 2.0, 5.0),
            row("consensus", "far", 120.0, 130.0),
            row("lead", "far", 50.0, 53.0),
        ];
        advice(&options, &topology, &rows).unwrap().join("\n")
    }

    #[test]
    fn the_nearest_measurement_is_used_and_named() {
        let text = ask(0.01, false);
        assert!(text.contains("measured on `far`") && !text.contains("near"), "{text}");
        assert!(text.contains("choose: consensus"), "{text}");
    }

    #[test]
    fn many_updates_and_splits_change_the_advice() {
        assert!(ask(10.0, false).contains("fewer updates"));
        assert!(ask(0.01, true).contains("demls"));
        let topology = Topology::find("continent").unwrap();
        let options = Options {
            topology: "continent".into(),
            group_size: 2,
            update_rate: 1.0,
            survives_splits: false,
            from: None,
        };
        assert!(advice(&options, &topology, &[]).is_err());
    }
}
