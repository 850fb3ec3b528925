//! Reports as pages: one file each, plots included, no network needed, dark or light as the reader likes it.

use std::fmt::{Error, Write};

use serde::Serialize;

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
rect, circle { fill: var(--c); } polyline { fill: none; stroke: var(--c); stroke-width: 2; }
";

/// Colours of bars and lines.
const COLOURS: usize = 6;

/// One horizontal bar.
pub(crate) struct Bar {
    pub(crate) label: String,
    /// Bars of one number have one colour.
    pub(crate) colour: usize,
    pub(crate) value: f64,
    pub(crate) whisker: Option<f64>,
    pub(crate) line: Option<f64>,
}

/// A page with these sections, every figure of the run, and what it was taken on.
pub(crate) fn page<C: Serialize, R: Serialize>(
    report: &Report<C, R>,
    title: &str,
    sections: &str,
) -> anyhow::Result<String> {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>Begun at {} s since 1970, seed {}. Every figure comes from this \
         run.</p>{sections}<h2>All figures</h2><div class=\"wide\">{}</div>",
        report.started_at,
        report.seed,
        table(&report.results)?
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

/// Horizontal bars on a logarithmic scale: value, whisker, line. What is 0 is left out.
pub(crate) fn bars(bars: &[Bar]) -> Result<String, Error> {
    const LEFT: f64 = 230.0;
    const WIDTH: f64 = 620.0;
    const ROW: f64 = 24.0;
    let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.value > 0.0).collect();
    let all = bars.iter().flat_map(|bar| [Some(bar.value), bar.whisker, bar.line]).flatten();
    let Some(scale) = Scale::of(all, LEFT, LEFT + WIDTH) else {
        return Ok("<p>Nothing was measured.</p>".into());
    };
    let height = bars.len() as f64 * ROW + 30.0;
    let mut svg = format!("<svg viewBox=\"0 0 {} {height}\" role=\"img\">", LEFT + WIDTH + 90.0);
    for (at, label) in scale.grid() {
        write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{:.0}\"/>\
             <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{label}</text>",
            height - 22.0,
            height - 6.0
        )?;
    }
    for (i, bar) in bars.iter().enumerate() {
        let (y, end) = (i as f64 * ROW + 4.0, scale.at(bar.value));
        write!(
            svg,
            "<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect class=\"c{}\" x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"16\"/>",
            LEFT - 8.0,
            y + 12.0,
            escape(&bar.label),
            bar.colour % COLOURS,
            end - LEFT
        )?;
        let mut last = end;
        if let Some(whisker) = bar.whisker {
            last = last.max(scale.at(whisker));
            write!(
                svg,
                "<line class=\"whisker\" x1=\"{end:.1}\" x2=\"{:.1}\" y1=\"{1:.0}\" y2=\"{1:.0}\"/>",
                scale.at(whisker),
                y + 8.0
            )?;
        }
        if let Some(line) = bar.line {
            last = last.max(scale.at(line));
            write!(
                svg,
                "<line class=\"floor\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.0}\" y2=\"{2:.0}\"/>",
                scale.at(line),
                y - 2.0,
                y + 18.0
            )?;
        }
        let digits = if bar.value < 10.0 { 2 } else { 0 };
        write!(svg, "<text x=\"{:.1}\" y=\"{:.0}\">{:.digits$}</text>", last + 6.0, y + 12.0, bar.value)?;
    }
    svg.push_str("</svg>");
    Ok(svg)
}

/// Lines over a size, both axes logarithmic: a name and the points of each.
pub(crate) fn lines(lines: &[(String, Vec<(f64, f64)>)]) -> Result<String, Error> {
    const LEFT: f64 = 60.0;
    const WIDTH: f64 = 480.0;
    const HEIGHT: f64 = 240.0;
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (Some(x), Some(y)) = (
        Scale::of(points().map(|(x, _)| x), LEFT, LEFT + WIDTH),
        Scale::of(points().map(|(_, y)| y), HEIGHT, 10.0),
    ) else {
        return Ok("<p>Nothing was measured.</p>".into());
    };
    let mut svg = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\">", LEFT + WIDTH + 330.0, HEIGHT + 24.0);
    for (at, label) in x.grid() {
        write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"10\" y2=\"{HEIGHT}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            HEIGHT + 18.0
        )?;
    }
    for (at, label) in y.grid() {
        write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT + WIDTH,
            LEFT - 6.0,
            at + 4.0
        )?;
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = i % COLOURS;
        let place = |(px, py): &(f64, f64)| format!("{:.1},{:.1}", x.at(*px), y.at(*py));
        let path: Vec<String> = points.iter().map(place).collect();
        write!(svg, "<polyline class=\"c{colour}\" points=\"{}\"/>", path.join(" "))?;
        for (px, py) in points {
            write!(
                svg,
                "<circle class=\"c{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                x.at(*px),
                y.at(*py)
            )?;
        }
        let at = 22.0 + i as f64 * 18.0;
        write!(
            svg,
            "<rect class=\"c{colour}\" x=\"{0}\" y=\"{1}\" width=\"10\" height=\"10\"/><text x=\"{2}\" y=\"{3}\">{4}</text>",
            LEFT + WIDTH + 16.0,
            at - 9.0,
            LEFT + WIDTH + 32.0,
            at,
            escape(name)
        )?;
    }
    svg.push_str("</svg>");
    Ok(svg)
}

