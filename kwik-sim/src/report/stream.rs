//! A lane for each stream: which path brought which offsets when.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use kwik_core::{Dir, Side, StreamId};

use super::Summary;
use super::chart::{Ms, Number, Text, bytes, moment};
use super::run::{SessionKey, SessionRun, Supply, TraceRun, pieces};

/// Into how many steps a lane is divided.
const STEPS: u32 = 1500;
const HIGH: f64 = 150.0;
const LOW: f64 = 34.0;
/// Streams with fewer bytes, or after this many, get low lanes.
const HIGH_BYTES: u64 = 65_536;
const HIGH_LANES: usize = 12;
/// A piece of a stream that is smaller than one in so many is not drawn on its map.
const MAP_PIECES: f64 = 600.0;

/// The lanes of a session's streams.
pub(super) fn stream_lanes(
    page: &mut String,
    run: &TraceRun,
    summary: &Summary,
    key: SessionKey,
    session: &SessionRun,
) {
    let mut high = 0;
    for (stream, supplies) in &session.streams {
        let pieces = pieces(supplies);
        let total: u64 = pieces.iter().map(|(_, range)| range.end - range.start).sum();
        let is_high = total >= HIGH_BYTES && high < HIGH_LANES;
        high += usize::from(is_high);
        let end = pieces.last().map_or(1, |(_, range)| range.end).max(1);
        let lane =
            StreamLane { run, key, session, stream: StreamId(*stream), height: if is_high { HIGH } else { LOW }, end };
        lane.label(page, summary, &pieces, total);
        lane.plot(page, supplies);
        lane.map(page, &pieces);
        page.push_str("</div>\n");
    }
}

struct StreamLane<'a> {
    run: &'a TraceRun,
    key: SessionKey,
    session: &'a SessionRun,
    stream: StreamId,
    height: f64,
    /// The offset at the top.
    end: u64,
}

/// What a path brought without a larger hole, in offsets or in time.
struct Stretch {
    path: u32,
    range: Range<u64>,
    begin: Duration,
    until: Duration,
    bytes: u64,
}

