//! One server that writes: what it has, what it delivered, and how fast.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::meter::{Meter, bytes_in, per_second, time_for};
use super::open::Open;
use super::report::SourceReport;
use crate::error::TransportCode;
use crate::id::{GrantId, PathId};
use crate::session::{GrantInfo, PathInfo, SessionMut};
use crate::status::{GrantStatus, PathState};

/// Whether a source can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its path is not active yet.
    Unjoined,
    Joined,
    /// Its server owes the client an answer.
    Suspect,
    /// Its path is gone, or is to be left out: it is given nothing any more.
    Out,
}

/// A range that a source has.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// `None` until the application said what the server reads first.
    pub(super) grant: Option<GrantId>,
    pub(super) range: Range<u64>,
    pub(super) delivered: u64,
    pub(super) at: Instant,
    /// How long its delivery was expected to take.
    pub(super) expected: Duration,
    pub(super) is_revoked: bool,
    /// The primary wrote it as well: nothing is open when it is lost.
    is_copy: bool,
}

impl Outstanding {
    pub(super) fn missing(&self) -> u64 {
        (self.range.end - self.range.start).saturating_sub(self.delivered)
    }
}

/// A source of bytes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathId,
    pub(super) standing: Standing,
    pub(super) held: VecDeque<Outstanding>,
    /// Bytes that it has, and that did not arrive as far as is known.
    pub(super) owes: u64,
    /// Of those, the ones that did not leave the primary, if it is the primary itself.
    pub(super) unsent: u64,
    /// Bytes that arrived of it.
    pub(super) delivered: u64,
    /// Those of ranges that are over.
    settled: u64,
    pub(super) meter: Meter,
    pub(super) rtt: Duration,
    rtt_min: Duration,
    /// The primary's least round trip.
    pub(super) usual_rtt: Duration,
    /// When something last arrived; or would have, of what it was given while it had nothing.
    heard_at: Instant,
    /// It stopped to deliver, or nearly: it is given nothing until then.
    pub(super) paused_until: Option<Instant>,
    /// How often it did so lately, and when it last did.
    strikes: u32,
    struck_at: Instant,
    /// It stopped to deliver, and nothing came of what it was given since.
    pub(super) is_on_probation: bool,
    /// The last sample was far below its rate.
    was_low: bool,
    /// Ranges in a row that it gave back of itself.
    refusals: u32,
    /// Ranges in a row that were taken back of it because nothing came of them, or nearly.
    fruitless: u32,
    /// What it has is taken back.
    pub(super) is_stalled: bool,
    /// It was refused a range for want of room: it is given nothing until then, unless some grant ends before.
    pub(super) crowded_until: Option<Instant>,
    pub(super) report: SourceReport,
}

impl Source {
    /// Silence, beyond what a delivery may take, after which a source is taken to deliver no more than that.
    const SILENCE_MIN: Duration = Duration::from_millis(120);
    /// A source that delivers less than a third of what it did is taken to have collapsed.
    const COLLAPSE: u64 = 3;
    /// How long it is given nothing then; longer the second time.
    const PAUSE: Duration = Duration::from_millis(400);
    const STRIKES_MAX: u32 = 2;
    /// The rest of a range that was taken back would have taken so long, at least.
    const FRUITLESS_AFTER: Duration = Duration::from_secs(4);
    /// So often the time is doubled for which a source is given nothing.
    const FRUITLESS_MAX: u32 = 4;
    /// After so long without another, a collapse is forgotten.
    const FORGIVEN_AFTER: Duration = Duration::from_secs(2);
    /// Progress is known in steps of that many bytes at most.
    const STEP_BYTES: u64 = 256 * 1024;
    /// What the primary sends is acknowledged by packet.
    const OWN_STEP_BYTES: u64 = 64 * 1024;
    /// A server that gives ranges back of itself so often is left out.
    const REFUSALS_MAX: u32 = 5;

    pub(super) fn new(now: Instant, path: PathId) -> Self {
        Self {
            path,
            standing: if path.is_primary() { Standing::Joined } else { Standing::Unjoined },
            held: VecDeque::new(),
            owes: 0,
            unsent: 0,
            delivered: 0,
            settled: 0,
            meter: Meter::new(),
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
            usual_rtt: Duration::MAX,
            heard_at: now,
            paused_until: None,
            strikes: 0,
            struck_at: now,
            is_on_probation: false,
            was_low: false,
            refusals: 0,
            fruitless: 0,
            is_stalled: false,
            crowded_until: None,
            report: SourceReport::new(path),
        }
    }

