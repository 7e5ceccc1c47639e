//! One stream, written by many servers: a [`Distributor`] leaves its ranges to the primary and to secondaries, watches what
//! arrives, and takes back what does not. It uses a session as any application does, and adds nothing to the wire.

mod adaptive;
mod meter;
mod open;
mod own;
mod policy;
mod report;
mod source;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::adaptive::{Adaptive, ReadOrder};
use self::meter::{bytes_in, time_for};
use self::open::Open;
use self::own::OwnPart;
pub use self::policy::{Assignment, EqualSplit, FixedChunks, HeldRange, Pieces, Policy, SourceView, View};
pub use self::report::{DistributionReport, SourceReport};
use self::source::{Source, Standing};
use crate::error::ErrorCode;
use crate::id::{PathId, StreamHandle, StreamOffset};
use crate::range_set::RangeSet;
use crate::session::{DelegateError, SessionMut};
use crate::stream::WriteError;

/// The most that is copied with one grant.
const COPY_BYTES: u64 = 256 * 1024;

/// How far ahead of the reader a source writes that stopped to deliver before, so that the reader need not wait for it if it
/// does so again.
const PROBATION_AHEAD: Duration = Duration::from_secs(1);

/// What the reader waits for is given away in pieces of that many bytes.
const URGENT_BYTES: u64 = 64 * 1024;

/// Why a distribution cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DistributeError {
    /// The client wants no more of the stream.
    #[error("the client stopped the stream with {0}")]
    Stopped(ErrorCode),
    /// The stream was reset or released here, or is none that this end writes.
    #[error("the stream is not open for writing")]
    ClosedStream,
    /// The session is closed.
    #[error("the session is closed")]
    SessionClosed,
    /// This end is not the primary.
    #[error("only the primary distributes; this end is not the primary of the session")]
    NotPrimary,
    /// A request does not fit a grant, or a range lies beyond the largest offset.
    #[error("{0}")]
    Refused(DelegateError),
}

impl From<DelegateError> for DistributeError {
    fn from(error: DelegateError) -> Self {
        match error {
            DelegateError::NotPrimary => Self::NotPrimary,
            DelegateError::Stopped(code) => Self::Stopped(code),
            DelegateError::ClosedStream => Self::ClosedStream,
            DelegateError::SessionClosed => Self::SessionClosed,
            error => Self::Refused(error),
        }
    }
}

impl From<WriteError> for DistributeError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped(code),
            WriteError::SessionClosed => Self::SessionClosed,
            WriteError::Overlap { start, end } => Self::Refused(DelegateError::Overlap { start, end }),
            WriteError::Finished => Self::Refused(DelegateError::Finished),
            WriteError::TooLong => Self::Refused(DelegateError::EmptyRange),
            WriteError::Blocked
            | WriteError::Reset
            | WriteError::ClosedStream
            | WriteError::WrongDirection
            | WriteError::BeyondGrant { .. } => Self::ClosedStream,
        }
    }
}

/// Distributes a range of a stream over servers.
///
/// The application owns it, beside the session. It calls [`Distributor::act`] when something happened in the session, when
/// the time of [`Distributor::poll_timeout`] came, and when it supplied bytes or answered; and it answers what
/// [`Distributor::poll_request`] and [`Distributor::poll_own`] ask for.
#[derive(Debug)]
pub struct Distributor {
    stream: StreamHandle,
    policy: Box<dyn Policy>,
    open: Open,
    /// All that is to be distributed.
    given: RangeSet,
    /// Bytes of it.
    total: u64,
    sources: Vec<Source>,
    own: Option<OwnPart>,
    /// What others are to write as well.
    copies: VecDeque<Range<u64>>,
    /// Ranges of which the application was not asked what their servers are to read first.
    requests: VecDeque<(PathId, Range<u64>)>,
    /// What it answered.
    answers: VecDeque<(PathId, Range<u64>, Bytes)>,
    /// The primary's round trip.
    rtt: Duration,
    /// How far the client lets the stream be written.
    credit: u64,
    deadline: Option<Instant>,
}

