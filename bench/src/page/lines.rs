//! Curves over a size.

use std::fmt::{Error, Write};

use super::{COLOURS, NOTHING, escape, scale::Scale};

const LEFT: f64 = 64.0;
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
const LEGEND: f64 = 330.0;

/// Curves over a size on a logarithmic axis: a name and the points of each. One curve needs no legend.
pub(crate) fn lines(lines: &[(String, Vec<(f64, f64)>)]) -> Result<String, Error> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (Some(x), Some(y)) = (
        Scale::logarithmic(points().map(|(x, _)| x), LEFT, LEFT + WIDTH),
        Scale::fitting(points().map(|(_, y)| y), HEIGHT, 10.0),
    ) else {
        return Ok(NOTHING.into());
    };
    let legend = lines.len() > 1;
    let width = LEFT + WIDTH + if legend { LEGEND } else { 30.0 };
    let mut svg = format!("<svg viewBox=\"0 0 {width} {}\" role=\"img\">", HEIGHT + 24.0);
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
        // What has the colour of another is dashed.
        let again = if i < COLOURS { "" } else { " again" };
        let place = |(px, py): &(f64, f64)| format!("{:.1},{:.1}", x.at(*px), y.at(*py));
        let path: Vec<String> = points.iter().map(place).collect();
        write!(svg, "<polyline class=\"c{colour}{again}\" points=\"{}\"/>", path.join(" "))?;
        for (px, py) in points {
            let (px, py) = (x.at(*px), y.at(*py));
            write!(svg, "<circle class=\"c{colour}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/>")?;
        }
        if legend {
            let (from, to, at) = (LEFT + WIDTH + 14.0, LEFT + WIDTH + 38.0, 22.0 + i as f64 * 18.0);
            write!(
                svg,
                "<polyline class=\"c{colour}{again}\" points=\"{from},{0} {to},{0}\"/><text x=\"{1}\" y=\"{at}\">{2}</text>",
                at - 4.0,
                to + 8.0,
                escape(name)
            )?;
        }
    }
    svg.push_str("</svg>");
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_mark_at_every_point_and_several_have_a_legend() {
        let (a, b) = (("a".to_owned(), vec![(1.0, 5.0), (1000.0, 0.0)]), ("b".to_owned(), vec![(10.0, 7.0)]));
        let svg = lines(&[a.clone(), b]).unwrap();
        assert_eq!((svg.matches("<circle").count(), svg.matches("<polyline").count()), (3, 4));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(lines(&[a]).unwrap().matches("<polyline").count(), 1);
        assert!(lines(&[]).unwrap().contains("Nothing"));
    }
}