    /// It may be used again, if it was left out.
    pub(super) fn readmit(&mut self) {
        if self.standing == Standing::Out {
            self.standing = if self.path.is_primary() { Standing::Joined } else { Standing::Unjoined };
            (self.refusals, self.fruitless, self.paused_until) = (0, 0, None);
        }
    }

    // ---- what is known

    /// From when a range is left to it until it is known that it arrived, at the least. Grants queue behind what the
    /// primary sends, so the primary's round trip counts as it is now.
    pub(super) fn control_loop(&self, primary_rtt: Duration) -> Duration {
        if self.path.is_primary() {
            return primary_rtt;
        }
        // A path that is not active is dialled first, over a network that is taken to be like the primary's.
        if self.rtt_min.is_zero() {
            return 4 * primary_rtt.min(self.usual_rtt);
        }
        primary_rtt + self.rtt_min
    }

    /// When the first byte of a range that is left to it now would arrive.
    pub(super) fn ready_in(&self, primary_rtt: Duration) -> Duration {
        let control_loop = self.control_loop(primary_rtt);
        let queued = match self.meter.rate() {
            0 => self.rtt.max(primary_rtt) * rounds(self.owes),
            rate => time_for(self.owes, rate),
        };
        queued.max(control_loop).saturating_sub(primary_rtt / 2)
    }

    /// Whether it may be given something, if there is room.
    pub(super) fn can_take(&self, now: Instant) -> bool {
        let is_paused = [self.paused_until, self.crowded_until].into_iter().flatten().any(|until| now < until);
        let is_ready = match self.standing {
            // A first range may wait for it; once that was taken back, it has to join first.
            Standing::Unjoined => self.report.taken_back_bytes == 0,
            Standing::Joined => true,
            Standing::Suspect | Standing::Out => false,
        };
        is_ready && !is_paused
    }

    /// Whether anything may come of it.
    pub(super) fn is_over(&self) -> bool {
        self.standing == Standing::Out && self.held.is_empty()
    }

    // ---- what happens

    pub(super) fn on_info(&mut self, info: Option<&PathInfo>) {
        let Some(info) = info else {
            self.standing = Standing::Out;
            return;
        };
        if self.standing != Standing::Out {
            self.standing = match &info.state {
                PathState::Suspect => Standing::Suspect,
                PathState::Active => Standing::Joined,
                state if state.is_dead() || *state == PathState::Closing => Standing::Out,
                _ => self.standing,
            };
        }
        if !info.rtt.is_zero() {
            (self.rtt, self.rtt_min) = (info.rtt, info.rtt_min.min(info.rtt));
        }
    }

    /// A range is to be left to it; a copy, if the primary wrote the range as well.
    pub(super) fn on_assigned(&mut self, now: Instant, range: Range<u64>, is_copy: bool, primary_rtt: Duration) {
        let bytes = range.end - range.start;
        self.on_work(now, primary_rtt);
        let expected = self.expected(bytes, primary_rtt);
        self.owes += bytes;
        let held = Outstanding { grant: None, range, delivered: 0, at: now, expected, is_revoked: false, is_copy };
        self.held.push_back(held);
    }

    /// Whether a range is still to be left to it, and whether as a copy.
    pub(super) fn is_assigned(&self, range: &Range<u64>) -> Option<bool> {
        let held = self.held.iter().find(|held| held.grant.is_none() && held.range == *range)?;
        Some(held.is_copy)
    }

    /// The range was left to it.
    pub(super) fn on_granted(&mut self, now: Instant, grant: &GrantInfo) {
        let mut held = self.held.iter_mut();
        if let Some(held) = held.find(|held| held.grant.is_none() && held.range == grant.range) {
            (held.grant, held.at) = (Some(grant.grant), now);
            self.report.ranges += 1;
        }
    }

    /// The range could not be left to it.
    pub(super) fn on_refused(&mut self, range: &Range<u64>, open: &mut Open) {
        let place = self.held.iter().position(|held| held.grant.is_none() && held.range == *range);
        self.drop_held(place, open);
    }

