//! The events of a run as rows, without what datagrams do one by one.

use std::fmt::Write as _;

use super::Summary;
use super::chart::{Ms, Text};
use super::disturbances::Mark;
use crate::trace::{Trace, TraceKind};

/// Rows beyond are left out; so many a reader does not read.
const ROWS_MAX: usize = 5000;

/// What a row is about. Some are hidden until asked for.
pub(super) const SORTS: [(&str, &str, bool); 6] = [
    ("disturbance", "disturbances", true),
    ("path", "paths", true),
    ("session", "sessions", true),
    ("note", "notes", true),
    ("stream", "streams", false),
    ("loss", "lost datagrams", false),
];

/// A row, or several of one kind that follow each other.
#[derive(PartialEq, Eq)]
struct TableRow {
    sort: &'static str,
    node: usize,
    text: String,
}

/// Writes the table's rows. Returns how many were left out.
pub(super) fn rows(page: &mut String, trace: &Trace, summary: &Summary) -> usize {
    let mut states = std::collections::BTreeMap::new();
    let mut rows: Vec<(std::time::Duration, TableRow, usize)> = Vec::new();
    let mut left_out = 0;
    for event in trace.events() {
        let node = event.node.index();
        let (sort, text) = match &event.kind {
            TraceKind::Disturbance { disturbance } => {
                let marks = Mark::all(&[(event.at, (**disturbance).clone())], event.at);
                ("disturbance", marks.first().map(Mark::text).unwrap_or_default())
            }
            TraceKind::Path { session, path, server, state, .. } => {
                if states.insert((node, *session, *path), state.clone()).as_ref() == Some(state) {
                    continue;
                }
                let server = server.map(|server| format!(" to {}", summary.node_name(server.index())));
                ("path", format!("session {session}, path {path}{}: {state}", server.unwrap_or_default()))
            }
            TraceKind::Session { session, text } => {
                let sort =
                    if text.starts_with("Stream") || text.starts_with("Delegation") { "stream" } else { "session" };
                (sort, format!("session {session}: {text}"))
            }
            TraceKind::Note { text } => ("note", text.clone()),
            TraceKind::Sent { to, bytes, delivery } if delivery.is_loss() => {
                ("loss", format!("{bytes} bytes to {}: {}", summary.node_name(to.index()), delivery.name()))
            }
            TraceKind::Sent { .. } | TraceKind::Arrived { .. } | TraceKind::Supplied { .. } => continue,
        };
        let row = TableRow { sort, node, text };
        let is_full = rows.len() >= ROWS_MAX;
        match rows.last_mut() {
            Some((_, last, count)) if *last == row => *count += 1,
            _ if is_full => left_out += 1,
            _ => rows.push((event.at, row, 1)),
        }
    }
    for (at, TableRow { sort, node, text }, count) in rows {
        let times = if count > 1 { format!(" <em>×{count}</em>") } else { String::new() };
        let _ = writeln!(
            page,
            "<tr class=\"k-{sort}\" data-at=\"{}\"><td>{:.6}</td><td>{}</td><td>{sort}</td><td>{}{times}</td></tr>",
            Ms(at),
            at.as_secs_f64(),
            Text(&summary.node_name(node)),
            Text(&text),
        );
    }
    left_out
}
