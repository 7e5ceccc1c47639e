//! How many dials a primary may make a client start (PROTOCOL.md §8).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::limits::Limits;

/// Counts dials, so that a primary cannot turn its clients into a scanner or a flood, and yet gets its servers back after
/// an outage.
///
/// What costs is a dial that nobody answers. One that succeeds costs nothing but its place among all dials, and its
/// address is dialled for free as many times as a minute allows, should its server be gone for a while.
#[derive(Debug)]
pub(crate) struct DialBudget {
    /// Every dial.
    all: LastMinute,
    /// Dials that did not succeed, to addresses without free dials.
    unanswered: LastMinute,
    /// Where dials succeeded, the latest last.
    known: VecDeque<Known>,
}

/// An address where a dial succeeded.
#[derive(Debug)]
struct Known {
    address: Address,
    free_dials: usize,
}

/// What a dial costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DialCharge {
    at: Instant,
    /// Its address answered before.
    is_free: bool,
}

impl DialBudget {
    /// Addresses remembered, for each path that a session may have.
    const KNOWN_PER_PATH: usize = 4;

    pub(crate) fn new(limits: &Limits) -> Self {
        // A session may always dial as many as it may have.
        let unanswered = limits.dials_per_minute_max.max(limits.paths_max);
        Self {
            all: LastMinute::new(unanswered.saturating_mul(limits.paths_max)),
            unanswered: LastMinute::new(unanswered),
            known: VecDeque::new(),
        }
    }

    /// What one more dial costs, if it may start; counts it if so.
    pub(crate) fn take(&mut self, now: Instant, address: Address) -> Option<DialCharge> {
        if !self.all.has_room(now) {
            return None;
        }
        let known = self.known.iter_mut().find(|known| known.address == address && known.free_dials > 0);
        let is_free = known.is_some();
        match known {
            Some(known) => known.free_dials -= 1,
            None if self.unanswered.has_room(now) => self.unanswered.dials.push_back(now),
            None => return None,
        }
        self.all.dials.push_back(now);
        Some(DialCharge { at: now, is_free })
    }

    /// The dial was not begun.
    pub(crate) fn give_back(&mut self, address: Address, charge: DialCharge) {
        self.all.forget(charge.at);
        if !charge.is_free {
            self.unanswered.forget(charge.at);
        } else if let Some(known) = self.known.iter_mut().find(|known| known.address == address) {
            known.free_dials += 1;
        }
    }

    /// The dial succeeded: the server proved to be the one that was meant.
    pub(crate) fn on_joined(&mut self, address: Address, charge: DialCharge, limits: &Limits) {
        if !charge.is_free {
            self.unanswered.forget(charge.at);
        }
        self.known.retain(|known| known.address != address);
        self.known.push_back(Known { address, free_dials: limits.dials_per_minute_max });
        if self.known.len() > limits.paths_max.saturating_mul(Self::KNOWN_PER_PATH) {
            self.known.pop_front();
        }
    }
}

/// The dials of the last minute, oldest first, and how many there may be.
#[derive(Debug)]
struct LastMinute {
    max: usize,
    dials: VecDeque<Instant>,
}

impl LastMinute {
    const MINUTE: Duration = Duration::from_secs(60);

    fn new(max: usize) -> Self {
        Self { max, dials: VecDeque::new() }
    }

    fn has_room(&mut self, now: Instant) -> bool {
        while self.dials.front().is_some_and(|at| now.saturating_duration_since(*at) >= Self::MINUTE) {
            self.dials.pop_front();
        }
        self.dials.len() < self.max
    }

    fn forget(&mut self, at: Instant) {
        if let Some(place) = self.dials.iter().position(|dial| *dial == at) {
            self.dials.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    fn address(host: u8) -> Address {
        Address::new(([198, 51, 100, host], 4433).into()).expect("a host")
    }

    fn limits() -> Limits {
        Limits { paths_max: 4, dials_per_minute_max: 8, ..Limits::default() }
    }

    // [P-8.2]
    #[test]
    fn dials_that_nobody_answers_are_few_in_every_minute() {
        let start = instant();
        let at = |second| start + Duration::from_secs(second);
        let mut budget = DialBudget::new(&limits());
        let dialled: Vec<u64> = (0..600).filter(|second| budget.take(at(*second), address(1)).is_some()).collect();
        for minute in 0..540 {
            let within = dialled.iter().filter(|second| (minute..minute + 60).contains(*second)).count();
            assert!(within <= 8, "{within} dials in the minute from second {minute}");
        }
        assert_eq!(dialled.len(), 80);
    }

    // [P-8.2]
    #[test]
    fn dials_that_succeed_cost_nothing_but_their_place_among_all() {
        let (start, limits) = (instant(), limits());
        let mut budget = DialBudget::new(&limits);
        let mut joined = 0;
        while let Some(charge) = budget.take(start, address(joined)) {
            budget.on_joined(address(joined), charge, &limits);
            joined += 1;
        }
        assert_eq!(joined, 8 * 4, "as many as all paths may dial");
        assert!(budget.known.len() <= 16);
        assert!(budget.take(start + Duration::from_secs(60), address(99)).is_some());
    }

    // [P-8.2]
    #[test]
    fn address_that_answered_is_dialled_for_free_while_it_is_gone_but_not_for_ever() {
        let (start, limits) = (instant(), limits());
        let mut budget = DialBudget::new(&limits);
        let first = budget.take(start, address(1)).expect("the first");
        budget.on_joined(address(1), first, &limits);
        let free: Vec<_> = (0..20).map_while(|_| budget.take(start, address(1))).map(|charge| charge.is_free).collect();
        assert_eq!(free, [[true; 8], [false; 8]].concat());
        assert_eq!(budget.take(start, address(2)), None);
        budget.on_joined(address(1), DialCharge { at: start, is_free: false }, &limits);
        assert!(budget.take(start, address(1)).is_some_and(|charge| charge.is_free));
        assert!(budget.take(start, address(2)).is_some_and(|charge| !charge.is_free));
    }

    // [P-8.2]
    #[test]
    fn dial_that_was_not_begun_is_given_back() {
        let (start, limits) = (instant(), limits());
        let mut budget = DialBudget::new(&limits);
        for round in 0..1_000 {
            let charge = budget.take(start, address(1)).expect("given back");
            budget.give_back(address(1), charge);
            if round == 500 {
                budget.on_joined(address(1), charge, &limits);
            }
        }
    }

    #[test]
    fn any_number_of_dials_a_minute_is_counted() {
        let start = instant();
        for (dials, paths_max, admitted) in [(0, 1, 1), (1, 16, 16), (usize::MAX, 16, 1_000)] {
            let limits = Limits { paths_max, dials_per_minute_max: dials, ..Limits::default() };
            let mut budget = DialBudget::new(&limits);
            let taken =
                |at, budget: &mut DialBudget| (0..1_000).filter(|_| budget.take(at, address(1)).is_some()).count();
            assert_eq!(taken(start, &mut budget), admitted);
            assert_eq!(taken(start + Duration::from_secs(1 << 40), &mut budget), admitted);
        }
    }
}
