use std::time::Duration;

use serde_json::Value;

use super::{Ending, Summary, html, qlog, write_html, write_qlog};
use crate::apps::bulk::Bulk;
use crate::disturbance::{Disturbance, RestartState};
use crate::link::Link;
use crate::node::NodeId;
use crate::swarm::{self, Options};
use crate::trace::{Delivery, Trace, TraceKind};
use crate::world::{World, WorldConfig};

const CLIENT: NodeId = NodeId(0);
const SERVER: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn path(session: u64, path: u32, server: NodeId, state: &str, bytes: u64) -> TraceKind {
    TraceKind::Path { session, path, server: Some(server), state: state.into(), bytes, rtt: ms(20) }
}

fn supplied(session: u64, stream: u64, start: u64, end: u64, path: u32) -> TraceKind {
    TraceKind::Supplied { session, stream, start, end, path }
}

/// Two sessions, three paths, three streams, a disturbance of every sort.
fn trace() -> Trace {
    let mut trace = Trace::default();
    trace.keep(1000);
    let mut push = |at, node, kind| trace.push(ms(at), node, kind);
    push(0, CLIENT, path(0, 0, SERVER, "Connecting", 0));
    push(10, CLIENT, path(0, 0, SERVER, "Active", 0));
    push(12, CLIENT, path(0, 1, OTHER, "Active", 0));
    push(20, CLIENT, TraceKind::Sent { to: SERVER, bytes: 1200, delivery: Delivery::Arrives });
    push(21, CLIENT, TraceKind::Sent { to: OTHER, bytes: 1200, delivery: Delivery::Blocked });
    push(30, SERVER, TraceKind::Arrived { from: CLIENT, bytes: 1200 });
    push(40, CLIENT, supplied(0, 0, 0, 1_000, 0));
    push(41, CLIENT, supplied(0, 0, 2_000, 3_000, 1));
    push(42, CLIENT, supplied(0, 0, 1_000, 2_000, 0));
    push(43, CLIENT, supplied(0, 7, 0, 100_000, 1));
    push(50, CLIENT, path(0, 0, SERVER, "Suspect", 2_000));
    let disturbances = [
        Disturbance::Link { from: OTHER, to: CLIENT, link: Link::with_rate(2_000_000, ms(5)) },
        Disturbance::Blackhole { from: SERVER, to: CLIENT },
        Disturbance::Blackhole { from: CLIENT, to: SERVER },
        Disturbance::Pause { node: OTHER, span: ms(10) },
        Disturbance::Crash { node: CLIENT },
        Disturbance::Restart { node: CLIENT, state: RestartState::Lost },
        Disturbance::HealAll,
    ];
    for disturbance in disturbances {
        push(60, CLIENT, TraceKind::Disturbance { disturbance: Box::new(disturbance) });
    }
    push(70, CLIENT, path(0, 0, SERVER, "Active", 0));
    push(80, CLIENT, supplied(0, 4, 0, 10, 0));
    push(90, SERVER, TraceKind::Session { session: 0, text: "Closed(<script>alert(\"1\")</script>)".into() });
    push(91, SERVER, TraceKind::Note { text: "a note & more".into() });
    trace
}

fn summary() -> Summary {
    Summary {
        seed: 42,
        options: vec![("byzantine".into(), "<b>none</b>".into())],
        details: "two\nlines".into(),
        nodes: vec!["client".into(), "server <1>".into()],
        outcome: Ending::Failed(vec!["a < b".into()]),
        duration: ms(100),
    }
}

#[test]
fn every_path_and_stream_has_a_lane() {
    let page = html(&trace(), &summary());
    for path in ["n0/0/0/0", "n0/0/0/1", "n0/1/0/0"] {
        assert_eq!(page.matches(&format!("data-path=\"{path}\"")).count(), 1, "path {path}");
    }
    for stream in ["n0/0/0/0", "n0/0/0/7", "n0/1/0/4"] {
        assert_eq!(page.matches(&format!("data-stream=\"{stream}\"")).count(), 1, "stream {stream}");
    }
    assert_eq!(page.matches("class=\"lane path\"").count(), 3);
    assert_eq!(page.matches("class=\"lane stream\"").count(), 3);
}

#[test]
fn page_says_what_was_run_and_how_it_ended() {
    let trace = trace();
    let page = html(&trace, &summary());
    for text in ["Seed 42", "failed", "a &lt; b", "100 ms", "two\nlines", &format!("{:016x}", trace.hash())] {
        assert!(page.contains(text), "{text}");
    }
    assert!(page.contains("path 0: Suspect, 0.050 s to 0.100 s"));
    assert!(page.contains("66.7 % path 0 n1 server"));
    assert!(page.contains("33.3 % path 1"));
}

#[test]
fn two_directions_of_a_fault_are_one_mark() {
    let page = html(&trace(), &summary());
    assert_eq!(page.matches("<span>n0 ↔ n1 blackhole</span>").count(), 1);
    for text in ["n2 → n0 link 2.00 Mbit/s, 5 ms", "n2 pause of 10 ms", "n0 crash", "all heal"] {
        assert_eq!(page.matches(&format!("<span>{text}</span>")).count(), 1, "{text}");
    }
}