    /// It is left out. The application may answer no request of it any more, so what was not left to it yet is another's at
    /// once: it might be added again before anybody looks.
    pub(super) fn leave_out(&mut self, open: &mut Open) {
        self.standing = Standing::Out;
        self.held.iter_mut().filter(|held| held.grant.is_none()).for_each(|held| held.is_revoked = true);
        self.drop_unissued(open);
    }

    /// What was to be left to it is not, if it was taken back.
    pub(super) fn drop_unissued(&mut self, open: &mut Open) {
        while let Some(place) = self.held.iter().position(|held| held.grant.is_none() && held.is_revoked) {
            self.drop_held(Some(place), open);
        }
    }

    fn drop_held(&mut self, place: Option<usize>, open: &mut Open) {
        let Some(held) = place.and_then(|place| self.held.remove(place)) else { return };
        self.owes = self.owes.saturating_sub(held.missing());
        if !held.is_copy {
            open.give_back(held.range, None);
        }
    }

    /// It is given more. If it could have carried more, it may have nothing to deliver until then.
    pub(super) fn on_work(&mut self, now: Instant, primary_rtt: Duration) {
        if self.is_starved(primary_rtt) {
            let control_loop = self.control_loop(primary_rtt);
            self.heard_at = now.checked_add(control_loop).unwrap_or(now).max(self.heard_at);
            self.meter.on_starved();
        }
    }

    /// Whether it has less to do than it could carry.
    fn is_starved(&self, primary_rtt: Duration) -> bool {
        let rate = self.meter.rate();
        self.owes == 0 || rate == 0 || self.owes < bytes_in(rate, self.control_loop(primary_rtt))
    }

    /// Looks at what became of its ranges. What will not come is open again. Returns whether one ended.
    pub(super) fn look(
        &mut self,
        now: Instant,
        session: &mut SessionMut<'_>,
        open: &mut Open,
        primary_rtt: Duration,
    ) -> bool {
        let before = self.held.len();
        let (mut owes, mut delivered, mut is_cut) = (0, self.settled, false);
        let mut held = std::mem::take(&mut self.held);
        held.retain_mut(|range| {
            let bytes = range.range.end - range.range.start;
            let Some(grant) = range.grant else {
                owes += bytes;
                return true;
            };
            match session.delegation(grant) {
                Some(GrantStatus::Progress { delivered: so_far }) => {
                    range.delivered = so_far;
                    owes += range.missing();
                    delivered += so_far;
                    return true;
                }
                Some(GrantStatus::Lost { code, missing }) => {
                    is_cut = true;
                    let lost: u64 = missing.iter().map(|range| range.end - range.start).sum();
                    self.settled += bytes.saturating_sub(lost);
                    delivered += bytes.saturating_sub(lost);
                    if !range.is_copy {
                        missing.into_iter().for_each(|range| open.give_back(range, Some(self.path)));
                    }
                    let is_revoked = range.is_revoked || code == TransportCode::REVOKED.into();
                    self.on_lost(now, is_revoked, lost, bytes);
                }
                // What was forgotten elsewhere was seen to arrive there.
                Some(GrantStatus::Delivered) | None => {
                    self.is_on_probation = false;
                    self.settled += bytes;
                    delivered += bytes;
                    (self.refusals, self.fruitless) = (0, 0);
                }
            }
            session.forget_delegation(grant);
            false
        });
        self.held = held;
        self.owes = owes;
        if is_cut {
            // What arrived of ranges that ended early is told at once, and says nothing of how fast it came.
            (self.delivered, self.heard_at) = (delivered, self.heard_at.max(now));
            self.meter.restart(now, delivered);
        } else {
            self.on_delivered(now, delivered, primary_rtt);
        }
        self.held.len() < before
    }

    /// So many bytes of a range of so many will not come.
    fn on_lost(&mut self, now: Instant, is_revoked: bool, bytes: u64, of: u64) {
        if is_revoked {
            self.report.taken_back_bytes += bytes;
            self.on_fruitless(now, bytes, of);
            return;
        }
        self.report.lost_bytes += bytes;
        if self.standing == Standing::Out {
            return;
        }
        // Who gave up of itself would do so again.
        self.refusals += 1;
        if self.refusals >= Self::REFUSALS_MAX {
            self.standing = Standing::Out;
        } else {
            self.pause(now);
        }
    }

