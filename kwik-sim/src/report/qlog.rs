//! A run as qlog: JSON text sequences (RFC 7464) after the main schema of qlog 0.3, one for each node.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Summary;
use super::disturbances::Mark;
use crate::node::NodeId;
use crate::trace::{Trace, TraceKind};

/// What begins a record.
const RECORD: char = '\u{1e}';

/// Writes [`qlog`] of every node that occurs in a trace to `nN.sqlog` in a directory, which is made if need be. Returns
/// the files.
///
/// # Errors
/// If a file cannot be written.
pub fn write_qlog(trace: &Trace, summary: &Summary, directory: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let nodes: BTreeSet<NodeId> = trace.events().map(|event| event.node).collect();
    let mut files = Vec::new();
    for node in nodes {
        let file = directory.join(format!("{node}.sqlog"));
        std::fs::write(&file, qlog(trace, summary, node))?;
        files.push(file);
    }
    Ok(files)
}

/// The events of one node.
#[must_use]
pub fn qlog(trace: &Trace, summary: &Summary, node: NodeId) -> String {
    let is_client = trace.events().any(|event| event.node == node && matches!(event.kind, TraceKind::Path { .. }));
    let mut text = String::new();
    let mut push = |record: Value| {
        text.push(RECORD);
        text.push_str(&record.to_string());
        text.push('\n');
    };
    push(json!({
        "qlog_version": "0.3",
        "qlog_format": "JSON-SEQ",
        "title": format!("kwik-sim, seed {}, {}", summary.seed, summary.node_name(node.index())),
        "trace": {
            "vantage_point": {
                "name": summary.node_name(node.index()),
                "type": if is_client { "client" } else { "server" },
            },
            "common_fields": {
                "time_format": "relative",
                "reference_time": 0,
                "protocol_type": ["QUIC", "KWIK"],
                "group_id": format!("{:016x}", trace.hash()),
            },
        },
    }));
    for event in trace.events().filter(|event| event.node == node) {
        let (name, data) = describe(event.at, &event.kind);
        push(json!({ "time": millis(event.at), "name": name, "data": data }));
    }
    text
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn describe(at: Duration, kind: &TraceKind) -> (&'static str, Value) {
    let datagram = |bytes: usize| json!([{ "length": bytes }]);
    match kind {
        TraceKind::Sent { to, bytes, delivery } => (
            "transport:datagrams_sent",
            json!({ "count": 1, "raw": datagram(*bytes), "to": to.to_string(), "delivery": delivery.name() }),
        ),
        TraceKind::Arrived { from, bytes } => {
            ("transport:datagrams_received", json!({ "count": 1, "raw": datagram(*bytes), "from": from.to_string() }))
        }
        TraceKind::Session { session, text } => ("kwik:session_event", json!({ "session": session, "event": text })),
        TraceKind::Disturbance { disturbance } => {
            let marks = Mark::all(&[(at, (**disturbance).clone())], at);
            let text = marks.first().map(Mark::text).unwrap_or_default();
            ("kwik:disturbance", json!({ "text": text, "disturbance": format!("{disturbance:?}") }))
        }
        TraceKind::Path { session, path, server, state, bytes, rtt } => (
            "kwik:path_state",
            json!({
                "session": session,
                "path": path,
                "server": server.map(|server| server.to_string()),
                "state": state,
                "bytes": bytes,
                "rtt": millis(*rtt),
            }),
        ),
        TraceKind::Supplied { session, stream, start, end, path } => {
            ("kwik:supplied", json!({ "session": session, "stream": stream, "start": start, "end": end, "path": path }))
        }
        TraceKind::Note { text } => ("kwik:note", json!({ "text": text })),
    }
}
