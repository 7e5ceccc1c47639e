//! A lane for each path: its rate, its round trip, what was lost, its state, and the disturbances that concern it.

use std::fmt::Write as _;
use std::time::Duration;

use super::Summary;
use super::chart::{Ms, Number, Text, bytes, moment, rate, span};
use super::disturbances::Scope;
use super::run::{PathRun, SessionKey, SessionRun, TraceRun};

/// Into how many steps a lane's rate is divided at most.
const STEPS: u32 = 300;
/// How high the part for rates is; lower if nothing was carried.
const RATE_HEIGHT: f64 = 60.0;
const QUIET_HEIGHT: f64 = 14.0;
/// How high the parts below it are.
const LOSS_HEIGHT: f64 = 10.0;
const STATE_HEIGHT: f64 = 10.0;

/// The lanes of a session's paths, with one scale.
pub(super) fn path_lanes(page: &mut String, run: &TraceRun, summary: &Summary, key: SessionKey, session: &SessionRun) {
    let step = step_of(run, session);
    let rates: Vec<(u32, Vec<f64>)> =
        session.paths.iter().map(|(id, path)| (*id, rates(path, step, run.duration))).collect();
    let top = top_of(rates.iter().flat_map(|(_, rates)| rates).copied().collect());
    let rtt_top = session.paths.values().map(PathRun::rtt_max).max().unwrap_or_default();
    for (id, rates) in rates {
        let Some(path) = session.paths.get(&id) else { continue };
        let begin = path.samples.first().map(|sample| sample.at).unwrap_or_default();
        let over = session.closed_at.unwrap_or(run.duration);
        let low = if path.bytes() > 0 { RATE_HEIGHT } else { QUIET_HEIGHT };
        let lane = PathLane { run, key, id, path, top, rtt_top, low, begin, over };
        lane.label(page, summary);
        lane.plot(page, &rates, step);
        let scale = if path.bytes() > 0 {
            format!("<span>↑ {}</span><span>RTT {}</span>", rate(top), span(rtt_top))
        } else {
            String::new()
        };
        let _ = writeln!(page, "<div class=\"scale\">{scale}</div></div>");
    }
}

struct PathLane<'a> {
    run: &'a TraceRun,
    key: SessionKey,
    id: u32,
    path: &'a PathRun,
    /// The rate at the top of the lane, in bits a second.
    top: f64,
    /// The round trip at the top.
    rtt_top: Duration,
    /// Where no rate at all is drawn.
    low: f64,
    begin: Duration,
    /// When the session ended.
    over: Duration,
}

