//! What congestion controllers make of links as they are, kept beside this file in `congestion.txt` so that a change is seen
//! in review. Bottlenecks carry 20 Mbit/s; flows run for 12 s, those that share for 60 s, their starts included.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kwik_core::{AckFrequency, Congestion, Limits, TransportConfig};
use kwik_sim::apps::flows::{Flow, Flows};
use kwik_sim::{Disturbance, Link, Policer, Rebind, WorldConfig};

const REWRITE: &str = "cargo test -p kwik-tests --test congestion -- --ignored";
const RATE: u64 = 20_000_000;
const CONTROLLERS: [Congestion; 3] = [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn link(rtt_ms: u64, queue_ms: u64) -> Link {
    Link { queue_time: ms(queue_ms), ..Link::with_rate(RATE, ms(rtt_ms) / 2) }
}

fn flow(congestion: Congestion) -> Flow {
    let mut transport = TransportConfig::default();
    transport.congestion = congestion;
    Flow { transport, start: Duration::ZERO, limited: None }
}

/// Flows in a world of their own, of which some figures are taken as time passes.
struct Measured(Flows);

impl Measured {
    fn new(seed: u64, link: &Link, flows: &[Flow]) -> Self {
        Self(Flows::new(WorldConfig::null_tls(seed), &Limits::default(), link, flows))
    }

    /// Mbit/s of each flow for a while.
    fn rates(&mut self, flows: usize, span: Duration) -> Vec<f64> {
        let before: Vec<u64> = (0..flows).map(|flow| self.0.bytes(flow)).collect();
        self.0.fleet.world.run_for(span);
        let rate = |flow: usize| (self.0.bytes(flow) - before[flow]) as f64 * 8e-6 / span.as_secs_f64();
        (0..flows).map(rate).collect()
    }

    /// The round trip that 95 of 100 are shorter than, in ms.
    fn rtt_95(&mut self, span: Duration) -> f64 {
        let mut rtts: Vec<Duration> = Vec::new();
        for _ in 0..span.as_millis() / 10 {
            self.0.fleet.world.run_for(ms(10));
            rtts.push(self.0.rtt(0));
        }
        rtts.sort();
        rtts[rtts.len() * 95 / 100].as_secs_f64() * 1000.0
    }

    /// Percent of the packets that found the queue full.
    fn lost(&self) -> f64 {
        let fleet = &self.0.fleet;
        let stats = fleet.world.link_stats(fleet.servers[0], fleet.client);
        100.0 * stats.queue_full as f64 / stats.sent.max(1) as f64
    }

    fn set_link(&mut self, link: &Link) {
        let (server, client) = (self.0.fleet.servers[0], self.0.fleet.client);
        self.0.fleet.world.set_link(server, client, link.clone());
    }
}

// ---- one flow

/// One line for each link and controller: Mbit/s, packets lost by the queue, round trips.
fn one_flow() -> String {
    let links: [(&str, Link); 12] = [
        ("40 ms, queue 1 ms", link(40, 1)),
        ("40 ms, queue 10 ms", link(40, 10)),
        ("40 ms, queue 400 ms", link(40, 400)),
        ("100 ms, queue 10 ms", link(100, 10)),
        ("40 ms, 0.1 % loss", Link { loss: 0.001, ..link(40, 100) }),
        ("40 ms, 1 % loss", Link { loss: 0.01, ..link(40, 100) }),
        ("40 ms, 5 % loss", Link { loss: 0.05, ..link(40, 100) }),
        ("100 ms, 5 % loss", Link { loss: 0.05, ..link(100, 100) }),
        ("10 ± 5 ms", Link { jitter: ms(10), ..link(10, 100) }),
        ("40 ms, 2 % late by 10 ms", Link { reordering: 0.02, reordering_delay: ms(10), ..link(40, 100) }),
        ("40 ms, policer 10 ms", police(25_000)),
        ("40 ms, policer 100 ms", police(250_000)),
    ];
    let mut lines = String::new();
    for (name, link) in &links {
        for congestion in CONTROLLERS {
            write_one(&mut lines, name, congestion, link, &flow(congestion));
        }
    }
    for congestion in CONTROLLERS {
        let mut thinned = flow(congestion);
        let mut asked = AckFrequency::default();
        asked.ack_eliciting_threshold = 19;
        thinned.transport.ack_frequency = Some(asked);
        write_one(&mut lines, "40 ms, 1 ACK in 20", congestion, &link(40, 100), &thinned);
    }
    lines
}

fn police(burst_bytes: u64) -> Link {
    Link { policer: Some(Policer { rate: RATE, burst_bytes }), ..Link::with_rate(10 * RATE, ms(20)) }
}

fn write_one(lines: &mut String, name: &str, congestion: Congestion, link: &Link, flow: &Flow) {
    let mut measured = Measured::new(1, link, std::slice::from_ref(flow));
    let rtt = measured.rtt_95(ms(12_000));
    let (rate, lost) = (measured.0.bytes(0) as f64 * 8e-6 / 12.0, measured.lost());
    let _ = writeln!(
        lines,
        "one: {name:24} {:8} {rate:5.1} Mbit/s {lost:5.1} % lost {rtt:4.0} ms RTT",
        format!("{congestion:?}")
    );
}

// ---- steps

/// What each second brings, in Mbit/s, after the link or the application changed.
fn steps() -> String {
    let base = link(40, 100);
    let half = Link { rate: Some(RATE / 2), ..base.clone() };
    let long = Link { delay: ms(60), ..base.clone() };
    let mut lines = String::new();
    for congestion in CONTROLLERS {
        for (name, links) in [("halves, doubles", [&half, &base]), ("40, 120, 40 ms", [&long, &base])] {
            let mut measured = Measured::new(1, &base, &[flow(congestion)]);
            measured.rates(1, ms(10_000));
            let _ = write!(lines, "steps: {name:22} {:8}", format!("{congestion:?}"));
            for link in links {
                measured.set_link(link);
                for _ in 0..6 {
                    let _ = write!(lines, " {:5.1}", measured.rates(1, ms(1000))[0]);
                }
                lines.push_str(" |");
            }
            lines.push('\n');
        }
        let mut limited = flow(congestion);
        limited.limited = Some((1_000_000, ms(10_000)));
        let mut measured = Measured::new(1, &base, &[limited]);
        measured.rates(1, ms(10_000));
        let _ = write!(lines, "steps: {:22} {:8}", "1 Mbit/s, then bulk", format!("{congestion:?}"));
        for _ in 0..4 {
            let _ = write!(lines, " {:5.1}", measured.rates(1, ms(500))[0]);
        }
        lines.push('\n');
    }
    lines
}

// ---- two flows

/// What two flows have in each 10 s, in Mbit/s.
fn shared() -> String {
    let mut lines = String::new();
    for rtt_ms in [20, 100] {
        for queue_ms in [20, 100] {
            for (second, late) in [
                (Congestion::Bbr, Duration::ZERO),
                (Congestion::Bbr, ms(10_000)),
                (Congestion::Cubic, Duration::ZERO),
                (Congestion::Cubic, ms(10_000)),
            ] {
                let flows = [flow(Congestion::Bbr), Flow { start: late, ..flow(second) }];
                let mut measured = Measured::new(1, &link(rtt_ms, queue_ms), &flows);
                let name = format!("{rtt_ms} ms, queue {queue_ms} ms, {second:?} {} s later", late.as_secs());
                let _ = write!(lines, "shared: {name:42}");
                for _ in 0..6 {
                    let rates = measured.rates(2, ms(10_000));
                    let _ = write!(lines, " {:4.1}/{:4.1}", rates[0], rates[1]);
                }
                lines.push('\n');
            }
        }
    }
    lines
}

// ---- the table

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("congestion.txt")
}

