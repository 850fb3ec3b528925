//! `bench advise`: which way of ordering to choose on a topology, from what `bench topology` has measured on this machine.

mod unordered;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::Deserialize;

use self::unordered::Unordered;
use crate::{
    paths,
    topology::{ANY, OVERLAP_HIGH, Row, Topology, floor_of, overlap},
};

/// Turns serve up to this share of what can be ordered one after another; beyond it waits grow without end.
const TURNS_FULL: f64 = 0.7;

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

/// What is expected of one way of ordering.
struct Expected {
    design: &'static str,
    /// Median time to order a commit, in milliseconds.
    p50: f64,
    /// The share of commits that would meet another one under way.
    overlap: f64,
}

fn advice(options: &Options, topology: &Topology, rows: &[Row]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let expected: Vec<Expected> = ["consensus", "lead", "turns"]
        .into_iter()
        .filter_map(|design| expect(design, options, topology, rows, &mut lines))
        .collect();
    let Some(consensus) = expected.iter().find(|e| e.design == "consensus") else {
        bail!("no measurement of `consensus` is among the results; run `bench topology`");
    };
    let floor = floor_of(topology, true).as_secs_f64() * 1e3;
    lines.extend(outages(rows, floor));
    let demls = nearest_split(rows, floor);
    lines.push(match demls {
        Some(row) => split_line(row),
        None => "demls: not among the results".into(),
    });
    lines.extend(nearest_size(rows, "demls", options.group_size).map(kept_line));
    let dimls = Unordered::of(rows, topology, options.group_size);
    lines.push(match &dimls {
        Some(dimls) => dimls.line(options),
        None => "dimls: not among the results".into(),
    });
    lines.extend(dimls.as_ref().and_then(Unordered::delivery_line));
    lines.push(choice(options, consensus, &expected, demls, dimls.as_ref()));
    Ok(lines)
}

/// The time that a design takes here, and a line that says where that comes from.
fn expect(
    design: &'static str,
    options: &Options,
    topology: &Topology,
    rows: &[Row],
    lines: &mut Vec<String>,
) -> Option<Expected> {
    let floor = floor_of(topology, design != "lead").as_secs_f64() * 1e3;
    // Where members and server are at one site the way takes no time, but not nothing.
    let Some(row) = nearest(rows, design, floor.max(0.1), options.group_size) else {
        lines.push(format!("{design}: not among the results"));
        return None;
    };
    if design == "turns" {
        let turn = row.turn_ms.unwrap_or_default();
        let round = turn * options.group_size as f64 / 1e3;
        lines.push(format!(
            "turns: {:.0} ms at the median to order a commit, most of it the wait for a turn of {turn:.0} ms at most (measured on `{}` with groups of \
             {}); a round of {} members takes up to {round:.1} s while nobody else commits, and no commit is built in vain",
            row.ordering_p50_ms, row.topology, row.group_size, options.group_size
        ));
        return Some(Expected { design, p50: row.ordering_p50_ms, overlap: 0.0 });
    }
    let p50 = row.ordering_p50_ms + (floor - row.floor_ms).max(-row.ordering_p50_ms / 2.0);
    let overlap = overlap(options.update_rate, p50);
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
    Some(Expected { design, p50, overlap })
}

fn outages(rows: &[Row], floor: f64) -> Option<String> {
    let with_faults = |row: &&Row| row.design == "consensus" && row.leader_death_ms.is_some();
    let row = closest(rows.iter().filter(with_faults), floor)?;
    Some(format!(
        "when a leader dies: consensus was without service for {:.0} ms (on `{}`), a lead server until it is back",
        row.leader_death_ms?, row.topology
    ))
}

/// The split that was measured on the most similar topology: that of the consensus beside it.
fn nearest_split(rows: &[Row], floor: f64) -> Option<&Row> {
    let consensus = rows.iter().filter(|row| row.design == "consensus");
    let on = |topology: &str| rows.iter().find(|row| row.design == "demls" && row.topology == topology);
    closest(consensus.filter(|row| on(&row.topology).is_some()), floor).and_then(|row| on(&row.topology))
}

fn closest<'a>(rows: impl Iterator<Item = &'a Row>, floor: f64) -> Option<&'a Row> {
    let distance = |row: &Row| (row.floor_ms.max(0.1) / floor.max(0.1)).ln().abs();
    rows.min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn nearest_size<'a>(rows: &'a [Row], design: &str, group_size: usize) -> Option<&'a Row> {
    let of_design = rows.iter().filter(|row| row.design == design && row.topology == ANY);
    of_design.min_by_key(|row| row.group_size.abs_diff(group_size))
}

fn split_line(row: &Row) -> String {
    let ms = |value: Option<f64>| value.map_or("never".to_owned(), |value| format!("after {value:.0} ms"));
    format!(
        "demls: in a split of {:.0} s on `{}` the side without a quorum went on {} ({} commits there, {} at the others) and everybody was in \
         one state {} again; while there is a quorum it is ordered as consensus is",
        row.fault_lasted_s.unwrap_or_default(),
        row.topology,
        ms(row.branch_ms),
        row.cut_home_commits.unwrap_or_default(),
        row.cut_others_commits.unwrap_or_default(),
        ms(row.healed_ms)
    )
}

fn kept_line(row: &Row) -> String {
    format!(
        "demls: a commit takes {} bytes, a member stores {} bytes, and {:.0} more for each commit whose state it keeps until it is stable (measured \
         with {} members)",
        row.commit_bytes,
        row.stored_bytes.unwrap_or_default(),
        row.client_bytes_per_commit.unwrap_or_default(),
        row.group_size
    )
}

