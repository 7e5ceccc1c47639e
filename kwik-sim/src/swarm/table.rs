//! What a sweep reached, and what it did not.

use std::collections::BTreeMap;
use std::fmt::Write;

use kwik_core::TransportCode;

use super::disturbances::KINDS;
use super::habits::Habit;
use super::options::InvalidPath;
use crate::byzantine::{Pair, PeerRole};
use crate::checks::{Coverage, name_of};

/// Limits that the applications run into.
const LIMITS: &[&str] = &["streams", "streams of one direction", "send buffer", "grants", "raw packets", "paths"];

/// What must have come of the habits, and of what every application does.
const RESULTS: &[&str] = &[
    "all read after a long pause",
    "many streams given up at once",
    "session done beside streams given up",
    "session done with a thousand streams open",
    "session done beside a flood",
    "session done at extreme limits",
    "write of 1 byte",
    "write of 64 KiB",
    "distribute",
    "distribute: left to a secondary",
];

/// Codes that no world of a sweep can bring about, and why.
const OUT_OF_REACH: &[(TransportCode, &str)] = &[
    (TransportCode::NO_ERROR, "it tells of no error"),
    (TransportCode::INTERNAL, "a defect of the implementation"),
    (TransportCode::SLOW_PEER, "nothing gives it"),
    (
        TransportCode::UNANSWERED,
        "it takes a minute, and only a client that is at disturbance leaves a command unanswered",
    ),
    (TransportCode::ENDED_HERE, "kwik-tokio tells it to its application"),
];

/// Every count of a sweep, by kind.
#[must_use]
pub fn coverage_table(coverage: &Coverage) -> String {
    let mut text = String::new();
    for (kind, counts) in counts(coverage) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{kind}");
        for (name, count) in counts {
            let _ = writeln!(text, "  {count:>9}  {name}");
        }
    }
    text
}

/// What was never reached and could have been.
#[must_use]
pub fn coverage_gaps(coverage: &Coverage) -> Vec<String> {
    let never = |(kind, counts): (&'static str, BTreeMap<String, u64>)| {
        counts.into_iter().filter(|(_, count)| *count == 0).map(move |(name, _)| format!("{kind}: {name}"))
    };
    counts(coverage).into_iter().flat_map(never).collect()
}

/// What was reached and could have been, by kind.
fn counts(coverage: &Coverage) -> [(&'static str, BTreeMap<String, u64>); 4] {
    [
        ("disturbances", with_zeros(&coverage.disturbances, disturbance_names())),
        ("codes", with_zeros(&coverage.codes, code_names())),
        ("limits", with_zeros(&owned(&coverage.limits), LIMITS.iter().map(ToString::to_string))),
        ("work", with_zeros(&owned(&coverage.work), RESULTS.iter().map(ToString::to_string))),
    ]
}

fn disturbance_names() -> impl Iterator<Item = String> {
    let byzantines = [PeerRole::Primary, PeerRole::Secondary, PeerRole::Client, PeerRole::Joiner];
    let byzantines = byzantines.into_iter().map(|role| format!("byzantine: {role:?}"));
    let byzantines = byzantines.chain(Pair::all().into_iter().map(|pair| format!("byzantine: {pair:?}")));
    let invalid_paths = InvalidPath::ALL.into_iter().map(|invalid_path| format!("invalid path: {invalid_path:?}"));
    let habits = Habit::ALL.into_iter().map(|habit| format!("habit: {habit:?}"));
    KINDS.iter().map(|(kind, _)| (*kind).to_owned()).chain(byzantines).chain(invalid_paths).chain(habits)
}

fn code_names() -> impl Iterator<Item = String> {
    let within_reach = |code: &&TransportCode| !OUT_OF_REACH.iter().any(|(other, _)| other == *code);
    TransportCode::ALL.iter().filter(within_reach).map(|code| name_of(*code))
}

fn with_zeros(counts: &BTreeMap<String, u64>, names: impl Iterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = counts.clone();
    for name in names {
        counts.entry(name).or_default();
    }
    counts
}

fn owned(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}