fn kept(begin: &str) -> String {
    let kept = fs::read_to_string(file()).unwrap_or_default();
    kept.lines().filter(|line| line.starts_with(begin)).fold(String::new(), |all, line| all + line + "\n")
}

fn compare(begin: &str, now: &str) {
    let kept = kept(begin);
    assert!(
        kept == now,
        "\nwas\n{kept}\nnow\n{now}\nIf that is as it should be, run `{REWRITE}` and commit what it writes.\n"
    );
}

#[test]
#[ignore = "writes the file that the others compare with"]
fn rewrite_the_table() {
    fs::write(file(), one_flow() + &steps() + &shared()).expect("the tree can be written to");
}

#[test]
fn one_flow_is_as_it_was() {
    compare("one:", &one_flow());
}

#[test]
fn steps_are_as_they_were() {
    compare("steps:", &steps());
}

#[test]
fn shares_are_as_they_were() {
    compare("shared:", &shared());
}

/// The number before a unit in the line of a link and a controller.
fn figure(link: &str, congestion: &str, unit: &str) -> f64 {
    let lines = kept("one:");
    let line = lines.lines().find(|line| line.contains(&format!(": {link} ")) && line.contains(congestion));
    let line = line.unwrap_or_else(|| panic!("no line of {link}, {congestion}"));
    let before = line.split(unit).next().and_then(|before| before.split_whitespace().last());
    before.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {unit} in {line}"))
}

/// What is promised of BBR, of the figures that the other tests keep true.
#[test]
fn bbr_fills_links_and_leaves_their_queues_short() {
    let rate = |link: &str| figure(link, "Bbr", "Mbit/s") * 1e6 / RATE as f64;
    let lost = |link: &str| figure(link, "Bbr", "% lost");
    assert!(rate("40 ms, queue 10 ms") > 0.93 && lost("40 ms, queue 10 ms") < 3.0);
    assert!(figure("40 ms, queue 400 ms", "Bbr", "ms RTT") <= 1.5 * 40.0);
    assert!(lost("40 ms, policer 10 ms") < 10.0 && lost("40 ms, policer 100 ms") < 10.0);
    assert!(rate("40 ms, 0.1 % loss") > 0.9 && rate("40 ms, 1 % loss") > 0.88 && rate("40 ms, 5 % loss") > 0.8);
}

// ---- migration

/// The controller of the new network path names no rate before its first round trip. What waited for its turn at the old
/// rate had a deadline that was past from then on, and the server ran without end.
#[test]
fn regression_paced_flow_goes_on_when_its_client_moves() {
    for congestion in CONTROLLERS {
        let mut measured = Measured::new(1, &link(40, 100), &[flow(congestion)]);
        measured.rates(1, ms(2000));
        for round in 0..10 {
            let client = measured.0.fleet.client;
            measured.0.fleet.world.inject(Disturbance::Rebind { node: client, to: Rebind::Address });
            let rate = measured.rates(1, ms(501 + round * 7))[0];
            assert!(rate > 1.0, "{congestion:?}, move {round}: {rate} Mbit/s");
        }
    }
}