fn choice(
    options: &Options,
    consensus: &Expected,
    expected: &[Expected],
    demls: Option<&Row>,
    dimls: Option<&Unordered<'_>>,
) -> String {
    let of = |design: &str| expected.iter().find(|e| e.design == design);
    let is_busy = consensus.overlap > OVERLAP_HIGH;
    let (rate, percent) = (options.update_rate, consensus.overlap * 100.0);
    let aside = dimls.and_then(Unordered::aside).unwrap_or_default();
    if options.survives_splits && !is_busy {
        // With nothing to pay for it there is no reason to have an order.
        if let Some(dimls) =
            dimls.filter(|d| d.is_sooner() == Some(true) && d.times_the_bytes().is_some_and(|t| t < 1.0))
        {
            return format!(
                "choose: dimls: it never stops, delivers sooner than mls, and takes {:.2} times the bytes",
                dimls.times_the_bytes().unwrap_or_default()
            );
        }
        return match demls.and_then(|row| row.branch_ms) {
            Some(ms) => format!("choose: demls over consensus: it goes on where no quorum is in reach, {ms:.0} ms after it is lost{aside}"),
            None => "choose: demls over consensus, which was not measured going on in a split: run `bench topology`".into(),
        };
    }
    if is_busy {
        // A turn that is used ends with its commit, so an order of turns carries one commit in the time that one takes.
        let carried = 1e3 / consensus.p50;
        return match (of("turns"), dimls) {
            (Some(_), _) if !options.survives_splits && rate < carried * TURNS_FULL => format!(
                "choose: turns: at {rate}/s {percent:.0} % of commits would be built in vain without them, and {carried:.1}/s can be ordered one after another"
            ),
            (_, Some(dimls)) => format!(
                "choose: dimls, or fewer updates: at {rate}/s {percent:.0} % of commits would be built in vain and {carried:.1}/s is all that can be ordered; \
                 it costs {} bytes an update, and nobody waits for anybody",
                dimls.cost.update_in_all_bytes.unwrap_or_default()
            ),
            _ => format!(
                "choose: fewer updates: at {rate}/s {percent:.0} % of commits would be built in vain once or more"
            ),
        };
    }
    match of("lead") {
        Some(lead) if consensus.p50 > 2.0 * lead.p50 => format!(
            "choose: consensus, if no single site may stop the group; a lead server is {:.1} times as fast if its loss is bearable",
            consensus.p50 / lead.p50
        ),
        _ => {
            "choose: consensus: it hardly costs more than a lead server here, and survives the loss of a site"
                .into()
        }
    }
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

    /// The part for `continent` of the run that docs/benchmarks.md shows.
    const RECORDED: &str = include_str!("../../recorded/topology.json");

    fn ask_of(
        rows: &[Row],
        topology: &str,
        group_size: usize,
        update_rate: f64,
        survives_splits: bool,
    ) -> String {
        let options =
            Options { topology: topology.into(), group_size, update_rate, survives_splits, from: None };
        advice(&options, &Topology::find(topology).unwrap(), rows).unwrap().join("\n")
    }

    fn recorded() -> Vec<Row> {
        serde_json::from_str::<Measured>(RECORDED).unwrap().results
    }

    #[test]
    fn the_nearest_measurement_is_used_and_named() {
        let rows = [
            row("consensus", "near", 2.0, 5.0),
            row("consensus", "far", 120.0, 130.0),
            row("lead", "far", 50.0, 53.0),
        ];
        let text = ask_of(&rows, "continent", 16, 0.01, false);
        assert!(text.contains("measured on `far`") && !text.contains("near"), "{text}");
        assert!(text.contains("choose: consensus"), "{text}");
        assert!(text.contains("turns: not among the results") && text.contains("dimls: not among"), "{text}");
    }

    #[test]
    fn a_recorded_run_answers_with_all_five_ways_and_their_numbers() {
        let rows = recorded();
        let text = ask_of(&rows, "continent", 16, 0.01, false);
        for design in
            ["consensus: about", "lead: about", "turns: ", "demls: in a split", "dimls: needs no order"]
        {
            assert!(text.contains(design), "{design} is missing in\n{text}");
        }
        assert!(text.contains("demls: a commit takes"), "{text}");
        let demls = rows.iter().find(|row| row.design == "demls" && row.topology == "continent").unwrap();
        assert!(text.contains(&format!("({} commits there", demls.cut_home_commits.unwrap())), "{text}");
    }

    #[test]
    fn rates_and_splits_change_the_advice() {
        let rows = recorded();
        let choice = |rate, splits| {
            let text = ask_of(&rows, "continent", 16, rate, splits);
            text.lines().last().unwrap_or_default().to_owned()
        };
        assert!(choice(0.01, false).starts_with("choose: consensus"), "{}", choice(0.01, false));
        assert!(choice(0.01, true).starts_with("choose: demls"), "{}", choice(0.01, true));
        assert!(choice(3.0, false).starts_with("choose: turns"), "{}", choice(3.0, false));
        assert!(choice(50.0, false).starts_with("choose: dimls"), "{}", choice(50.0, false));
        assert!(choice(50.0, true).starts_with("choose: dimls"), "{}", choice(50.0, true));
    }

    #[test]
    fn results_without_consensus_are_no_answer() {
        let options = Options {
            topology: "continent".into(),
            group_size: 2,
            update_rate: 1.0,
            survives_splits: false,
            from: None,
        };
        assert!(advice(&options, &Topology::find("continent").unwrap(), &[]).is_err());
    }
}