impl PathLane<'_> {
    fn label(&self, page: &mut String, summary: &Summary) {
        let SessionKey { node, life, session } = self.key;
        let _ = writeln!(
            page,
            "<div class=\"lane path\" data-path=\"{node}/{life}/{session}/{id}\"><div class=\"label\">\
             <b><i class=\"dot p{color}\"></i>path {id}</b> <span>{server}</span>\
             <small>{bytes}{average}{line}RTT {rtt}</small></div>",
            id = self.id,
            color = self.id % 8,
            server = self
                .path
                .server
                .map_or_else(String::new, |server| { format!("to {}", Text(&summary.node_name(server.index()))) }),
            bytes = bytes(self.path.bytes()),
            average = self.average().map(|bits| format!(" · {} while in use", rate(bits))).unwrap_or_default(),
            line = if self.low < RATE_HEIGHT { " · " } else { "<br>" },
            rtt = self.rtt(),
        );
    }

    /// Bits a second, from the first to the last payload.
    fn average(&self) -> Option<f64> {
        let last = self.path.bytes();
        let first_at = self.path.samples.iter().rev().find(|sample| sample.bytes == 0).map(|sample| sample.at)?;
        let last_at = self.path.samples.iter().find(|sample| sample.bytes == last).map(|sample| sample.at)?;
        let length = last_at.checked_sub(first_at).filter(|length| !length.is_zero())?;
        Some(last as f64 * 8.0 / length.as_secs_f64())
    }

    fn rtt(&self) -> String {
        let rtts = || self.path.samples.iter().filter_map(|sample| sample.rtt);
        match (rtts().min(), rtts().max()) {
            (Some(least), Some(most)) if least < most => format!("{} to {}", span(least), span(most)),
            (Some(only), _) => span(only),
            _ => "unknown".to_owned(),
        }
    }

    /// When nothing more is to be expected of the path.
    fn end(&self) -> Duration {
        self.path.dead_at().map_or(self.over, |at| at.min(self.over))
    }

    fn height(&self) -> f64 {
        self.low + LOSS_HEIGHT + STATE_HEIGHT
    }

    fn plot(&self, page: &mut String, rates: &[f64], step: Duration) {
        let height = self.height();
        let _ = writeln!(
            page,
            "<svg class=\"plot\" viewBox=\"0 0 {} {height}\" preserveAspectRatio=\"none\" style=\"height:{height}px\">",
            Ms(self.run.duration)
        );
        self.disturbances(page);
        self.area(page, rates, step);
        self.round_trips(page);
        self.losses(page, step);
        self.states(page);
        page.push_str("</svg>\n");
    }

    fn disturbances(&self, page: &mut String) {
        let Some(server) = self.path.server else { return };
        let height = self.height();
        for mark in self.run.marks.iter().filter(|mark| mark.scope.concerns(self.key.node, server)) {
            let end = mark.end.unwrap_or(mark.at);
            if end < self.begin || mark.at > self.end() {
                continue;
            }
            let shown = mark.at.max(self.begin);
            let _ = writeln!(
                page,
                "<g class=\"{}\"><title>{}, {} to {}</title><rect x=\"{}\" y=\"0\" width=\"{}\" height=\"{height}\"/>\
                 <path class=\"cut\" d=\"M{} 0V{height}\"/></g>",
                mark.sort.class(),
                Text(&mark.text()),
                moment(mark.at),
                moment(end),
                Ms(shown),
                Ms(end - shown),
                Ms(shown),
            );
            let is_down = match mark.scope {
                Scope::Way(from, _) => from == server,
                _ => true,
            };
            if let Some(limit) = mark.rate.filter(|limit| is_down && *limit as f64 <= self.top * 1.02) {
                let y = self.low * (1.0 - (limit as f64 / self.top).min(1.0));
                let _ = writeln!(
                    page,
                    "<path class=\"limit\" d=\"M{} {}H{}\"><title>the link carries {} from here on</title></path>",
                    Ms(mark.at),
                    Number(y.max(1.0)),
                    Ms(end),
                    rate(limit as f64),
                );
            }
        }
    }

    fn area(&self, page: &mut String, rates: &[f64], step: Duration) {
        let low = self.low;
        let mut shape = format!("M0 {low}");
        let mut level = 0.0;
        for (index, rate) in (0..).zip(rates) {
            if (level - rate).abs() * 1e3 > self.top {
                level = *rate;
                let height = self.low * (1.0 - level / self.top);
                let _ = write!(shape, "H{}V{}", Ms(step * index), Number((height * 10.0).round() / 10.0));
            }
        }
        let _ = writeln!(
            page,
            "<path class=\"area p{}\" d=\"{shape}H{}V{low}Z\"><title>path {}: payload, both ways, \
             at most {} at a time</title></path>",
            self.id % 8,
            Ms(self.run.duration),
            self.id,
            rate(rates.iter().copied().fold(0.0, f64::max)),
        );
    }

    /// The round trip, from nothing at the bottom to its maximum at the top.
    fn round_trips(&self, page: &mut String) {
        let most = self.rtt_top.as_secs_f64().max(1e-6);
        let mut line = String::new();
        let mut last = f64::INFINITY;
        for sample in &self.path.samples {
            let Some(rtt) = sample.rtt else { continue };
            let y = (self.low * (1.0 - 0.95 * rtt.as_secs_f64() / most) * 10.0).round() / 10.0;
            if last.is_infinite() {
                let _ = write!(line, "M{} {y}", Ms(sample.at));
            } else if (y - last).abs() > 0.4 {
                let _ = write!(line, "H{}V{y}", Ms(sample.at));
            } else {
                continue;
            }
            last = y;
        }
        if let Some(sample) = self.path.samples.iter().rfind(|sample| sample.rtt.is_some()) {
            let _ = write!(line, "H{}", Ms(sample.at));
        }
        let _ = writeln!(page, "<path class=\"rtt\" d=\"{line}\"><title>round trip, {}</title></path>", self.rtt());
    }

    /// Lost datagrams of both directions, a tick for each step.
    fn losses(&self, page: &mut String, step: Duration) {
        let Some(server) = self.path.server else { return };
        for (way, pair) in [("to", (self.key.node, server)), ("from", (server, self.key.node))] {
            let mut times = self.run.losses.get(&pair).map(Vec::as_slice).unwrap_or_default();
            times = times.get(times.partition_point(|at| *at < self.begin)..).unwrap_or_default();
            times = times.get(..times.partition_point(|at| *at <= self.end())).unwrap_or_default();
            while let Some(first) = times.first() {
                let begin = *first;
                let count = times.partition_point(|at| *at < begin + step);
                times = times.get(count..).unwrap_or_default();
                let height = (2.0 + (count as f64).sqrt()).min(7.0);
                let _ = writeln!(
                    page,
                    "<rect class=\"lost\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{count} datagrams {way} the \
                     server lost after {}</title></rect>",
                    Ms(begin),
                    Number(self.low + 9.0 - height),
                    Ms(step),
                    Number(height),
                    moment(begin),
                );
            }
        }
    }

    fn states(&self, page: &mut String) {
        let top = self.low + LOSS_HEIGHT;
        let ends = self.path.states.iter().skip(1).map(|(at, _)| *at).chain([self.over]);
        for ((at, state), end) in self.path.states.iter().zip(ends) {
            let name = state.split(' ').next().unwrap_or_default().to_lowercase();
            let _ = writeln!(
                page,
                "<rect class=\"state s-{}\" x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{STATE_HEIGHT}\"><title>path {}: \
                 {}, {} to {}</title></rect>",
                Text(&name),
                Ms(*at),
                Ms(end.saturating_sub(*at)),
                self.id,
                Text(state),
                moment(*at),
                moment(end),
            );
        }
    }
}