impl Distributor {
    /// How often a source is looked at that owes something.
    const TICK: Duration = Duration::from_millis(20);

    /// Distributes `range` of a stream that nobody writes otherwise, to sources that are yet to be added.
    #[must_use]
    pub fn new(stream: StreamHandle, range: Range<u64>, policy: Box<dyn Policy>) -> Self {
        let mut new = Self {
            stream,
            policy,
            open: Open::default(),
            given: RangeSet::default(),
            total: 0,
            sources: Vec::new(),
            own: None,
            copies: VecDeque::new(),
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            rtt: Duration::ZERO,
            credit: 0,
            deadline: None,
        };
        new.extend(range);
        new
    }

    /// More of the stream is to be written, of a source that goes on. What was given before changes nothing.
    pub fn extend(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        for part in self.given.gaps_in(range.clone()) {
            self.total = self.total.saturating_add(part.end - part.start);
            self.open.add(part);
        }
        self.given.insert(range);
    }

    /// The server of `path` can write every byte of it. It may be added before it joined, and again after it was removed or
    /// left out; otherwise a second time changes nothing.
    pub fn add_source(&mut self, now: Instant, path: PathId) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.path == path) {
            source.readmit();
            return;
        }
        if path.is_primary() {
            self.own = Some(OwnPart::default());
        }
        self.sources.push(Source::new(now, path));
    }

    /// Nothing more is left to a source; what it has is taken back with the next [`Distributor::act`].
    pub fn remove_source(&mut self, path: PathId) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.path == path) {
            source.leave_out(&mut self.open);
            self.requests.retain(|(of, _)| *of != path);
        }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> StreamHandle {
        self.stream
    }

    /// Whether every byte was written here or has arrived.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let has_own = self.own.as_ref().is_some_and(|own| own.unwritten() > 0);
        self.open.is_empty() && !has_own && self.sources.iter().all(|source| source.held.is_empty())
    }

    /// Whether there is nobody any more who could write what is left.
    #[must_use]
    pub fn is_stranded(&self) -> bool {
        !self.is_done() && self.sources.iter().all(Source::is_over)
    }

    /// When to call [`Distributor::act`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// What every source did so far.
    #[must_use]
    pub fn report(&self) -> DistributionReport {
        let sources = self.sources.iter().map(|source| {
            let bytes = if source.path.is_primary() { source.report.bytes } else { source.delivered };
            SourceReport { bytes, ..source.report.clone() }
        });
        let sources: Vec<_> = sources.collect();
        DistributionReport { bytes: sources.iter().map(|source| source.bytes).sum(), sources }
    }

    /// The next range that the primary is to write itself: the application supplies its bytes.
    pub fn poll_own(&mut self) -> Option<Range<u64>> {
        self.own.as_mut()?.ask()
    }

    /// The bytes of a range of [`Distributor::poll_own`]; [`Distributor::act`] writes them. Bytes that were not asked for,
    /// or were left to another meanwhile, are dropped.
    pub fn supply(&mut self, offset: u64, data: Bytes) {
        if let Some(own) = &mut self.own {
            own.supply(offset, &data);
        }
    }

    /// The next range that is to be left to the server of a path: the application gives, with [`Distributor::answer`], what
    /// that server reads first with it.
    pub fn poll_request(&mut self) -> Option<(PathId, Range<u64>)> {
        self.requests.pop_front()
    }

    /// What the server of `path` reads first with a range of [`Distributor::poll_request`]; [`Distributor::act`] leaves it
    /// the range.
    pub fn answer(&mut self, path: PathId, range: Range<u64>, request: Bytes) {
        self.answers.push_back((path, range, request));
    }

    /// Looks at what happened, takes back what comes too late, assigns what is open to those who can write it, and hands
    /// over what was supplied and answered. To be called again when more was.
    ///
    /// # Errors
    /// The distribution cannot go on then.
    pub fn act(&mut self, now: Instant, session: &mut SessionMut<'_>) -> Result<(), DistributeError> {
        self.look(now, session);
        let stream = session.stream(self.stream);
        if let Some(code) = stream.stop_code() {
            return Err(DistributeError::Stopped(code));
        }
        if stream.credit().is_none() {
            return Err(DistributeError::ClosedStream);
        }
        self.issue(now, session)?;
        self.write(now, session)?;
        self.take_back(now, session);
        self.copy(now);
        self.assign(now);
        for source in &mut self.sources {
            source.note_starved(self.rtt);
        }
        self.set_deadline(now);
        Ok(())
    }

    /// The application distributes no more: nobody asks what becomes of what was left to others. It arrives, or is missing.
    pub fn release(&mut self, session: &mut SessionMut<'_>) {
        let held = self.sources.iter_mut().flat_map(|source| source.held.drain(..));
        held.filter_map(|held| held.grant).for_each(|grant| session.forget_delegation(grant));
    }

    // ---- in

    fn look(&mut self, now: Instant, session: &mut SessionMut<'_>) {
        let main = session.path(PathId::PRIMARY);
        self.rtt = main.as_ref().map_or(self.rtt, |info| info.rtt);
        self.credit = session.stream(self.stream).credit().unwrap_or(0);
        let mut is_room = false;
        for source in &mut self.sources {
            source.usual_rtt = main.as_ref().map_or(source.usual_rtt, |info| info.rtt_min);
            if source.path.is_primary() {
                source.on_info(main.as_ref());
                if let (Some(own), Some(info)) = (&mut self.own, &main) {
                    let buffered = session.stream(self.stream).bytes_buffered() as u64;
                    let delivered = own.on_measured(buffered, info.bytes_outstanding, info.bytes);
                    (source.owes, source.unsent) = own.owes();
                    source.on_delivered(now, delivered, self.rtt);
                }
            } else {
                source.on_info(session.path(source.path).as_ref());
                is_room |= source.look(now, session, &mut self.open, self.rtt);
            }
        }
        // Not with every look: two that were refused would be asked in turn, for ever, at one moment.
        if is_room {
            self.sources.iter_mut().for_each(|source| source.crowded_until = None);
        }
        // Who is out of the primary's reach may not have heard of what was left to it.
        let own = self.sources.iter().find(|source| source.path.is_primary());
        let own_silence = own.map_or(Duration::ZERO, |own| own.silence(now));
        for source in &mut self.sources {
            let excuse = if source.path.is_primary() { Duration::ZERO } else { own_silence };
            source.check_silence(now, excuse);
        }
    }

    // ---- what is known

    fn views(&self, now: Instant) -> Vec<SourceView> {
        let is_last = self.is_last(now);
        let view = |source: &Source| {
            let start = self.open.start_for(source.path, is_last);
            let is_out = source.standing == Standing::Out;
            SourceView {
                path: source.path,
                // Who is left out delivers nothing any more, so nobody is compared with what it did.
                rate: if is_out { 0 } else { source.meter.rate() },
                is_starting: source.meter.is_starting(),
                is_joined: source.standing == Standing::Joined,
                is_on_probation: source.is_on_probation,
                can_take: source.can_take(now) && start.is_some_and(|start| start < self.credit),
                owes: source.owes,
                unsent: source.unsent,
                delivered: source.delivered,
                ranges: source.held.len(),
                control_loop: source.control_loop(self.rtt),
                ready_in: if is_out { time_for(u64::MAX, 1) } else { source.ready_in(self.rtt) },
            }
        };
        self.sources.iter().map(view).collect()
    }

    /// Whether nobody else could write what a source lost. Who did not join yet may never do so, and is not waited for.
    fn is_last(&self, now: Instant) -> bool {
        let can_take = |source: &&Source| source.standing == Standing::Joined && source.can_take(now);
        self.sources.iter().filter(can_take).count() <= 1
    }

    /// The lowest byte that did not arrive, as far as is known.
    fn floor(&self) -> u64 {
        let held = self.sources.iter().flat_map(|source| source.held.iter().map(|held| held.range.start));
        let own = self.own.iter().filter_map(OwnPart::floor);
        held.chain(own).chain(self.open.start()).min().unwrap_or(self.credit)
    }

    fn view<'a>(&self, now: Instant, sources: &'a [SourceView], floor: u64) -> View<'a> {
        let window = self.credit.saturating_sub(floor);
        let is_blocked = self.open.start().is_some_and(|start| start >= self.credit);
        View { now, sources, left: self.open.left(), total: self.total, window, is_blocked }
    }

    // ---- out

    fn take_back(&mut self, now: Instant, session: &mut SessionMut<'_>) {
        let (views, floor) = (self.views(now), self.floor());
        for index in 0..self.sources.len() {
            let mut owed = 0;
            for place in 0..self.sources[index].held.len() {
                let (source, held) = (&self.sources[index], &self.sources[index].held[place]);
                owed += held.missing();
                if held.is_revoked {
                    continue;
                }
                let question = HeldRange {
                    source: index,
                    missing: held.missing(),
                    owed_up_to: owed,
                    ahead: held.range.start.saturating_sub(floor),
                    age: now.saturating_duration_since(held.at),
                    expected: held.expected,
                    is_stalled: source.is_stalled || source.standing == Standing::Suspect,
                };
                let is_out = source.standing == Standing::Out;
                if is_out || self.policy.takes_back(&self.view(now, &views, floor), &question) {
                    // One that is over cannot be taken back, and its end is about to be seen.
                    held.grant.into_iter().for_each(|grant| drop(session.revoke(grant)));
                    self.sources[index].held[place].is_revoked = true;
                }
            }
            self.sources[index].drop_unissued(&mut self.open);
            if self.sources[index].path.is_primary() {
                self.take_back_own(now, &views, floor, index);
            }
            self.sources[index].on_taken_back();
        }
    }

    /// What the primary did not write is left to others; what it wrote and what is late, others are to write as well.
    fn take_back_own(&mut self, now: Instant, views: &[SourceView], floor: u64, index: usize) {
        let view = self.view(now, views, floor);
        let (Some(own), source) = (&mut self.own, &mut self.sources[index]) else { return };
        let mut owed = 0;
        for sent in &mut own.sent {
            let missing = sent.range.end - sent.range.start;
            owed += missing;
            let question = HeldRange {
                source: index,
                missing,
                owed_up_to: owed,
                ahead: sent.range.start.saturating_sub(floor),
                age: now.saturating_duration_since(sent.at),
                expected: sent.expected,
                is_stalled: source.is_stalled,
            };
            if !sent.is_copied && self.policy.takes_back(&view, &question) {
                sent.is_copied = true;
                match self.copies.back_mut() {
                    Some(last) if last.end == sent.range.start && sent.range.end - last.start <= COPY_BYTES => {
                        last.end = sent.range.end;
                    }
                    _ => self.copies.push_back(sent.range.clone()),
                }
            }
        }
        if source.is_stalled || source.standing == Standing::Out {
            source.report.taken_back_bytes += own.give_back(&mut self.open);
        }
    }

    fn assign(&mut self, now: Instant) {
        let floor = self.floor();
        while !self.open.is_empty() {
            let views = self.views(now);
            let is_last = self.is_last(now);
            let next = self.policy.next(&self.view(now, &views, floor));
            let is_urgent = next.is_none();
            let Some(next) = next.or_else(|| self.urgent(&views, floor, is_last)) else { break };
            let Assignment { source, bytes } = next;
            let Some(view) = views.get(source).filter(|view| view.can_take && bytes > 0) else { break };
            let range = if view.is_on_probation && !is_last && !is_urgent {
                let rates = views.iter().map(|view| view.rate).fold(0, u64::saturating_add);
                let ahead = floor.saturating_add(bytes_in(rates, PROBATION_AHEAD));
                self.open.take_ahead(ahead, bytes, self.credit)
            } else {
                // What lies beyond the credit would be in the way of what comes to lie before it.
                let start = self.open.start_for(view.path, is_last);
                start.and_then(|start| self.open.take(start, bytes.min(self.credit.saturating_sub(start))))
            };
            let Some(range) = range.filter(|range| !range.is_empty()) else { break };
            if let Some(own) = self.own.as_mut().filter(|_| view.path.is_primary()) {
                self.sources[source].on_work(now, self.rtt);
                own.assign(range);
                (self.sources[source].owes, self.sources[source].unsent) = own.owes();
                self.sources[source].report.ranges += 1;
            } else {
                self.leave(now, source, range, false);
            }
        }
    }

    /// The lowest bytes that did not arrive were given to nobody, and everybody has enough: the reader waits for them, so
    /// whoever would be the first with them gets them, however much it has.
    fn urgent(&self, views: &[SourceView], floor: u64, is_last: bool) -> Option<Assignment> {
        let start = self.open.start().filter(|start| *start == floor)?;
        let suits = |(_, view): &(usize, &SourceView)| {
            view.can_take && self.open.start_for(view.path, is_last) == Some(start) && (view.is_joined || view.is_own())
        };
        let sources = views.iter().enumerate().filter(suits);
        let (source, _) = sources.min_by_key(|(_, view)| (view.is_on_probation, view.ready_in))?;
        Some(Assignment { source, bytes: URGENT_BYTES })
    }

    /// Leaves a range to a source, once the application gave the request for it.
    fn leave(&mut self, now: Instant, source: usize, range: Range<u64>, is_copy: bool) {
        let (source, rtt) = (&mut self.sources[source], self.rtt);
        self.requests.push_back((source.path, range.clone()));
        source.on_assigned(now, range, is_copy, rtt);
    }

    /// Has others write what the primary wrote and what is late.
    fn copy(&mut self, now: Instant) {
        while let Some(range) = self.copies.front().cloned() {
            let can_take = |(_, source): &(usize, &Source)| {
                source.standing == Standing::Joined && source.can_take(now) && !source.path.is_primary()
            };
            let others = self.sources.iter().enumerate().filter(can_take);
            let Some((index, _)) = others.min_by_key(|(_, source)| source.ready_in(self.rtt)) else { break };
            self.copies.pop_front();
            self.leave(now, index, range, true);
        }
    }

    /// Grants what was answered.
    fn issue(&mut self, now: Instant, session: &mut SessionMut<'_>) -> Result<(), DistributeError> {
        while let Some((path, range, request)) = self.answers.pop_front() {
            let Some(source) = self.sources.iter_mut().find(|source| source.path == path) else { continue };
            // It may have been taken back meanwhile.
            let Some(is_copy) = source.is_assigned(&range) else { continue };
            let mut stream = session.stream_mut(self.stream);
            let granted = if is_copy {
                stream.delegate_copy(path, range.clone(), request)
            } else {
                stream.delegate_range(path, range.clone(), request)
            };
            match granted {
                Ok(grant) => source.on_granted(now, &grant),
                Err(error) => {
                    source.on_refused(&range, &mut self.open);
                    match error {
                        DelegateError::TooMany => source.crowded_until = now.checked_add(Self::TICK),
                        DelegateError::PathDead(_) | DelegateError::PathUnknown(_) => source.standing = Standing::Out,
                        // Everything of it arrived, or was lost with the primary's own.
                        DelegateError::Uncovered { .. } => {}
                        error => return Err(error.into()),
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes what was supplied, the lowest first.
    fn write(&mut self, now: Instant, session: &mut SessionMut<'_>) -> Result<(), DistributeError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        let Some(source) = self.sources.iter_mut().find(|source| source.path.is_primary()) else { return Ok(()) };
        while let Some((offset, data)) = own.next_supplied() {
            let taken = match session.stream_mut(self.stream).write_at(StreamOffset(offset), data) {
                Ok(taken) => taken as u64,
                Err(WriteError::Blocked) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            source.report.bytes += taken;
            own.on_written(now, source.expected(0, self.rtt), taken);
        }
        Ok(())
    }

    fn set_deadline(&mut self, now: Instant) {
        let owes = self.sources.iter().any(|source| !source.held.is_empty());
        let tick = now.checked_add(Self::TICK).filter(|_| owes || !self.open.is_empty());
        self.deadline = self.sources.iter().filter_map(|source| source.deadline(now)).chain(tick).min();
    }
}
