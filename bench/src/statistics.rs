//! Medians and spreads.

use std::time::Duration;

use serde::Serialize;

use crate::task::Latency;

/// The middle of some values, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) quartile_low: f64,
    pub(crate) quartile_high: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            median: quantile(&values, 0.5)?,
            quartile_low: quantile(&values, 0.25)?,
            quartile_high: quantile(&values, 0.75)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// Of the times that single operations took; `None` without any.
pub(crate) fn latency(times: Vec<Duration>) -> Option<Latency> {
    let mut micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    micros.sort_unstable_by(f64::total_cmp);
    Some(Latency { median_us: quantile(&micros, 0.5)?, p99_us: quantile(&micros, 0.99)? })
}

/// Between the two nearest of `sorted`, in proportion.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = part * last as f64;
    let below = place.floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the slice")]
    let at = below as usize;
    let (low, high) = (sorted.get(at)?, sorted.get((at + 1).min(last))?);
    Some(low + (high - low) * (place - below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).expect("there are values");
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!((spread.quartile_low, spread.quartile_high), (1.75, 3.25));
    }

    #[test]
    fn one_value_is_all_quantiles_and_none_has_none() {
        let spread = Spread::of([7.0]).expect("there is a value");
        assert_eq!([spread.median, spread.quartile_low, spread.quartile_high], [7.0; 3]);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn latency_is_told_in_microseconds() {
        let latency = latency((0..=100).map(Duration::from_millis).collect()).expect("there are times");
        assert_eq!((latency.median_us, latency.p99_us), (50_000.0, 99_000.0));
    }
}