/// How long a step of a lane is: as short as the samples allow.
fn step_of(run: &TraceRun, session: &SessionRun) -> Duration {
    let samples = session.paths.values().map(|path| path.samples.len()).max().unwrap_or_default();
    let length = u32::try_from(samples).unwrap_or(STEPS).clamp(1, STEPS);
    (run.duration / length).max(Duration::from_micros(1))
}

/// The rate at the top of lanes. A few spikes, as when a lost datagram comes at last and frees all behind it, do not
/// make everything else small.
fn top_of(mut rates: Vec<f64>) -> f64 {
    rates.retain(|rate| *rate > 0.0);
    rates.sort_by(f64::total_cmp);
    let high = rates.get(rates.len() * 96 / 100).copied().unwrap_or(1.0) * 1.2;
    rates.last().copied().unwrap_or(1.0).min(high).max(1.0)
}

/// Bits a second in each step.
fn rates(path: &PathRun, step: Duration, duration: Duration) -> Vec<f64> {
    let mut rates = Vec::new();
    let mut begin = Duration::ZERO;
    while begin < duration {
        let end = begin + step;
        rates.push((path.bytes_at(end) - path.bytes_at(begin)).max(0.0) * 8.0 / step.as_secs_f64());
        begin = end;
    }
    rates
}
