//! Axes.

/// An axis between two places of the page.
pub(super) struct Scale {
    kind: Kind,
    /// The smallest and the largest value, or their powers of ten.
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Linear,
    Logarithmic,
}

/// Lines of the grid of a linear axis, at most.
const STEPS: f64 = 5.0;

/// From this ratio of the largest to the smallest value on, a linear axis hides the small ones.
const WIDE: f64 = 30.0;

impl Scale {
    /// From 0 to the largest value, so that lengths can be compared. Nothing if no value is above 0.
    pub(super) fn linear(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Option<Self> {
        let (_, high) = extremes(values)?;
        // Up to the next line of the grid.
        let step = step(high);
        Some(Self { kind: Kind::Linear, from: 0.0, to: (high / step).ceil() * step, begin, end })
    }

    /// Powers of ten. Nothing if no value is above 0.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Option<Self> {
        let (low, high) = extremes(values)?;
        let from = low.log10().floor();
        let to = high.log10().ceil().max(from + 1.0);
        Some(Self { kind: Kind::Logarithmic, from, to, begin, end })
    }

    /// Linear, unless the values are too far apart for that.
    pub(super) fn fitting(values: impl Iterator<Item = f64> + Clone, begin: f64, end: f64) -> Option<Self> {
        let (low, high) = extremes(values.clone())?;
        if high / low < WIDE {
            Self::linear(values, begin, end)
        } else {
            Self::logarithmic(values, begin, end)
        }
    }

    pub(super) fn at(&self, value: f64) -> f64 {
        let along = match self.kind {
            Kind::Linear => value,
            Kind::Logarithmic if value > 0.0 => value.log10(),
            Kind::Logarithmic => self.from,
        };
        let share = (along.clamp(self.from, self.to) - self.from) / (self.to - self.from);
        self.begin + share * (self.end - self.begin)
    }

    /// Places and names of the lines of the grid.
    pub(super) fn grid(&self) -> Vec<(f64, f64)> {
        let values: Vec<f64> = match self.kind {
            Kind::Linear => {
                let step = step(self.to);
                (0..=(self.to / step).round() as i32).map(|n| tidy(f64::from(n) * step)).collect()
            }
            Kind::Logarithmic => {
                (self.from as i32..=self.to as i32).map(|power| 10_f64.powi(power)).collect()
            }
        };
        values.into_iter().map(|value| (self.at(value), value)).collect()
    }
}

/// The least and the most of what is above 0.
fn extremes(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let above = values.filter(|value| *value > 0.0 && value.is_finite());
    let (low, high) = above.fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
    (high > 0.0).then_some((low, high))
}

/// The smallest of 1, 2, 5, 10, 20, ... with which a grid up to `high` has few lines.
fn step(high: f64) -> f64 {
    let power = 10_f64.powf((high / STEPS).log10().floor());
    let wanted = [1.0, 2.0, 5.0].into_iter().find(|factor| high / (factor * power) <= STEPS + 1e-9);
    power * wanted.unwrap_or(10.0)
}

/// Without what adding fractions leaves behind.
fn tidy(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_begins_at_0_and_ends_at_a_line_behind_the_largest_value() {
        let scale = Scale::linear([3.0, 432.0, f64::NAN].into_iter(), 0.0, 100.0).unwrap();
        let grid: Vec<f64> = scale.grid().into_iter().map(|(_, value)| value).collect();
        assert_eq!(grid, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!((scale.at(0.0), scale.at(250.0), scale.at(500.0)), (0.0, 50.0, 100.0));
        let small = Scale::linear([0.7].into_iter(), 0.0, 1.0).unwrap();
        assert_eq!(small.grid().last().unwrap().1, 0.8);
        assert!(Scale::linear([0.0, -1.0].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn a_logarithmic_axis_has_the_powers_of_ten_around_its_values() {
        let scale = Scale::logarithmic([30.0, 4000.0].into_iter(), 0.0, 300.0).unwrap();
        assert_eq!(scale.grid(), [(0.0, 10.0), (100.0, 100.0), (200.0, 1000.0), (300.0, 10000.0)]);
        assert_eq!(scale.at(0.0), 0.0);
    }

    #[test]
    fn an_axis_is_linear_while_its_values_are_near_to_one_another() {
        let of =
            |values: [f64; 2]| Scale::fitting(values.into_iter(), 0.0, 1.0).unwrap().kind == Kind::Linear;
        assert!(of([1.0, 20.0]) && !of([1.0, 100.0]));
    }
}
