//! The policy that adapts itself: every source is kept as far ahead as it can deliver, in ranges by its rate, and what it
//! does not deliver when others would is taken back.

use std::time::Duration;

use super::meter::{bytes_in, time_for};
use super::policy::{Assignment, HeldRange, Policy, SourceView, View};

/// In which order the client's application reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadOrder {
    /// From the first byte to the last.
    #[default]
    Ordered,
    /// Whatever is there ([`read_unordered`](crate::StreamMut::read_unordered)).
    Unordered,
}

/// Keeps every source about as far ahead as its rate and its control loop ask for; takes back what comes too late.
#[derive(Debug, Default)]
pub struct Adaptive {
    order: ReadOrder,
}

const KIB: u64 = 1024;
const MILLISECOND: Duration = Duration::from_millis(1);

impl Adaptive {
    /// What a source owes beyond what its control loop holds, besides two ranges whose arrival may not be known yet.
    const SPARE_TIME: Duration = Duration::from_millis(60);
    /// A range takes its source about so long.
    const RANGE_TIME: Duration = Duration::from_millis(25);
    const RANGE_BYTES: std::ops::RangeInclusive<u64> = 32 * KIB..=KIB * KIB;
    /// The same for the primary, which hands its bytes to QUIC piece by piece.
    const OWN_RANGE_TIME: Duration = Duration::from_millis(10);
    const OWN_RANGE_BYTES: std::ops::RangeInclusive<u64> = 16 * KIB..=256 * KIB;
    /// What the primary has ready for QUIC: so much that it lasts until the next look, and twice that.
    const OWN_UNSENT_BYTES: u64 = 256 * KIB;
    const OWN_UNSENT_TIME: Duration = Duration::from_millis(40);
    /// What a source gets of which nothing is known: before its path is active, and then.
    const FIRST_BYTES: u64 = 256 * KIB;
    const JOINED_BYTES: u64 = 256 * KIB;
    /// A source that begins may deliver so many times as much by the time it hears of more.
    const START_GAIN: u64 = 3;
    /// Less is not worth a source's while, unless it is the first that is ready.
    const CRUMB_BYTES: u64 = 8 * KIB;
    /// A source that did not deliver anything after so long loses what the reader needs so soon.
    const UNPROVEN_TIME: Duration = Duration::from_millis(50);
    const NEEDED_IN: Duration = Duration::from_millis(50);
    /// Below, the primary is done before a path is active.
    const SMALL_BYTES: u64 = 512 * KIB;

    /// A policy for a client that reads in this order.
    #[must_use]
    pub fn new(order: ReadOrder) -> Self {
        Self { order }
    }

    fn range_bytes(source: &SourceView) -> u64 {
        let (time, bounds) = if source.is_own() {
            (Self::OWN_RANGE_TIME, Self::OWN_RANGE_BYTES)
        } else {
            (Self::RANGE_TIME, Self::RANGE_BYTES)
        };
        bytes_in(source.rate, time).clamp(*bounds.start(), *bounds.end())
    }

    /// Whether a source should be given more.
    fn wants(view: &View<'_>, source: &SourceView, all: u64) -> bool {
        let range = Self::range_bytes(source);
        if source.is_own() {
            // QUIC takes what the path carries, and it is not told when it did.
            let gain = if source.is_starting { Self::START_GAIN } else { 1 };
            let lasting = bytes_in(source.rate, Self::OWN_UNSENT_TIME).saturating_mul(gain);
            return source.unsent < Self::OWN_UNSENT_BYTES.max(lasting);
        }
        if source.is_on_probation {
            return source.owes == 0;
        }
        if source.rate == 0 {
            // Servers of one client are often alike.
            let known = view.sources.iter().map(|other| other.rate).max().unwrap_or(0);
            let usual = bytes_in(known, source.control_loop).clamp(Self::JOINED_BYTES, 4 * Self::JOINED_BYTES);
            // What a connection that begins delivers doubles with each round trip.
            let most = if source.is_joined { usual.max(source.delivered.saturating_mul(4)) } else { Self::FIRST_BYTES };
            // Of something small, as much as its part may be.
            return source.owes < most.min(view.total / (view.sources.len() as u64 + 1));
        }
        let gain = if source.is_starting { Self::START_GAIN } else { 1 };
        let time = source.control_loop / 4 * 5 + Self::SPARE_TIME;
        let wanted = bytes_in(source.rate, time).saturating_mul(gain).saturating_add(2 * range);
        // What a slow source is given far ahead holds up the others at the end of the window.
        let share = u128::from(view.window) * u128::from(source.rate) / u128::from(all.max(1)) / 2;
        source.owes < wanted.min(u64::try_from(share).unwrap_or(u64::MAX).max(2 * range))
    }

