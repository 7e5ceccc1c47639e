//! Processes that die, stop and come back, paths that come and go, and what of it their sessions notice.

#[path = "process_faults/impaired.rs"]
mod impaired;
#[path = "process_faults/membership.rs"]
mod membership;
#[path = "process_faults/primary.rs"]
mod primary;
#[path = "process_faults/secondary.rs"]
mod secondary;
#[path = "process_faults/suspended.rs"]
mod suspended;

use std::time::Duration;

use kwik_core::PathEvent;
use kwik_sim::Link;
use kwik_tests::transfer::{Plan, line};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Over links of 2 Mbit/s: a megabyte takes more than a second.
fn slow_plan(bytes: u64) -> Plan {
    Plan { bytes, link: Link { rate: Some(2_000_000), ..line() }, ..Plan::default() }
}

fn is_dead(event: &PathEvent) -> bool {
    matches!(event, PathEvent::Dead { .. })
}

fn is_joined(event: &PathEvent) -> bool {
    matches!(event, PathEvent::Joined(_))
}
