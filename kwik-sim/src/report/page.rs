//! One page that needs nothing else: style, script and drawings are inside.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::chart::{Ms, Text, moment, percent, span, ticks};
use super::lanes::path_lanes;
use super::run::{SessionKey, TraceRun};
use super::stream::stream_lanes;
use super::table::{SORTS, rows};
use super::{Ending, Summary};
use crate::trace::{Trace, TraceKind};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const STATES: [&str; 6] = ["connecting", "authenticating", "active", "suspect", "closing", "dead"];

/// Writes [`html`] to a file.
///
/// # Errors
/// If the file cannot be written.
pub fn write_html(trace: &Trace, summary: &Summary, file: &Path) -> io::Result<()> {
    std::fs::write(file, html(trace, summary))
}

/// A page with a run's timeline: disturbances, a lane for each path and each stream, and a table of events.
#[must_use]
pub fn html(trace: &Trace, summary: &Summary) -> String {
    let run = TraceRun::new(trace, summary);
    let mut page = String::new();
    let _ = writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>kwik-sim, seed {}</title>\n<style>\n{STYLE}</style></head><body>",
        summary.seed
    );
    header(&mut page, &run, summary);
    legend(&mut page, &run);
    chart(&mut page, &run, trace, summary);
    events(&mut page, trace, summary);
    let _ = writeln!(page, "<script>\n{SCRIPT}</script></body></html>");
    page
}

fn header(page: &mut String, run: &TraceRun, summary: &Summary) {
    let (class, outcome) = match &summary.outcome {
        Ending::Unknown => ("", ""),
        Ending::Passed => ("passed", "passed"),
        Ending::Failed(_) => ("failed", "failed"),
    };
    let _ = write!(page, "<header><h1>Seed {} <span class=\"{class}\">{outcome}</span></h1>\n<dl>", summary.seed);
    let _ = write!(
        page,
        "<div><dt>virtual time</dt><dd>{}</dd></div><div><dt>trace hash</dt><dd><code>{:016x}</code></dd></div>\
         <div><dt>events</dt><dd>{}</dd></div>",
        span(run.duration),
        run.hash,
        run.events
    );
    for (name, value) in &summary.options {
        let _ = write!(page, "<div><dt>{}</dt><dd>{}</dd></div>", Text(name), Text(value));
    }
    page.push_str("</dl>\n");
    if !summary.details.is_empty() {
        page.push_str("<details><summary>all options</summary><pre>");
        for line in summary.details.lines() {
            let _ = writeln!(page, "{}", Text(line));
        }
        page.push_str("</pre></details>\n");
    }
    if let Ending::Failed(reasons) = &summary.outcome {
        page.push_str("<ul class=\"reasons\">");
        for reason in reasons {
            let _ = write!(page, "<li>{}</li>", Text(reason));
        }
        page.push_str("</ul>\n");
    }
    if run.dropped > 0 {
        let _ = writeln!(
            page,
            "<p class=\"reasons\">The first {} events were not kept and are not shown.</p>",
            run.dropped
        );
    }
    page.push_str("</header>\n");
}

fn legend(page: &mut String, run: &TraceRun) {
    page.push_str("<section class=\"legend\"><p><b>Paths</b>");
    for path in 0..=run.path_max().min(15) {
        let _ = write!(page, " <span><i class=\"dot p{}\"></i>{path}</span>", path % 8);
    }
    page.push_str("</p><p><b>States</b>");
    for state in STATES {
        let _ = write!(page, " <span><i class=\"bar s-{state}\"></i>{state}</span>");
    }
    page.push_str(
        "</p><p><b>Disturbances</b> <span><i class=\"bar f-block\"></i>nothing gets through</span> \
         <span><i class=\"bar f-node\"></i>a node is down, paused or mute</span> \
         <span><i class=\"bar f-change\"></i>something changed</span> <span><i class=\"bar f-heal\"></i>healed</span></p>\
         <p><b>Lines</b> <span><i class=\"line rtt\"></i>round trip</span> \
         <span><i class=\"line limit\"></i>rate of the link</span> <span><i class=\"bar lost\"></i>lost datagrams</span></p>\
         </section>\n",
    );
}

fn chart(page: &mut String, run: &TraceRun, trace: &Trace, summary: &Summary) {
    let _ =
        write!(page, "<section id=\"chart\" data-duration=\"{}\">\n<div class=\"over\" id=\"grid\">", Ms(run.duration));
    for at in ticks(run.duration) {
        let _ = write!(page, "<i style=\"left:{}%\"></i>", percent(at, run.duration));
    }
    page.push_str("</div>\n<div class=\"axis\"><div class=\"label\"><button id=\"whole\" hidden>whole run</button></div><div id=\"ticks\">");
    for at in ticks(run.duration) {
        let _ = write!(page, "<span style=\"left:{}%\">{}</span>", percent(at, run.duration), span(at));
    }
    page.push_str("</div></div>\n");
    disturbances(page, run);
    remarks(page, run, trace, summary);
    for (key, session) in &run.sessions {
        let SessionKey { node, life, session: number } = key;
        let again = if *life > 0 { format!(", after restart {life}") } else { String::new() };
        let end = session.closed_at.map(|at| format!(", closed at {}", moment(at))).unwrap_or_default();
        let name = summary.node_name(node.index());
        let _ = writeln!(page, "<h2>Session {number} of {}{again}{end}</h2>", Text(&name));
        path_lanes(page, run, summary, *key, session);
        stream_lanes(page, run, summary, *key, session);
    }
    page.push_str("<div class=\"over\"><div id=\"cursor\" hidden><span></span></div><div id=\"chosen\" hidden></div></div>\n</section>\n");
}