#[test]
fn no_text_of_a_run_is_markup() {
    let page = html(&trace(), &summary());
    assert!(!page.contains("<script>alert"));
    assert!(page.contains("Closed(&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;)"));
    assert!(!page.contains("<b>none") && page.contains("&lt;b&gt;none"));
    assert!(!page.contains("server <1>") && page.contains("server &lt;1&gt;"));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn page_needs_nothing_else() {
    let page = html(&trace(), &summary());
    for outside in ["http:", "https:", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Every element that is opened is closed, in order.
#[test]
fn elements_are_nested() {
    for page in [html(&trace(), &summary()), html(&Trace::default(), &Summary::default())] {
        let body = page.split_once("<body>").and_then(|(_, rest)| rest.split_once("<script>")).map(|parts| parts.0);
        let mut open: Vec<&str> = Vec::new();
        for tag in body.unwrap().split('<').skip(1) {
            let tag = tag.split_once('>').unwrap().0;
            let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
            } else if !tag.ends_with('/') && !["input", "br"].contains(&name) {
                open.push(name);
            }
        }
        assert_eq!(open, [""; 0], "left open");
    }
}

#[test]
fn dropped_events_are_told() {
    let mut trace = trace();
    assert!(!html(&trace, &summary()).contains("were not kept"));
    trace.keep(4);
    assert!(html(&trace, &summary()).contains("were not kept"));
}

fn records(text: &str) -> Vec<Value> {
    let mut records = text.split('\u{1e}');
    assert_eq!(records.next(), Some(""));
    records.map(|record| serde_json::from_str(record.strip_suffix('\n').unwrap()).unwrap()).collect()
}

#[test]
fn every_event_of_a_node_is_a_qlog_record() {
    let trace = trace();
    for (node, kind) in [(CLIENT, "client"), (SERVER, "server")] {
        let records = records(&qlog(&trace, &summary(), node));
        assert_eq!(records[0]["qlog_version"], "0.3");
        assert_eq!(records[0]["qlog_format"], "JSON-SEQ");
        assert_eq!(records[0]["trace"]["vantage_point"]["type"], kind);
        let events: Vec<_> = trace.events().filter(|event| event.node == node).collect();
        assert_eq!(records.len(), events.len() + 1);
        for (record, event) in records[1..].iter().zip(events) {
            assert_eq!(record["time"].as_f64(), Some(event.at.as_secs_f64() * 1e3));
            assert!(record["name"].as_str().unwrap().contains(':') && record["data"].is_object());
        }
    }
    let client = records(&qlog(&trace, &summary(), CLIENT));
    let named = |name: &str| client.iter().filter(|record| record["name"] == name).count();
    assert_eq!(named("kwik:path_state"), 5);
    assert_eq!(named("kwik:supplied"), 5);
    assert_eq!(named("kwik:disturbance"), 7);
    assert_eq!(named("transport:datagrams_sent"), 2);
}

/// A download with a little loss.
fn run(sample: Option<Duration>) -> World {
    let mut config = WorldConfig::new(5);
    config.sample_paths = sample;
    let link = Link { loss: 0.02, ..Link::with_rate(20_000_000, ms(10)) };
    let mut download = Bulk::new(config, BYTES, &[link]);
    download.fleet.world.trace_mut().keep(100_000);
    assert!(download.run(ms(60_000)));
    download.fleet.world
}

const BYTES: u64 = 200_000;

#[test]
fn being_watched_changes_nothing() {
    let (watched, alone) = (run(Some(ms(7))), run(None));
    assert_eq!(watched.trace().hash(), alone.trace().hash());
    assert_eq!(watched.elapsed(), alone.elapsed());
    assert!(watched.trace().events().any(|event| event.kind.is_observation()));
    assert!(!alone.trace().events().any(|event| event.kind.is_observation()));
}

#[test]
fn watched_swarm_worlds_are_the_same() {
    for seed in 0..4 {
        let options = Options::from_seed(seed);
        let hash = |sample| swarm::run(&options, 0, sample, |_, _| {}).hash;
        assert_eq!(hash(Some(ms(50))), hash(None), "seed {seed}");
    }
}

#[test]
fn world_tells_who_supplied_every_byte() {
    let world = run(Some(ms(20)));
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for event in world.trace().events() {
        if let TraceKind::Supplied { start, end, path, .. } = event.kind {
            assert_eq!((event.node, path), (CLIENT, 0));
            ranges.push((start, end));
        }
    }
    ranges.sort_unstable();
    let end = ranges.iter().fold(0, |at, (start, end)| {
        assert_eq!(*start, at, "each byte once");
        *end
    });
    assert_eq!(end, BYTES);
    let states: Vec<_> = world
        .trace()
        .events()
        .filter_map(|event| match &event.kind {
            TraceKind::Path { state, server, .. } => Some((state.as_str(), *server)),
            _ => None,
        })
        .collect();
    for state in ["Connecting", "Authenticating", "Active"] {
        assert!(states.contains(&(state, Some(SERVER))), "{state}");
    }
}

#[test]
fn files_are_written() {
    let directory = std::env::temp_dir().join(format!("kwik-report-{}", std::process::id()));
    let trace = trace();
    let files = write_qlog(&trace, &summary(), &directory).unwrap();
    assert_eq!(files, ["n0.sqlog", "n1.sqlog"].map(|name| directory.join(name)));
    let page = directory.join("report.html");
    write_html(&trace, &summary(), &page).unwrap();
    assert_eq!(std::fs::read_to_string(page).unwrap(), html(&trace, &summary()));
    std::fs::remove_dir_all(directory).unwrap();
}
