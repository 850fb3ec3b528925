//! The page of `bench scale`.

use std::fmt::Write;

use super::{options::Configuration, point::Point};
use crate::{
    page::{self, escape, lines},
    report::Report,
};

/// The whole page: a plot for each thing that grows.
pub(super) fn page(report: &Report<Configuration, Point>) -> anyhow::Result<String> {
    let points = &report.results;
    let mut grown: Vec<&str> = Vec::new();
    for point in points {
        if !grown.contains(&point.of) {
            grown.push(point.of);
        }
    }
    let mut text = String::from(
        "<p>Both axes are logarithmic. Behind each name stands the growth that is expected.</p>",
    );
    for of in grown {
        let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
        for point in points.iter().filter(|point| point.of == of) {
            let name = format!("{}: {}", point.measure, point.expected);
            let at = (point.size as f64, point.value);
            match curves.iter_mut().find(|(known, _)| *known == name) {
                Some((_, curve)) => curve.push(at),
                None => curves.push((name, vec![at])),
            }
        }
        write!(text, "<h2>More {}</h2>{}", escape(of), lines(&curves)?)?;
    }
    page::page(report, "What more of something costs", &text)
}