    /// When all that is left would have arrived, if every source did its part to the end.
    fn end(view: &View<'_>) -> Duration {
        let mut sources: Vec<(Duration, u64)> =
            view.sources.iter().filter(|source| source.rate > 0).map(|source| (source.ready_in, source.rate)).collect();
        sources.sort_unstable();
        let (mut rates, mut early, mut end) = (0u64, 0u64, Duration::MAX);
        for (ready, rate) in sources {
            if ready >= end {
                break;
            }
            rates = rates.saturating_add(rate);
            early = early.saturating_add(bytes_in(rate, ready));
            end = time_for(view.left.saturating_add(early), rates);
        }
        end
    }

    /// The same if nobody else was measured, as with something small: it is tried, since this source may never deliver.
    fn soonest_unmeasured(view: &View<'_>, held: &HeldRange) -> Option<Duration> {
        let is_idle = |source: &SourceView| if source.is_own() { source.unsent == 0 } else { source.owes == 0 };
        let others = view.sources.iter().enumerate().filter(|(index, _)| *index != held.source);
        let idle = others.filter(|(_, other)| other.is_joined && is_idle(other));
        idle.map(|(_, other)| other.ready_in.saturating_add(2 * other.control_loop)).min()
    }

    fn sum_of_rates(view: &View<'_>) -> u64 {
        view.sources.iter().map(|source| source.rate).fold(0, u64::saturating_add)
    }
}

impl Policy for Adaptive {
    fn next(&mut self, view: &View<'_>) -> Option<Assignment> {
        let (all, end) = (Self::sum_of_rates(view), Self::end(view));
        let first = view.sources.iter().map(|source| source.ready_in).min()?;
        let wants = |source: &SourceView| {
            let is_early = view.total > Self::SMALL_BYTES || source.is_joined || source.is_own();
            source.can_take && is_early && Self::wants(view, source, all)
        };
        let mut wanting: Vec<(usize, &SourceView)> =
            view.sources.iter().enumerate().filter(|(_, source)| wants(source)).collect();
        wanting.sort_by_key(|(_, source)| source.ready_in);
        wanting.into_iter().find_map(|(index, source)| {
            let range = Self::range_bytes(source);
            if source.rate == 0 {
                return Some(Assignment { source: index, bytes: range.max(64 * KIB) });
            }
            // The others would be through with the rest before.
            let most = bytes_in(source.rate, end.saturating_sub(source.ready_in));
            let is_worth = most >= Self::CRUMB_BYTES || source.ready_in <= first;
            is_worth.then_some(Assignment { source: index, bytes: range.min(most.max(Self::CRUMB_BYTES)) })
        })
    }

    fn takes_back(&mut self, view: &View<'_>, held: &HeldRange) -> bool {
        let Some(source) = view.sources.get(held.source) else { return false };
        // The soonest that another could deliver it.
        let others =
            view.sources.iter().enumerate().filter(|(index, other)| {
                *index != held.source && other.rate > 0 && (other.is_joined || other.is_own())
            });
        let sooner = others.map(|(_, other)| other.ready_in + time_for(held.missing, other.rate)).min();
        let Some(sooner) = sooner.or_else(|| Self::soonest_unmeasured(view, held)) else { return false };
        if held.is_stalled {
            return true;
        }
        if held.age < source.control_loop {
            return false;
        }
        if source.rate == 0 {
            // Nothing came of it yet: it may be out of reach.
            let is_needed = time_for(held.ahead, Self::sum_of_rates(view)) < Self::NEEDED_IN;
            let patience = if source.is_joined { held.expected } else { source.control_loop };
            return is_needed && held.age > patience / 2 * 3 + Self::UNPROVEN_TIME;
        }
        let expected = time_for(held.owed_up_to, source.rate);
        let is_sooner = expected > sooner / 4 * 5 + 30 * MILLISECOND;
        if view.left == 0 || view.is_blocked {
            return is_sooner;
        }
        let is_overdue = held.age > held.expected / 2 * 3 + 100 * MILLISECOND;
        let all = Self::sum_of_rates(view);
        let slack = (time_for(view.window, all) / 20 * 7).max(150 * MILLISECOND);
        let is_missed = self.order == ReadOrder::Unordered || expected > time_for(held.ahead, all) + slack;
        is_overdue && is_missed && is_sooner
    }
}
