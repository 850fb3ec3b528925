//! Reports as pages: one file each, plots included, no network needed, dark or light as the reader likes it.

mod lines;
mod marks;
mod scale;
mod table;

use std::fmt::Write;

use serde::Serialize;
use time::OffsetDateTime;

pub(crate) use self::{
    lines::lines,
    marks::{Mark, bars, dots},
};
use crate::report::Report;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #d0d7de; --dim: #57606a;
  --c0: #0969da; --c1: #bc4c00; --c2: #8250df; --c3: #1a7f37; --c4: #bf3989; --c5: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #30363d; --dim: #8b949e;
  --c0: #58a6ff; --c1: #f0883e; --c2: #bc8cff; --c3: #56d364; --c4: #f778ba; --c5: #e3b341; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; } th, td { border: 1px solid var(--faint); padding: .25rem .5rem; text-align: right; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; } .wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } pre { white-space: pre-wrap; font-size: 12px; }
.grid { stroke: var(--faint); } .floor { stroke: var(--ink); stroke-width: 2; } .whisker { stroke: var(--dim); stroke-width: 1.5; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
rect, circle { fill: var(--c); } polyline { fill: none; stroke: var(--c); stroke-width: 2; } .again { stroke-dasharray: 6 4; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 0 1.5rem; } h3 { font-size: 14px; margin: .6rem 0 .2rem; }
";

/// Colours of marks and lines.
const COLOURS: usize = 6;

const NOTHING: &str = "<p>Nothing was measured.</p>";

/// A page with these sections, every figure of the run, and what it was taken on.
pub(crate) fn page<C: Serialize, R: Serialize>(
    report: &Report<C, R>,
    title: &str,
    sections: &str,
) -> anyhow::Result<String> {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>Begun on {}, seed {}. Every figure comes from this run.</p>\
         {sections}<h2>All figures</h2><div class=\"wide\">{}</div>",
        moment(report.started_at),
        report.seed,
        table::table(&report.results)?
    );
    for (name, text) in [
        ("Machine", serde_json::to_string_pretty(&report.machine)?),
        ("Versions", serde_json::to_string_pretty(&report.versions)?),
        ("Configuration", serde_json::to_string_pretty(&report.configuration)?),
    ] {
        write!(page, "<h2>{name}</h2><pre>{}</pre>", escape(&text))?;
    }
    page.push_str("</html>\n");
    Ok(page)
}

/// A moment in seconds since 1970, as people read it.
fn moment(seconds: u64) -> String {
    let moment =
        i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    moment.map_or_else(
        || format!("{seconds} s since 1970"),
        |at| format!("{} at {:02}:{:02} UTC", at.date(), at.hour(), at.minute()),
    )
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_as_people_read_it() {
        assert_eq!(moment(1_795_975_057), "2026-11-29 at 17:57 UTC");
        assert_eq!(moment(u64::MAX), format!("{} s since 1970", u64::MAX));
    }
}
