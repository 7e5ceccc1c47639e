//! How many dials a primary may make a client start (PROTOCOL.md §8).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::allowance::Allowance;
use crate::limits::Limits;

/// Counts dials, so that a primary cannot turn its clients into a scanner or a flood, and yet gets its servers back after
/// an outage.
///
/// What costs is a dial that nobody answers. One that succeeds costs nothing but its place among all dials, and its
/// address is dialled for free as many times as a minute allows, should its server be gone for a while.
#[derive(Debug)]
pub(crate) struct DialBudget {
    /// Every dial.
    all: Allowance,
    /// Dials that did not succeed, to addresses without free dials.
    unanswered: Allowance,
    /// Where dials succeeded, the latest last.
    known: VecDeque<Known>,
}

/// An address where a dial succeeded.
#[derive(Debug)]
struct Known {
    address: Address,
    free_dials: usize,
}

/// What paid for a dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fare {
    /// Its address, which answered before.
    Known,
    /// The allowance for dials that nobody may answer.
    Unanswered,
}

impl DialBudget {
    /// Addresses remembered, for each path that a session may have.
    const KNOWN_PER_PATH: usize = 4;

    pub(crate) fn new(now: Instant, limits: &Limits) -> Self {
        // A session may always dial as many as it may have.
        let unanswered = limits.dials_per_minute_max.max(limits.paths_max);
        let each_minute = |dials: usize| Allowance::over(now, dials as u64, dials as u64, Duration::from_secs(60));
        Self {
            all: each_minute(unanswered.saturating_mul(limits.paths_max)),
            unanswered: each_minute(unanswered),
            known: VecDeque::new(),
        }
    }

    /// Whether one more dial may start; counts it if so.
    pub(crate) fn take(&mut self, now: Instant, address: Address) -> Option<Fare> {
        if !self.all.take(now) {
            return None;
        }
        let known = self.known.iter_mut().find(|known| known.address == address && known.free_dials > 0);
        if let Some(known) = known {
            known.free_dials -= 1;
            return Some(Fare::Known);
        }
        let fare = self.unanswered.take(now).then_some(Fare::Unanswered);
        if fare.is_none() {
            self.all.give_back(1);
        }
        fare
    }

    /// The dial was not begun.
    pub(crate) fn give_back(&mut self, address: Address, fare: Fare) {
        self.all.give_back(1);
        match fare {
            Fare::Unanswered => self.unanswered.give_back(1),
            Fare::Known => {
                if let Some(known) = self.known.iter_mut().find(|known| known.address == address) {
                    known.free_dials += 1;
                }
            }
        }
    }

    /// The dial succeeded: the server proved to be the one that was meant.
    pub(crate) fn on_joined(&mut self, address: Address, fare: Fare, limits: &Limits) {
        if fare == Fare::Unanswered {
            self.unanswered.give_back(1);
        }
        self.known.retain(|known| known.address != address);
        self.known.push_back(Known { address, free_dials: limits.dials_per_minute_max });
        if self.known.len() > limits.paths_max.saturating_mul(Self::KNOWN_PER_PATH) {
            self.known.pop_front();
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
    fn dials_that_nobody_answers_are_few_and_come_back_one_by_one() {
        let start = instant();
        let at = |ms| start + Duration::from_millis(ms);
        let mut budget = DialBudget::new(start, &limits());
        assert_eq!((0..20).filter(|_| budget.take(start, address(1)).is_some()).count(), 8);
        assert_eq!(budget.take(at(7_499), address(2)), None);
        assert_eq!(budget.take(at(7_500), address(2)), Some(Fare::Unanswered));
        assert_eq!(budget.take(at(14_999), address(2)), None, "half a token was counted as one");
        let in_an_hour = (0..3_600).filter(|second| budget.take(at(15_000 + second * 1_000), address(1)).is_some());
        assert_eq!(in_an_hour.count(), 480);
    }

    // [P-8.2]
    #[test]
    fn dials_that_succeed_cost_nothing_but_their_place_among_all() {
        let (start, limits) = (instant(), limits());
        let mut budget = DialBudget::new(start, &limits);
        let joined = (0..100).take_while(|host| {
            let fare = budget.take(start, address(*host));
            fare.is_some_and(|fare| {
                budget.on_joined(address(*host), fare, &limits);
                true
            })
        });
        assert_eq!(joined.count(), 8 * 4, "as many as all paths may dial");
        assert!(budget.known.len() <= 16);
    }

    // [P-8.2]
    #[test]
    fn address_that_answered_is_dialled_for_free_while_it_is_gone_but_not_for_ever() {
        let (start, limits) = (instant(), limits());
        let mut budget = DialBudget::new(start, &limits);
        let fare = budget.take(start, address(1)).expect("the first");
        budget.on_joined(address(1), fare, &limits);
        let fares: Vec<_> = (0..20).map_while(|_| budget.take(start, address(1))).collect();
        assert_eq!(fares, [[Fare::Known; 8], [Fare::Unanswered; 8]].concat());
        assert_eq!(budget.take(start, address(2)), None);
        budget.on_joined(address(1), Fare::Unanswered, &limits);
        assert_eq!(budget.take(start, address(1)), Some(Fare::Known));
        assert_eq!(budget.take(start, address(2)), Some(Fare::Unanswered));
    }

    // [P-8.2]
    #[test]
    fn dial_that_was_not_begun_is_given_back() {
        let start = instant();
        let mut budget = DialBudget::new(start, &limits());
        for _ in 0..1_000 {
            let fare = budget.take(start, address(1)).expect("given back");
            budget.give_back(address(1), fare);
        }
    }

    #[test]
    fn any_number_of_dials_a_minute_is_counted() {
        let start = instant();
        for (dials, paths_max, admitted) in [(0, 1, 1), (1, 16, 16), (usize::MAX, 16, 1_000)] {
            let limits = Limits { paths_max, dials_per_minute_max: dials, ..Limits::default() };
            let mut budget = DialBudget::new(start, &limits);
            let taken =
                |at, budget: &mut DialBudget| (0..1_000).filter(|_| budget.take(at, address(1)).is_some()).count();
            assert_eq!(taken(start, &mut budget), admitted);
            assert_eq!(taken(start + Duration::from_secs(1 << 40), &mut budget), admitted);
        }
    }
}
