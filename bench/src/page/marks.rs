//! Values side by side, one to a row.

use std::fmt::{Error, Write};

use super::{COLOURS, NOTHING, escape, scale::Scale};

/// One value.
pub(crate) struct Mark {
    pub(crate) label: String,
    /// Marks of one number have one colour.
    pub(crate) colour: usize,
    pub(crate) value: f64,
    pub(crate) whisker: Option<f64>,
    pub(crate) line: Option<f64>,
}

const LEFT: f64 = 230.0;
const WIDTH: f64 = 620.0;
const ROW: f64 = 24.0;

/// Horizontal bars that begin at 0: for values that are near enough to one another. What is 0 is left out.
pub(crate) fn bars(marks: &[Mark]) -> Result<String, Error> {
    rows(marks, Scale::linear, |svg, y, end, colour| {
        let width = end - LEFT;
        write!(svg, "<rect class=\"c{colour}\" x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\"/>")
    })
}

/// Dots on a logarithmic axis, on which a bar would have no beginning. What is 0 is left out.
pub(crate) fn dots(marks: &[Mark]) -> Result<String, Error> {
    rows(marks, Scale::logarithmic, |svg, y, end, colour| {
        write!(svg, "<circle class=\"c{colour}\" cx=\"{end:.1}\" cy=\"{}\" r=\"5\"/>", y + 8.0)
    })
}

/// A row for each value: its mark, its whisker, its line.
fn rows(
    marks: &[Mark],
    scale: impl FnOnce(std::vec::IntoIter<f64>, f64, f64) -> Option<Scale>,
    mark: impl Fn(&mut String, f64, f64, usize) -> Result<(), Error>,
) -> Result<String, Error> {
    let marks: Vec<&Mark> = marks.iter().filter(|mark| mark.value > 0.0).collect();
    let all: Vec<f64> =
        marks.iter().flat_map(|mark| [Some(mark.value), mark.whisker, mark.line]).flatten().collect();
    let Some(scale) = scale(all.into_iter(), LEFT, LEFT + WIDTH) else { return Ok(NOTHING.into()) };
    let height = marks.len() as f64 * ROW + 30.0;
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
    for (i, of) in marks.iter().enumerate() {
        let (y, end) = (i as f64 * ROW + 4.0, scale.at(of.value));
        let (x, middle) = (LEFT - 8.0, y + 8.0);
        write!(
            svg,
            "<text x=\"{x}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            y + 12.0,
            escape(&of.label)
        )?;
        let mut last = end;
        if let Some(whisker) = of.whisker {
            let to = scale.at(whisker);
            last = last.max(to);
            write!(
                svg,
                "<line class=\"whisker\" x1=\"{end:.1}\" x2=\"{to:.1}\" y1=\"{middle:.0}\" y2=\"{middle:.0}\"/>"
            )?;
        }
        mark(&mut svg, y, end, of.colour % COLOURS)?;
        if let Some(line) = of.line {
            let at = scale.at(line);
            last = last.max(at);
            write!(
                svg,
                "<line class=\"floor\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
                y - 2.0,
                y + 18.0
            )?;
        }
        let digits = if of.value < 10.0 { 2 } else { 0 };
        write!(svg, "<text x=\"{:.1}\" y=\"{:.0}\">{:.digits$}</text>", last + 8.0, y + 12.0, of.value)?;
    }
    svg.push_str("</svg>");
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_drawn_for_every_value_and_names_are_escaped() {
        let mark = |label: &str, value| Mark {
            label: label.into(),
            colour: 7,
            value,
            whisker: Some(300.0),
            line: Some(2.0),
        };
        let marks = [mark("a", 1.0), mark("<b>", 150.0), mark("nothing", 0.0)];
        for (svg, what) in [(bars(&marks).unwrap(), "<rect"), (dots(&marks).unwrap(), "<circle")] {
            assert_eq!(svg.matches(what).count(), 2);
            assert!(svg.contains("&lt;b&gt;") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert!(bars(&[]).unwrap().contains("Nothing"));
    }
}