impl StreamLane<'_> {
    fn label(&self, page: &mut String, summary: &Summary, pieces: &[(u32, Range<u64>)], total: u64) {
        let SessionKey { node, life, session } = self.key;
        let shares = self.shares(summary, pieces, total);
        let opener = match self.stream.initiator() {
            Side::Client => "client's",
            Side::Server => "server's",
        };
        let ways = match self.stream.dir() {
            Dir::Bi => "two ways",
            Dir::Uni => "one way",
        };
        let _ = write!(
            page,
            "<div class=\"lane stream\" data-stream=\"{node}/{life}/{session}/{id}\"><div class=\"label\" title=\"{shares_text}\">\
             <b>stream {id}</b> \
             <span>{opener}, {ways}</span><small>{total} received",
            id = self.stream.0,
            total = bytes(total),
            shares_text = shares.values().cloned().collect::<Vec<_>>().join(", "),
        );
        for (path, share) in shares.iter().filter(|_| self.height > LOW) {
            let _ = write!(page, "<br><i class=\"dot p{}\"></i>{share}", path % 8);
        }
        page.push_str("</small></div>\n");
    }

    /// How much each path brought, as text that may stand on the page.
    fn shares(&self, summary: &Summary, pieces: &[(u32, Range<u64>)], total: u64) -> BTreeMap<u32, String> {
        let mut shares: BTreeMap<u32, u64> = BTreeMap::new();
        for (path, range) in pieces {
            *shares.entry(*path).or_default() += range.end - range.start;
        }
        let text = |path: u32, share: u64| {
            let server = self.session.paths.get(&path).and_then(|path| path.server);
            let name = server.map(|server| summary.node_name(server.index())).unwrap_or_default();
            format!("{:.1} % path {path} {}", share as f64 / total.max(1) as f64 * 100.0, Text(&name))
        };
        shares.into_iter().map(|(path, share)| (path, text(path, share))).collect()
    }

    /// Where an offset is.
    fn y(&self, offset: u64) -> f64 {
        1.0 + (self.height - 2.0) * (1.0 - offset as f64 / self.end as f64)
    }

    fn plot(&self, page: &mut String, supplies: &[Supply]) {
        let height = self.height;
        let _ = writeln!(
            page,
            "<svg class=\"plot\" viewBox=\"0 0 {} {height}\" preserveAspectRatio=\"none\" style=\"height:{height}px\">",
            Ms(self.run.duration)
        );
        for stretch in self.stretches(supplies) {
            let (top, bottom) = (self.y(stretch.range.end), self.y(stretch.range.start));
            let _ = writeln!(
                page,
                "<rect class=\"stretch p{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>path {} brought {} within {} to \
                 {}, from {} to {}</title></rect>",
                stretch.path % 8,
                Ms(stretch.begin),
                Number(top),
                Ms((stretch.until - stretch.begin).max(self.step())),
                Number((bottom - top).max(1.0)),
                stretch.path,
                bytes(stretch.bytes),
                bytes(stretch.range.start),
                bytes(stretch.range.end),
                moment(stretch.begin),
                moment(stretch.until),
            );
        }
        self.marks(page, supplies);
        page.push_str("</svg>\n");
    }

    fn step(&self) -> Duration {
        (self.run.duration / STEPS).max(Duration::from_nanos(1))
    }

    /// What came within each step, exactly: one shape for each path.
    fn marks(&self, page: &mut String, supplies: &[Supply]) {
        let step = self.step();
        let number = |at: Duration| at.as_nanos() / step.as_nanos();
        let mut shapes: BTreeMap<u32, String> = BTreeMap::new();
        for together in supplies.chunk_by(|a, b| number(a.at) == number(b.at)) {
            let Some(at) = together.first().map(|supply| number(supply.at) as f64) else { continue };
            let x = at * step.as_secs_f64() * 1e3;
            for (path, range) in pieces(together) {
                let (top, bottom) = (self.y(range.end), self.y(range.start));
                let height = (bottom - top).max(1.2);
                let width = step.as_secs_f64() * 1e3;
                let _ = write!(
                    shapes.entry(path).or_default(),
                    "M{} {}h{}v{}h-{}z",
                    Number(x),
                    Number((bottom - height).max(0.0)),
                    Number(width),
                    Number(height),
                    Number(width)
                );
            }
        }
        for (path, shape) in shapes {
            let _ = writeln!(page, "<path class=\"mark p{}\" d=\"{shape}\"/>", path % 8);
        }
    }

    /// Joins what is close to each other, so that a reader sees blocks.
    fn stretches(&self, supplies: &[Supply]) -> Vec<Stretch> {
        let near = self.end / 50;
        let pause = self.run.duration / 25;
        let mut done: Vec<Stretch> = Vec::new();
        let mut growing: BTreeMap<u32, Vec<Stretch>> = BTreeMap::new();
        for Supply { at, path, range } in supplies {
            let open = growing.entry(*path).or_default();
            let (over, rest) = std::mem::take(open).into_iter().partition(|stretch| *at - stretch.until > pause);
            *open = rest;
            done.extend::<Vec<_>>(over);
            let touches = |stretch: &&mut Stretch| {
                range.start <= stretch.range.end.saturating_add(near)
                    && range.end.saturating_add(near) >= stretch.range.start
            };
            let len = range.end - range.start;
            match open.iter_mut().find(touches) {
                Some(stretch) => {
                    stretch.range = stretch.range.start.min(range.start)..stretch.range.end.max(range.end);
                    stretch.until = *at;
                    stretch.bytes += len;
                }
                None => {
                    let (begin, until) = (*at, *at);
                    open.push(Stretch { path: *path, range: range.clone(), begin, until, bytes: len });
                }
            }
        }
        done.extend(growing.into_values().flatten());
        done
    }

    /// The finished stream at the right edge: who brought what.
    fn map(&self, page: &mut String, pieces: &[(u32, Range<u64>)]) {
        let height = self.height;
        let _ = writeln!(
            page,
            "<div class=\"scale\"><svg class=\"map\" viewBox=\"0 0 10 {height}\" preserveAspectRatio=\"none\" \
             style=\"height:{height}px\"><title>who brought which part</title>"
        );
        let visible = |range: &Range<u64>| (range.end - range.start) as f64 * MAP_PIECES >= self.end as f64;
        for (path, range) in pieces.iter().filter(|(_, range)| visible(range)) {
            let (top, bottom) = (self.y(range.end), self.y(range.start));
            let _ = writeln!(
                page,
                "<rect class=\"p{}\" x=\"0\" y=\"{}\" width=\"10\" height=\"{}\"><title>{} to {}: path {path}</title></rect>",
                path % 8,
                Number(top),
                Number((bottom - top).max(0.5)),
                bytes(range.start),
                bytes(range.end),
            );
        }
        let _ = write!(page, "</svg><span>{}</span></div>", bytes(self.end));
    }
}