    /// A range was taken back. Sources of which nothing comes would pass the same range to each other for ever, so each is
    /// given nothing for longer every time.
    fn on_fruitless(&mut self, now: Instant, bytes: u64, of: u64) {
        let is_fruitless = match self.meter.rate() {
            0 => of.saturating_sub(bytes) <= of / 8,
            rate => time_for(bytes, rate) > Self::FRUITLESS_AFTER,
        };
        if is_fruitless && self.standing == Standing::Joined && self.paused_until.is_none_or(|until| until <= now) {
            self.paused_until = now.checked_add(Self::PAUSE * (1 << self.fruitless));
            self.fruitless = (self.fruitless + 1).min(Self::FRUITLESS_MAX);
        }
    }

    /// So many bytes arrived of it by now.
    pub(super) fn on_delivered(&mut self, now: Instant, delivered: u64, primary_rtt: Duration) {
        if delivered <= self.delivered {
            return;
        }
        self.delivered = delivered;
        self.heard_at = self.heard_at.max(now);
        // What the primary sends is acknowledged in order, so this is no late answer.
        self.is_on_probation &= !self.path.is_primary();
        let rate = self.meter.rate();
        let sample = self.meter.on_delivered(now, delivered, self.control_loop(primary_rtt));
        if let Some(sample) = sample {
            let is_low = sample < rate / Self::COLLAPSE;
            // One may be an accident.
            if is_low && self.was_low {
                self.collapse(now, sample);
            }
            self.was_low = is_low;
        }
        if self.strikes > 0 && now.saturating_duration_since(self.struck_at) > Self::FORGIVEN_AFTER {
            self.strikes = 0;
        }
    }

    /// How long it takes until it is known that it delivered so many bytes after what it owes.
    pub(super) fn expected(&self, bytes: u64, primary_rtt: Duration) -> Duration {
        let queued = match self.meter.rate() {
            0 => self.control_loop(primary_rtt) + self.rtt.max(primary_rtt) * rounds(self.owes + bytes),
            rate => time_for(self.owes + bytes, rate).max(self.control_loop(primary_rtt)),
        };
        queued + primary_rtt / 2
    }

    /// It has less to do than it could carry.
    pub(super) fn note_starved(&mut self, primary_rtt: Duration) {
        if self.is_starved(primary_rtt) {
            self.meter.on_starved();
        }
    }

    /// For how long nothing came of what it owes.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        if self.owes == 0 { Duration::ZERO } else { now.saturating_duration_since(self.heard_at) }
    }

    /// Whether it was silent for too long, beyond what it is excused for: then it delivers at most what would have been seen.
    pub(super) fn check_silence(&mut self, now: Instant, excuse: Duration) {
        let rate = self.meter.rate();
        if self.owes == 0 || rate == 0 || self.is_stalled {
            return;
        }
        let silence = self.silence(now).saturating_sub(excuse);
        let step = self.held.front().map_or(Self::OWN_STEP_BYTES, Outstanding::missing).min(Self::STEP_BYTES);
        let patience = Self::SILENCE_MIN.max(self.rtt.min(self.rtt_min * 2) / 2 * 5) + time_for(step, rate) / 2 * 5;
        if silence > patience {
            let most = per_second(step, silence);
            if most < rate / Self::COLLAPSE {
                self.collapse(now, most);
            }
        }
    }

    fn collapse(&mut self, now: Instant, rate: u64) {
        self.meter.collapse(rate);
        (self.is_stalled, self.is_on_probation) = (true, true);
        self.report.stalls += 1;
        self.pause(now);
    }

    fn pause(&mut self, now: Instant) {
        self.strikes = (self.strikes + 1).min(Self::STRIKES_MAX);
        self.struck_at = now;
        self.paused_until = now.checked_add(Self::PAUSE * self.strikes);
    }

    /// When to look again, if nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// What it has is taken back or gone.
    pub(super) fn on_taken_back(&mut self) {
        self.is_stalled = false;
    }
}

/// Round trips in which a connection that begins delivers so many bytes.
fn rounds(bytes: u64) -> u32 {
    const FIRST_BYTES: u64 = 12_000;
    (bytes / FIRST_BYTES + 1).ilog2() + 1
}
