//! What the user sees: a progress bar while the file arrives, a table and a verdict in the end.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use kwik_tokio::{PathId, PathState, PathStats};
use serde::Serialize;
use tokio::sync::watch;

use crate::client::Progress;

/// How often the progress bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// What a fetch came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// How long it took the first server alone, if that was tried.
    pub(crate) seconds_alone: Option<f64>,
    pub(crate) sha256: String,
    pub(crate) refilled_bytes: u64,
    pub(crate) raw_round_trips: u64,
    pub(crate) paths: Vec<PathReport>,
}

/// What one server contributed.
#[derive(Debug, Serialize)]
pub(crate) struct PathReport {
    id: u32,
    role: &'static str,
    address: String,
    bytes: u64,
    ranges: u64,
    rtt_ms: f64,
    state: String,
}

impl PathReport {
    pub(crate) fn new(path: &PathStats, bytes: u64, ranges: u64) -> Self {
        Self {
            id: path.id.0,
            role: if path.id.is_primary() { "primary" } else { "secondary" },
            address: path.address.to_string(),
            bytes,
            ranges,
            rtt_ms: path.rtt.as_secs_f64() * 1000.0,
            state: match &path.state {
                PathState::Dead(reason) => format!("dead: {reason}"),
                state => format!("{state:?}").to_lowercase(),
            },
        }
    }
}

impl Report {
    /// The table, for people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:>4}  {:<9}  {:<21}  {:>12}  {:>6}  {:>6}  {:>9}  {}\n",
            "path", "role", "address", "bytes", "share", "ranges", "RTT", "state"
        );
        for path in &self.paths {
            let share = percent(path.bytes, self.bytes);
            table += &format!(
                "{:>4}  {:<9}  {:<21}  {:>12}  {:>5}%  {:>6}  {:>6.2} ms  {}\n",
                path.id, path.role, path.address, path.bytes, share, path.ranges, path.rtt_ms, path.state
            );
        }
        let rate = self.bytes as f64 / self.seconds.max(f64::EPSILON) / (1024.0 * 1024.0);
        table += &format!("{} in {:.2} s, {rate:.0} MiB/s\n", HumanBytes(self.bytes), self.seconds);
        if let Some(alone) = self.seconds_alone {
            let gain = alone / self.seconds.max(f64::EPSILON);
            table += &format!("the first server alone: {alone:.2} s; all together are {gain:.1} times as fast\n");
        }
        table += &format!("SHA-256 {}\n", self.sha256);
        let refilled = HumanBytes(self.refilled_bytes);
        table + &format!("{} raw round trips, {refilled} of one server delivered by another", self.raw_round_trips)
    }
}

/// Draws the progress bar on stderr until the sender is dropped.
pub(crate) async fn draw(mut progress: watch::Receiver<Progress>) {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}  {msg}") {
        bar.set_style(style);
    }
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        let received = now.received();
        let shares = now.bytes.iter().map(|(path, bytes)| format!("{} {}%", name(*path), percent(*bytes, received)));
        bar.set_message(shares.collect::<Vec<_>>().join("  "));
        bar.set_length(now.length.unwrap_or_default());
        bar.set_position(received);
        tokio::time::sleep(DRAW_INTERVAL).await;
    }
    bar.finish_and_clear();
}

fn name(path: PathId) -> String {
    if path.is_primary() { "primary".to_owned() } else { path.to_string() }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or_default()
}
