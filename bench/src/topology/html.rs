//! The page: everything in one file, plots included, dark or light as the reader likes it.

use std::fmt::Write;

use super::{options::Configuration, row::Row};
use crate::report::Report;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #d0d7de; --a: #0969da; --b: #bc4c00; --floor: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #30363d; --a: #58a6ff; --b: #f0883e; --floor: #8b949e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; } th, td { border: 1px solid var(--faint); padding: .25rem .5rem; text-align: right; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; } .wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } pre { white-space: pre-wrap; font-size: 12px; }
.consensus { fill: var(--a); } .lead { fill: var(--b); } .grid { stroke: var(--faint); } .floor { stroke: var(--ink); stroke-width: 2; } .whisker { stroke: var(--floor); stroke-width: 1.5; }
";

/// The whole page.
pub(crate) fn page(report: &Report<Configuration, Row>) -> anyhow::Result<String> {
    let rows = &report.results;
    let mut page = String::new();
    write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Ordering and topology</title><style>{STYLE}</style><h1>What an order of commits costs as sites move apart</h1>\
         <p>Real processes on one machine, links emulated in user space, real MLS commits, {} commits a second in an open loop for {} s \
         each. Seed {}. Every figure comes from this run.</p>",
        report.configuration.rate_per_s, report.configuration.seconds, report.seed
    )?;
    write!(
        page,
        "<h2>Ordering latency</h2><p>From the moment that a commit was due until its sender knew that it was accepted: \
         bar to the median, whisker to p99, line at the floor (round trip to the leader + round trip to the quorum-th fastest voter + \
         one measured sync).</p>{}",
        bars(rows, |row| (row.ordering_p50_ms, Some(row.ordering_p99_ms), Some(row.floor_ms)))?
    )?;
    write!(
        page,
        "<h2>Delivery latency</h2><p>Until the last site had it; one subscriber at each site stands for its members.</p>{}",
        bars(rows, |row| (row.delivery_p50_ms, Some(row.delivery_p99_ms), None))?
    )?;
    write!(
        page,
        "<h2>Bytes between sites for each commit</h2>{}",
        bars(rows, |row| (row.site_bytes_per_commit, None, None))?
    )?;
    write!(page, "<h2>All figures</h2><div class=\"wide\">{}</div>", table(rows)?)?;
    page.push_str("<p>Empty: not measured with this size of groups, or (time without service) service did not come back while the \
         fault lasted. Contention: members at once / wasted commits for each accepted one / ms until all were accepted.</p><h2>What cannot run yet</h2><ul>");
    for (design, why) in &report.configuration.missing {
        write!(page, "<li>{}: {}</li>", escape(design), escape(why))?;
    }
    page.push_str("</ul><h2>Topologies</h2><ul>");
    for topology in &report.configuration.topologies {
        write!(
            page,
            "<li>{}: {} sites, home {}. {}</li>",
            escape(&topology.name),
            topology.sites.len(),
            escape(&topology.home),
            escape(&topology.source)
        )?;
    }
    let machine = serde_json::to_string_pretty(&report.machine)?;
    let versions = serde_json::to_string_pretty(&report.versions)?;
    write!(
        page,
        "</ul><h2>Machine and versions</h2><pre>{}\n{}</pre></html>",
        escape(&machine),
        escape(&versions)
    )?;
    Ok(page)
}

/// Horizontal bars on a logarithmic scale: value, whisker, line.
fn bars(
    rows: &[Row],
    of: impl Fn(&Row) -> (f64, Option<f64>, Option<f64>),
) -> Result<String, std::fmt::Error> {
    const LEFT: f64 = 230.0;
    const WIDTH: f64 = 620.0;
    const ROW: f64 = 24.0;
    let values: Vec<_> = rows.iter().map(|row| (row, of(row))).collect();
    let all = values.iter().flat_map(|(_, (v, w, l))| [Some(*v), *w, *l]).flatten().filter(|v| *v > 0.0);
    let (low, high) = all.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    if high <= 0.0 {
        return Ok("<p>Nothing was measured.</p>".into());
    }
    let (from, to) = (low.log10().floor(), (high.log10().ceil()).max(low.log10().floor() + 1.0));
    let x = |value: f64| LEFT + (value.max(low).log10() - from) / (to - from) * WIDTH;
    let height = rows.len() as f64 * ROW + 30.0;
    let mut svg = format!("<svg viewBox=\"0 0 {} {height}\" role=\"img\">", LEFT + WIDTH + 90.0);
    for power in from as i32..=to as i32 {
        let at = x(10_f64.powi(power));
        write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{:.0}\"/>",
            height - 22.0
        )?;
        write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            height - 6.0,
            10_f64.powi(power)
        )?;
    }
    for (i, (row, (value, whisker, line))) in values.iter().enumerate() {
        let y = i as f64 * ROW + 4.0;
        let name = format!("{} · {} · {}", row.topology, row.design, row.group_size);
        write!(
            svg,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 12.0,
            escape(&name)
        )?;
        write!(
            svg,
            "<rect class=\"{}\" x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"16\"/>",
            escape(&row.design),
            x(*value) - LEFT
        )?;
        let mut end = x(*value);
        if let Some(whisker) = whisker {
            end = end.max(x(*whisker));
            write!(
                svg,
                "<line class=\"whisker\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
                x(*value),
                x(*whisker),
                y + 8.0,
                y + 8.0
            )?;
        }
        if let Some(line) = line {
            write!(
                svg,
                "<line class=\"floor\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.0}\" y2=\"{2:.0}\"/>",
                x(*line),
                y - 2.0,
                y + 18.0
            )?;
        }
        write!(svg, "<text x=\"{:.1}\" y=\"{:.0}\">{value:.1}</text>", end + 6.0, y + 12.0)?;
    }
    svg.push_str("</svg>");
    Ok(svg)
}

/// Every field of every row, under the names that CSV and JSON have.
fn table(rows: &[Row]) -> anyhow::Result<String> {
    let mut table = String::from("<table>");
    for (i, row) in rows.iter().enumerate() {
        let serde_json::Value::Object(fields) = serde_json::to_value(row)? else { continue };
        if i == 0 {
            let names: String = fields.keys().map(|name| format!("<th>{}</th>", escape(name))).collect();
            write!(table, "<tr>{names}</tr>")?;
        }
        table.push_str("<tr>");
        for value in fields.values() {
            let text = match value {
                serde_json::Value::Null => String::new(),
                serde_json::Value::Number(n) if n.is_f64() => {
                    format!("{:.2}", n.as_f64().unwrap_or_default())
                }
                serde_json::Value::String(text) => escape(text),
                other => other.to_string(),
            };
            write!(table, "<td>{text}</td>")?;
        }
        table.push_str("</tr>");
    }
    table.push_str("</table>");
    Ok(table)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_for_every_row_and_names_are_escaped() {
        let row = |name: &str, value| Row { topology: name.into(), ordering_p50_ms: value, ..Row::default() };
        let svg =
            bars(&[row("a", 1.0), row("<b>", 150.0)], |row| (row.ordering_p50_ms, None, Some(2.0))).unwrap();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(bars(&[], |_| (0.0, None, None)).unwrap().contains("Nothing"));
    }
}
