//! What rounds come to, as a table and as JSON.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::cli::Plan;
use crate::compare::Round;
use crate::statistics::Spread;
use crate::task::{Phases, Workload};
use crate::usage::Usage;

/// One round in figures. A figure has its unit in its name; what a workload or a library does not have is missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    pub(crate) fn of(round: &Round) -> Self {
        let mut figures = Self::default();
        let Round { task, ready, outcome, server: [server_before, server_begin, server_end] } = round;
        let is_idle = task.workload == Workload::Idle;
        let client_cpu = cpu_between(&outcome.begin, &outcome.end);
        let server_cpu = cpu_between(server_begin, server_end);
        let cpu = client_cpu.zip(server_cpu).map(|(client, server)| client + server);
        let operations = outcome.operations as f64;
        let per_gigabyte = |cpu: f64| cpu / (outcome.bytes as f64 / 1e9);
        if is_idle {
            figures.add("dial_seconds", Some(ready.dial_seconds));
        } else {
            figures.add("seconds", Some(outcome.seconds));
            figures.add("operations_per_second", Some(operations / outcome.seconds));
            figures.add("megabytes_per_second", Some(outcome.bytes as f64 / 1e6 / outcome.seconds));
        }
        figures.add("latency_median_us", outcome.latency.map(|latency| latency.median_us));
        figures.add("latency_p99_us", outcome.latency.map(|latency| latency.p99_us));
        if let Some(Phases { connect, transfer, close }) = outcome.phases {
            figures.add("connect_median_us", Some(connect.median_us));
            figures.add("transfer_median_us", Some(transfer.median_us));
            figures.add("close_median_us", Some(close.median_us));
        }
        figures.add("cpu_seconds", cpu);
        figures.add("client_cpu_seconds", client_cpu);
        figures.add("server_cpu_seconds", server_cpu);
        match task.workload {
            Workload::Bulk => {
                figures.add("sender_cpu_seconds_per_gb", server_cpu.map(per_gigabyte));
                figures.add("receiver_cpu_seconds_per_gb", client_cpu.map(per_gigabyte));
            }
            Workload::Upload => {
                figures.add("sender_cpu_seconds_per_gb", client_cpu.map(per_gigabyte));
                figures.add("receiver_cpu_seconds_per_gb", server_cpu.map(per_gigabyte));
            }
            Workload::Rr | Workload::Streams | Workload::Dial => {
                figures.add("cpu_us_per_operation", cpu.map(|cpu| cpu * 1e6 / operations));
            }
            Workload::Idle => {
                let sessions = task.sessions as f64;
                let per_session = |begin: &Usage, end: &Usage| {
                    let (begin, end) = begin.resident_bytes.zip(end.resident_bytes)?;
                    Some((end as f64 - begin as f64) / sessions)
                };
                figures.add("client_bytes_per_session", per_session(&ready.before, &outcome.begin));
                figures.add("server_bytes_per_session", per_session(server_before, server_begin));
            }
            Workload::Mixed => {}
        }
        let datagrams = outcome.datagrams.filter(|_| !is_idle);
        figures.add("datagrams_per_operation", datagrams.map(|datagrams| datagrams as f64 / operations));
        let (client_peak, server_peak) = (outcome.end.peak_bytes, server_end.peak_bytes);
        figures.add("peak_bytes", client_peak.zip(server_peak).map(|(client, server)| (client + server) as f64));
        figures.add("client_peak_bytes", client_peak.map(|bytes| bytes as f64));
        figures.add("server_peak_bytes", server_peak.map(|bytes| bytes as f64));
        figures
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn add(&mut self, name: &'static str, value: Option<f64>) {
        self.0.extend(value.filter(|value| value.is_finite()).map(|value| (name, value)));
    }
}

fn cpu_between(begin: &Usage, end: &Usage) -> Option<f64> {
    Some(end.cpu_seconds? - begin.cpu_seconds?)
}

/// The figures of KWIK and of the other library, pair by pair.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) pairs: Vec<(Figures, Figures)>,
}

impl Comparison {
    /// Every figure that some round has, in their order.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (kwik, peer) in &self.pairs {
            for (name, _) in peer.0.iter().chain(&kwik.0) {
                if !names.contains(name) {
                    names.push(name);
                }
            }
        }
        names
    }

    fn kwik(&self, name: &str) -> Option<Spread> {
        Spread::of(self.pairs.iter().filter_map(|(kwik, _)| kwik.get(name)))
    }

    fn peer(&self, name: &str) -> Option<Spread> {
        Spread::of(self.pairs.iter().filter_map(|(_, peer)| peer.get(name)))
    }

    /// KWIK's figure by the other's, of each pair. Nothing is said where the other's is zero.
    fn ratio(&self, name: &str) -> Option<Spread> {
        let pairs = self.pairs.iter().filter_map(|(kwik, peer)| kwik.get(name).zip(peer.get(name)));
        Spread::of(pairs.filter(|(_, peer)| *peer != 0.0).map(|(kwik, peer)| kwik / peer))
    }

    pub(crate) fn json(&self, plan: &Plan) -> Value {
        let figures: Map<_, _> = self
            .names()
            .into_iter()
            .map(|name| {
                let figure = json!({ "kwik": self.kwik(name), "peer": self.peer(name), "ratio": self.ratio(name) });
                (name.to_owned(), figure)
            })
            .collect();
        let task = plan.task(plan.peer);
        json!({
            "workload": plan.workload,
            "peer": plan.peer,
            "mode": plan.mode(),
            "pairs": plan.pairs,
            "threads": task.threads,
            "sessions": task.sessions,
            "bytes": task.bytes,
            "operations": task.operations,
            "message_bytes": task.message_bytes,
            "concurrency": task.concurrency,
            "ratio_time": self.ratio("seconds"),
            "ratio_cpu": self.ratio("cpu_seconds"),
            "ratio_memory": self.ratio("peak_bytes"),
            "figures": figures,
        })
    }

    pub(crate) fn table(&self, plan: &Plan) -> String {
        let peer = plan.peer.name();
        let mut table =
            format!("{:<28} {:>12} {peer:>12}   {:>6}  quartiles and extremes\n", "median", "kwik", "ratio");
        for name in self.names() {
            let show = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| figure(spread.median));
            let ratio = self.ratio(name).map_or_else(String::new, |ratio| {
                let Spread { median, quartile_low, quartile_high, min, max } = ratio;
                format!("{median:>6.3}  {quartile_low:.3}..{quartile_high:.3} ({min:.3}..{max:.3})")
            });
            let (kwik, peer) = (show(self.kwik(name)), show(self.peer(name)));
            let line = format!("{name:<28} {kwik:>12} {peer:>12}   {ratio}");
            // Writing to a string does not fail.
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }
}

/// With about four digits that count.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 1000.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 4,
    };
    format!("{value:.digits$}")
}
