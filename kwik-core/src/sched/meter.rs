//! How fast a source delivers, from what is known to have arrived.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes a second of one source. Only times in which it had enough to do say how slow it is.
#[derive(Debug)]
pub(super) struct Meter {
    /// Since when the next sample counts, and what had arrived by then.
    mark: Option<(Instant, u64)>,
    /// The same of the last sample. What a lost packet held up arrives at once when it was repeated, so that one span says
    /// too much after it said too little.
    mark_before: Option<(Instant, u64)>,
    /// The source had less to do than it could have carried, at some time since the mark.
    was_starved: bool,
    /// What was measured last; of times in which it was starved, only what was more than all before.
    samples: VecDeque<u64>,
    rate: u64,
    is_starting: bool,
    /// Samples in a row that were hardly more than the largest before.
    flat: u32,
    /// Samples in a row that were far less.
    low: u32,
}

impl Meter {
    /// A sample takes that long at least, and a control loop at least.
    const SPAN_MIN: Duration = Duration::from_millis(100);
    /// Samples that count: the largest of them is the rate.
    const SAMPLES: usize = 8;
    /// So many samples in a row that do not grow end the start.
    const FLAT: u32 = 2;
    /// So many low samples in a row are believed.
    const LOW: u32 = 3;

    pub(super) fn new() -> Self {
        Self {
            mark: None,
            mark_before: None,
            was_starved: false,
            samples: VecDeque::new(),
            rate: 0,
            is_starting: true,
            flat: 0,
            low: 0,
        }
    }

    /// Bytes a second; 0 as long as nothing was measured.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether more may soon come, since it is not known how much the source can carry.
    pub(super) fn is_starting(&self) -> bool {
        self.is_starting
    }

    /// The source has less to do than it could carry.
    pub(super) fn on_starved(&mut self) {
        self.was_starved = true;
    }

    /// The source has work after a pause: what it brings counts from now on.
    pub(super) fn restart(&mut self, now: Instant, total: u64) {
        (self.mark, self.mark_before) = (Some((now, total)), None);
        self.was_starved = false;
    }

    /// `total` bytes have arrived by now. Returns the sample, if there is one of a time in which it was not starved.
    pub(super) fn on_delivered(&mut self, now: Instant, total: u64, control_loop: Duration) -> Option<u64> {
        let Some((since, before)) = self.mark else {
            self.restart(now, total);
            return None;
        };
        let span = now.saturating_duration_since(since);
        if span < Self::SPAN_MIN.max(control_loop) {
            return None;
        }
        let (long_since, long_before) = self.mark_before.unwrap_or((since, before));
        let span = now.saturating_duration_since(long_since);
        let sample = per_second(total.saturating_sub(long_before), span);
        let was_starved = self.was_starved;
        (self.mark, self.mark_before) = (Some((now, total)), Some((since, before)));
        self.was_starved = false;
        self.on_sample(sample, was_starved);
        (!was_starved).then_some(sample)
    }

    fn on_sample(&mut self, sample: u64, was_starved: bool) {
        if self.is_starting {
            if sample >= self.rate / 20 * 23 {
                self.flat = 0;
            } else if !was_starved {
                self.flat += 1;
            }
            self.is_starting = self.flat < Self::FLAT;
        }
        if was_starved && sample <= self.rate {
            return;
        }
        let is_low = sample < self.rate / 5 * 4;
        self.low = if is_low { self.low + 1 } else { 0 };
        self.samples.push_back(sample);
        let kept = if self.low >= Self::LOW { Self::LOW as usize } else { Self::SAMPLES };
        while self.samples.len() > kept {
            self.samples.pop_front();
        }
        self.rate = self.samples.iter().copied().max().unwrap_or(sample);
    }

    /// The source brings no more than `rate` now, whatever it brought before. It may grow from there, by what it is given
    /// beyond that.
    pub(super) fn collapse(&mut self, rate: u64) {
        self.samples.clear();
        self.samples.push_back(rate);
        (self.rate, self.is_starting, self.flat, self.low) = (rate, false, 0, 0);
    }
}

/// What came in a time, by second.
pub(super) fn per_second(bytes: u64, time: Duration) -> u64 {
    bytes.saturating_mul(1_000_000) / micros(time).max(1)
}

/// What comes at a rate in a time.
pub(super) fn bytes_in(bytes_per_second: u64, time: Duration) -> u64 {
    let bytes = u128::from(bytes_per_second) * u128::from(micros(time)) / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// How long so many bytes take at a rate. Nothing takes longer than an hour.
pub(super) fn time_for(bytes: u64, bytes_per_second: u64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(3600);
    let micros = u128::from(bytes) * 1_000_000 / u128::from(bytes_per_second.max(1));
    u64::try_from(micros).map_or(LONGEST, Duration::from_micros).min(LONGEST)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    const LOOP: Duration = Duration::from_millis(50);

    /// Delivers at each of the rates for 100 ms.
    fn deliver(meter: &mut Meter, clock: &mut (Instant, u64), rates: &[u64], is_starved: bool) {
        for rate in rates {
            clock.0 += Duration::from_millis(100);
            clock.1 += rate / 10;
            if is_starved {
                meter.on_starved();
            }
            meter.on_delivered(clock.0, clock.1, LOOP);
        }
    }

    fn started() -> (Meter, (Instant, u64)) {
        let (mut meter, mut clock) = (Meter::new(), (instant(), 0));
        meter.restart(clock.0, 0);
        deliver(&mut meter, &mut clock, &[1000, 2000, 4000, 4000, 4000, 4000], false);
        (meter, clock)
    }

    #[test]
    fn start_ends_when_nothing_grows() {
        let (mut meter, mut clock) = (Meter::new(), (instant(), 0));
        meter.restart(clock.0, 0);
        deliver(&mut meter, &mut clock, &[1000, 2000, 4000, 4000, 4000], false);
        assert!(meter.is_starting() && meter.rate() == 4000);
        deliver(&mut meter, &mut clock, &[4000], false);
        assert!(!meter.is_starting());
    }

    #[test]
    fn source_that_was_starved_is_not_slow() {
        let (mut meter, mut clock) = started();
        deliver(&mut meter, &mut clock, &[100; 20], true);
        assert_eq!(meter.rate(), 4000);
        deliver(&mut meter, &mut clock, &[5000, 5000], true);
        assert_eq!(meter.rate(), 5000, "more than was known");
    }

    #[test]
    fn few_low_samples_are_an_accident_and_three_are_not() {
        let (mut meter, mut clock) = started();
        deliver(&mut meter, &mut clock, &[1000, 1500], false);
        assert_eq!(meter.rate(), 4000);
        deliver(&mut meter, &mut clock, &[1200, 1200], false);
        assert_eq!(meter.rate(), 1350);
    }

    #[test]
    fn what_was_held_up_and_arrives_at_once_is_no_higher_rate() {
        let (mut meter, mut clock) = started();
        deliver(&mut meter, &mut clock, &[0, 8000, 4000], false);
        assert!((4000..=6000).contains(&meter.rate()), "{}", meter.rate());
    }

    #[test]
    fn times_and_bytes_of_any_size_are_counted() {
        assert_eq!(bytes_in(u64::MAX, Duration::from_secs(2)), u64::MAX);
        assert_eq!(time_for(u64::MAX, 0), Duration::from_secs(3600));
        assert_eq!((bytes_in(1000, LOOP), time_for(50, 1000)), (50, LOOP));
        assert_eq!(per_second(u64::MAX, Duration::ZERO), u64::MAX);
    }
}
