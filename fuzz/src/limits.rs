//! Limits of every size: those that pass their check make an endpoint, the others are refused by name.

use std::time::Duration;

use kwik_core::__test_exports::inside::Input;
use kwik_core::limits::Extreme;
use kwik_core::{Endpoint, EndpointConfig, Limits};
use kwik_sim::World;

const EXTREMES: [Extreme; 7] =
    [Extreme::Zero, Extreme::One, Extreme::Small, Extreme::Least, Extreme::Most, Extreme::Huge, Extreme::Max];

pub(crate) fn limits(input: &mut Input<'_>) {
    let mut limits = Limits::default();
    let names: Vec<_> = limits.fields_mut().into_iter().map(|(name, _)| name).collect();
    while !input.is_empty() {
        let (_, field) = limits.fields_mut().swap_remove(usize::from(input.byte()) % names.len());
        field.set(EXTREMES[usize::from(input.byte()) % EXTREMES.len()]);
    }
    let mut config = EndpointConfig::new([1; 32], Duration::from_secs(1_800_000_000));
    config.limits = limits.clone();
    let made = Endpoint::new(config, World::new(1).now());
    match limits.check() {
        Ok(()) => assert!(made.is_ok()),
        Err(error) => {
            assert!(names.contains(&error.limit), "{} is no limit", error.limit);
            assert!(made.is_err());
        }
    }
}
