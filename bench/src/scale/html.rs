//! The page of `bench scale`.

use std::fmt::Write;

use super::{options::Configuration, point::Point};
use crate::{
    page::{self, escape, lines},
    report::Report,
};

/// The whole page: for each thing that grows a plot of everything that was measured.
pub(super) fn page(report: &Report<Configuration, Point>) -> anyhow::Result<String> {
    let mut text = String::from(
        "<p>Sizes are on logarithmic axes. What stands in brackets is the growth that is expected.</p>",
    );
    for (of, measures) in curves(&report.results) {
        write!(text, "<h2>More {}</h2><div class=\"plots\">", escape(of))?;
        for (measure, expected, points) in measures {
            let title = format!("{measure} ({expected})");
            write!(text, "<div><h3>{}</h3>{}</div>", escape(&title), lines(&[(title.clone(), points)])?)?;
        }
        text.push_str("</div>");
    }
    page::page(report, "What more of something costs", &text)
}

/// What was measured, its expected growth, and its points.
type Curve<'a> = (&'a str, &'a str, Vec<(f64, f64)>);

/// The curves of each thing that grows, in the order in which they were measured.
fn curves(points: &[Point]) -> Vec<(&str, Vec<Curve<'_>>)> {
    let mut all: Vec<(&str, Vec<Curve<'_>>)> = Vec::new();
    for point in points {
        let at = (point.size as f64, point.value);
        let place = all.iter().position(|(of, _)| *of == point.of).unwrap_or_else(|| {
            all.push((point.of, Vec::new()));
            all.len() - 1
        });
        let curves = &mut all[place].1;
        match curves.iter_mut().find(|(measure, _, _)| *measure == point.measure) {
            Some((_, _, curve)) => curve.push(at),
            None => curves.push((point.measure, point.expected, vec![at])),
        }
    }
    all
}