/// A lane with the name of every disturbance, in as many rows as they need.
fn disturbances(page: &mut String, run: &TraceRun) {
    const ROWS: usize = 12;
    const ROW_HEIGHT: usize = 20;
    /// About what a letter takes of the width, in percent.
    const LETTER: f64 = 0.62;
    if run.marks.is_empty() {
        return;
    }
    let mut free_from = [0.0; ROWS];
    let mut labels = String::new();
    let mut used = 1;
    for mark in &run.marks {
        let (left, end) = (percent(mark.at, run.duration).0, percent(mark.end.unwrap_or(mark.at), run.duration).0);
        let text = mark.text();
        let row = free_from.iter().position(|free| *free <= left);
        if let Some(free) = row.and_then(|row| free_from.get_mut(row)) {
            *free = end.max(left + text.chars().count() as f64 * LETTER + 1.0);
        }
        // Where there is no room for a name, pointing at it tells.
        let name = if row.is_some() { text.as_str() } else { "" };
        let row = row.unwrap_or(ROWS - 1);
        used = used.max(row + 1);
        let _ = writeln!(
            labels,
            "<div class=\"disturbance {class}\" data-at=\"{at}\" data-end=\"{end_at}\" style=\"left:{left:.3}%;width:{width:.3}%;top:{top}px\" \
             title=\"{title}, {when}\"><span>{name}</span></div>",
            class = mark.sort.class(),
            at = Ms(mark.at),
            end_at = Ms(mark.end.unwrap_or(mark.at)),
            width = end - left,
            top = row * ROW_HEIGHT,
            title = Text(&text),
            name = Text(name),
            when = duration_of(mark.at, mark.end),
        );
    }
    let _ = writeln!(
        page,
        "<div class=\"lane\"><div class=\"label\"><b>Disturbances</b></div><div class=\"strip\" style=\"height:{}px\">\n{labels}</div>\
         <div class=\"scale\"></div></div>",
        used * ROW_HEIGHT
    );
}

fn duration_of(at: Duration, end: Option<Duration>) -> String {
    end.map_or_else(|| moment(at), |end| format!("{} to {}", moment(at), moment(end)))
}

/// A lane with a tick for every note, and for every event of a session that is not about streams.
fn remarks(page: &mut String, run: &TraceRun, trace: &Trace, summary: &Summary) {
    const TICKS_MAX: usize = 1000;
    let mut ticks = String::new();
    let is_remark = |kind: &TraceKind| match kind {
        TraceKind::Note { .. } => true,
        TraceKind::Session { text, .. } => !text.starts_with("Stream") && !text.starts_with("Delegation"),
        _ => false,
    };
    for event in trace.events().filter(|event| is_remark(&event.kind)).take(TICKS_MAX) {
        let (class, text) = match &event.kind {
            TraceKind::Note { text } => ("note", text.clone()),
            TraceKind::Session { session, text } => ("told", format!("session {session}: {text}")),
            _ => continue,
        };
        let _ = writeln!(
            ticks,
            "<i class=\"{class}\" data-at=\"{}\" style=\"left:{}%\" title=\"{} {}: {}\"></i>",
            Ms(event.at),
            percent(event.at, run.duration),
            moment(event.at),
            Text(&summary.node_name(event.node.index())),
            Text(&text),
        );
    }
    let _ = writeln!(
        page,
        "<div class=\"lane\"><div class=\"label\"><b>Events</b> <span>and notes</span></div><div class=\"strip ticks\">\n{ticks}</div>\
         <div class=\"scale\"></div></div>"
    );
}

fn events(page: &mut String, trace: &Trace, summary: &Summary) {
    page.push_str("<section id=\"events\"><h2>Events</h2>\n<p class=\"filter\"><input id=\"search\" type=\"search\" placeholder=\"text to find\">");
    for (sort, name, shown) in SORTS {
        let checked = if shown { " checked" } else { "" };
        let _ = write!(page, " <label><input type=\"checkbox\" value=\"{sort}\"{checked}>{name}</label>");
    }
    page.push_str(
        " <output></output></p>\n<table><thead><tr><th>seconds</th><th>node</th><th>about</th><th>what</th></tr></thead>\n<tbody>\n",
    );
    let left_out = rows(page, trace, summary);
    page.push_str("</tbody></table>\n");
    if left_out > 0 {
        let _ = writeln!(page, "<p>{left_out} more are left out.</p>");
    }
    page.push_str("</section>\n");
}
