//! What a run reached: disturbances, error codes and limits.

use std::collections::BTreeMap;

use kwik_core::{ErrorCode, TransportCode};

/// How often each thing was reached.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Disturbances by kind.
    pub disturbances: BTreeMap<String, u64>,
    /// Codes that some application was notified of.
    pub codes: BTreeMap<String, u64>,
    /// Limits that made something wait or be refused.
    pub limits: BTreeMap<&'static str, u64>,
    /// What the applications did.
    pub work: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// A disturbance took effect.
    pub fn disturbance(&mut self, kind: &str) {
        *self.disturbances.entry(kind.to_owned()).or_default() += 1;
    }

    /// An application was notified of a code.
    pub fn code(&mut self, code: ErrorCode) {
        let name = match code {
            ErrorCode::Application(_) => "APPLICATION".to_owned(),
            ErrorCode::Transport(code) => name_of(code),
        };
        *self.codes.entry(name).or_default() += 1;
    }

    /// A limit was reached.
    pub fn limit(&mut self, name: &'static str) {
        *self.limits.entry(name).or_default() += 1;
    }

    /// An application did something worth counting.
    pub fn work(&mut self, name: &'static str) {
        *self.work.entry(name).or_default() += 1;
    }

    /// Adds what another run reached.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.disturbances, &other.disturbances);
        add(&mut self.codes, &other.codes);
        add(&mut self.limits, &other.limits);
        add(&mut self.work, &other.work);
    }
}

/// The short name of a code.
pub(crate) fn name_of(code: TransportCode) -> String {
    let text = code.to_string();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn add<K: Ord + Clone>(sums: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sums.entry(key.clone()).or_default() += count;
    }
}
