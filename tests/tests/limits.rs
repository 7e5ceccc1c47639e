//! Every configuration that passes its check works: nothing panics, spins or waits for ever, whoever is configured so. Every
//! other is refused by name.

#[path = "limits/scenario.rs"]
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kwik_core::limits::Extreme;
use kwik_core::{AckFrequency, Congestion, Limits, TransportConfig};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use scenario::{EndConfig, Wishes, play};

/// Which ends have unusual limits: all of them, or one that meets others with the default.
const WHO: [[bool; 3]; 4] = [[true; 3], [true, false, false], [false, true, false], [false, false, true]];

fn try_out(ends: &[EndConfig; 3], wishes: Wishes) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| play(ends, wishes)))
        .unwrap_or_else(|panic| Err(format!("PANIC {:?}", panic.downcast_ref::<String>())))
}

#[test]
fn every_limit_at_every_extreme_is_refused_by_its_name_or_works() {
    let only = std::env::var("KWIK_LIMIT").ok();
    let mut failures = Vec::new();
    for index in 0..Limits::default().fields_mut().len() {
        for extreme in Extreme::ALL {
            let mut limits = Limits::default();
            let (name, field) = limits.fields_mut().swap_remove(index);
            if only.as_ref().is_some_and(|only| only != name) {
                continue;
            }
            field.set(extreme);
            // What breaks a rule about two limits is named after one of them.
            if limits.check().is_err() {
                continue;
            }
            for who in WHO {
                let end = |is_extreme: bool| EndConfig {
                    limits: if is_extreme { limits.clone() } else { Limits::default() },
                    ..EndConfig::default()
                };
                if let Err(failure) = try_out(&who.map(end), Wishes::default()) {
                    failures.push(format!("{name} {extreme:?} at {who:?}: {failure}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// What is drawn for one end: for each limit its place in [`Extreme::ALL`], or none for the default; and the rest.
type Drawn = (Vec<Option<usize>>, TransportConfig);

/// Limits as drawn, but for those that are refused: they, and if need be what they contradict, are the default.
fn limits_of(drawn: &[Option<usize>]) -> Limits {
    let mut drawn = drawn.to_vec();
    loop {
        let mut limits = Limits::default();
        for ((_, field), place) in limits.fields_mut().into_iter().zip(&drawn) {
            if let Some(place) = place {
                field.set(Extreme::ALL[*place]);
            }
        }
        let Err(error) = limits.check() else { return limits };
        let named = Limits::default().fields_mut().iter().position(|(name, _)| *name == error.limit);
        let named = named.unwrap_or_else(|| panic!("{error} names no limit"));
        // One that is the default already contradicts another, which is not told: any may go.
        let guilty = if drawn[named].is_some() { Some(named) } else { drawn.iter().position(Option::is_some) };
        drawn[guilty.unwrap_or_else(|| panic!("the default is refused: {error}"))] = None;
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let places = prop::option::weighted(0.3, 0..Extreme::ALL.len());
    (prop::collection::vec(places, Limits::default().fields_mut().len()), transport())
}

/// Settings of QUIC, at the bounds of what is accepted.
fn transport() -> impl Strategy<Value = TransportConfig> {
    let millis = Duration::from_millis;
    let congestion = prop_oneof![Just(Congestion::Cubic), Just(Congestion::NewReno), Just(Congestion::Bbr)];
    let mtu_max = prop_oneof![Just(1452), Just(1452), Just(1200), Just(1201), Just(9000), Just(65_527)];
    let rtt = prop_oneof![Just(millis(333)), Just(millis(1)), Just(millis(10_000))];
    let least = (0, millis(1), 0);
    let asked = prop::option::of(prop_oneof![Just(least), Just((u32::MAX, millis(16_000), u32::MAX))]);
    (congestion, mtu_max, any::<bool>(), rtt, asked).prop_map(
        |(congestion, mtu_max, is_initial, rtt_initial, asked)| {
            let mut transport = TransportConfig::default();
            (transport.congestion, transport.mtu_max, transport.rtt_initial) = (congestion, Some(mtu_max), rtt_initial);
            if is_initial {
                transport.mtu_initial = Some(mtu_max);
            }
            transport.ack_frequency = asked.map(|(packets, delay, reordering)| {
                let mut asked = AckFrequency::default();
                (asked.ack_eliciting_threshold, asked.reordering_threshold) = (packets, reordering);
                asked.max_ack_delay = Some(delay);
                asked
            });
            assert_eq!(transport.check(), Ok(()));
            transport
        },
    )
}

/// Configurations that are tried, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 128;

fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases: asked.unwrap_or(CASES), rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn configurations_that_pass_their_check_work(
        client in drawn(),
        primary in drawn(),
        secondary in drawn(),
        priority in prop_oneof![Just(0), Just(i32::MIN), Just(i32::MAX)],
        code in prop_oneof![Just(0), Just(u32::MAX)],
    ) {
        let end = |(places, transport): Drawn| EndConfig { limits: limits_of(&places), transport };
        let ends = [client, primary, secondary].map(end);
        let outcome = try_out(&ends, Wishes { priority, code });
        prop_assert!(outcome.is_ok(), "{outcome:?}");
    }
}