/// A logarithmic axis between two places of the page.
struct Scale {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

impl Scale {
    /// Nothing if no value is above 0.
    fn of(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Option<Self> {
        let above = values.filter(|value| *value > 0.0 && value.is_finite());
        let (low, high) = above.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        if high <= 0.0 {
            return None;
        }
        let from = low.log10().floor();
        Some(Self { from, to: high.log10().ceil().max(from + 1.0), begin, end })
    }

    fn at(&self, value: f64) -> f64 {
        let power = if value > 0.0 { value.log10().clamp(self.from, self.to) } else { self.from };
        self.begin + (power - self.from) / (self.to - self.from) * (self.end - self.begin)
    }

    /// Places and names of the powers of ten.
    fn grid(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        (self.from as i32..=self.to as i32).map(|power| {
            let value = 10_f64.powi(power);
            (self.at(value), value)
        })
    }
}

/// Every field of every row, under the names that CSV and JSON have. What no row has is left out.
fn table<R: Serialize>(rows: &[R]) -> anyhow::Result<String> {
    let mut shown = Vec::new();
    for row in rows {
        if let serde_json::Value::Object(fields) = serde_json::to_value(row)? {
            shown.push(fields);
        }
    }
    let Some(first) = shown.first() else { return Ok("<p>Nothing was measured.</p>".into()) };
    let is_there =
        |name: &&String| shown.iter().any(|row| row.get(*name).is_some_and(|value| !value.is_null()));
    let names: Vec<&String> = first.keys().filter(is_there).collect();
    let mut table = String::from("<table><tr>");
    for name in &names {
        write!(table, "<th>{}</th>", escape(name))?;
    }
    table.push_str("</tr>");
    for row in &shown {
        table.push_str("<tr>");
        for name in &names {
            let text = match row.get(*name) {
                None | Some(serde_json::Value::Null) => String::new(),
                Some(serde_json::Value::Number(n)) if n.is_f64() => {
                    format!("{:.2}", n.as_f64().unwrap_or_default())
                }
                Some(serde_json::Value::String(text)) => escape(text),
                Some(other) => escape(&other.to_string()),
            };
            write!(table, "<td>{text}</td>")?;
        }
        table.push_str("</tr>");
    }
    table.push_str("</table>");
    Ok(table)
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_for_every_value_and_names_are_escaped() {
        let bar = |label: &str, value| Bar {
            label: label.into(),
            colour: 7,
            value,
            whisker: Some(300.0),
            line: Some(2.0),
        };
        let svg = bars(&[bar("a", 1.0), bar("<b>", 150.0), bar("nothing", 0.0)]).unwrap();
        assert_eq!(svg.matches("<rect").count(), 2);
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(bars(&[]).unwrap().contains("Nothing"));
    }

    #[test]
    fn lines_have_a_mark_at_every_point() {
        let svg =
            lines(&[("a".into(), vec![(1.0, 5.0), (1000.0, 0.0)]), ("b".into(), vec![(10.0, 7.0)])]).unwrap();
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (3, 2));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(lines(&[]).unwrap().contains("Nothing"));
    }

    #[test]
    fn a_table_leaves_out_what_no_row_has() {
        #[derive(Serialize)]
        struct Row {
            name: &'static str,
            value: Option<f64>,
            never: Option<f64>,
        }
        let rows =
            [Row { name: "<x>", value: Some(1.5), never: None }, Row { name: "y", value: None, never: None }];
        let table = table(&rows).unwrap();
        assert!(table.contains("&lt;x&gt;") && table.contains("1.50") && !table.contains("never"), "{table}");
    }
}
