//! Who writes what: every server takes its next chunk when it is about to run dry, the lowest bytes that nobody was given.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::{Dir, PathId, SessionMut, StreamHandle, StreamOffset};

use super::SEND_BUFFER_BYTES;
use super::open::Open;
use super::source::{RangeSource, Speed, bytes_in, time_for};
use crate::content::RepeatedContent;
use std::ops::Range;

/// What the primary does.
pub(super) struct Shares {
    content: RepeatedContent,
    stream: Option<StreamHandle>,
    open: Open,
    sources: Vec<RangeSource>,
    own: Speed,
    own_chunk: Range<u64>,
    rtt: Duration,
    is_finished: bool,
}

impl Shares {
    const CHUNK_MIN: u64 = 32 * 1024;
    const CHUNK_MAX: u64 = 1024 * 1024;
    /// A chunk takes its server about so long.
    const CHUNK_TIME: Duration = Duration::from_millis(20);

    pub(super) fn new(bytes: u64, content: RepeatedContent) -> Self {
        Self {
            content,
            stream: None,
            open: Open::new(bytes),
            sources: Vec::new(),
            own: Speed::default(),
            own_chunk: 0..0,
            rtt: Duration::ZERO,
            is_finished: false,
        }
    }

    /// A further server may write.
    pub(super) fn add_path(&mut self, path: PathId, is_known: bool) {
        self.sources.push(RangeSource::new(path, is_known));
    }

    /// Something happened in the session: hands out what can be.
    pub(super) fn act(&mut self, now: Instant, session: &mut SessionMut<'_>) {
        if self.stream.is_none() {
            self.stream = session.accept_stream(Dir::Bi);
        }
        let Some(stream) = self.stream else { return };
        self.look(now, session);
        self.delegate(session, stream);
        self.write(session, stream);
        if !self.is_finished && self.open.is_empty() && self.own_chunk.is_empty() {
            // The end of the stream is known; what is lost below it may still be written.
            self.is_finished = session.stream_mut(stream).finish().is_ok();
        }
    }

    fn look(&mut self, now: Instant, session: &mut SessionMut<'_>) {
        for info in session.all_paths() {
            if info.id.is_primary() {
                self.rtt = info.rtt;
                self.own.on_total(now, info.rtt, info.bytes);
            } else if let Some(source) = self.sources.iter_mut().find(|source| source.path == info.id) {
                source.on_info(&info);
            }
        }
        for source in &mut self.sources {
            source.look(now, session, &mut self.open);
        }
        self.sources.retain(|source| !source.is_dead());
    }

    fn delegate(&mut self, session: &mut SessionMut<'_>, stream: StreamHandle) {
        for index in 0..self.sources.len() {
            while self.sources[index].owes() < self.sources[index].wanted(self.rtt) {
                let source = &self.sources[index];
                let (path, rate, all) = (source.path, source.bytes_per_second(), self.bytes_per_second());
                let lead = self.lead(source.eta(self.rtt)).unwrap_or(0);
                if lead >= self.open.left() && all > rate {
                    // The others would be through with the rest before.
                    break;
                }
                let Some(range) = self.open.take(chunk(rate, all, self.open.left())) else { break };
                let Ok(grant) = session.stream_mut(stream).delegate_range(path, range.clone(), Bytes::new()) else {
                    self.open.give_back(range);
                    break;
                };
                self.sources[index].on_granted(grant);
            }
        }
    }

    /// The primary's own chunks: it takes one when its buffer took the last.
    fn write(&mut self, session: &mut SessionMut<'_>, stream: StreamHandle) {
        loop {
            if self.own_chunk.is_empty() {
                let (rate, all) = (self.own.bytes_per_second(), self.bytes_per_second());
                let lead = self.lead(self.own_eta()).unwrap_or(0);
                if lead >= self.open.left() && all > rate {
                    return;
                }
                let Some(range) = self.open.take(chunk(rate, all, self.open.left())) else { return };
                self.own_chunk = range;
            }
            let Range { start, end } = self.own_chunk;
            let data = self.content.at(start, end - start);
            let Ok(taken) = session.stream_mut(stream).write_at(StreamOffset(start), data) else { return };
            self.own_chunk.start += taken as u64;
        }
    }

    /// What all the servers bring before the bytes of a server that arrive after `eta`, from when the earliest of theirs
    /// arrive.
    fn lead(&self, eta: Option<Duration>) -> Option<u64> {
        let etas = self.sources.iter().filter_map(|source| source.eta(self.rtt)).chain(self.own_eta());
        let ahead = eta?.saturating_sub(etas.min()?);
        Some(bytes_in(self.bytes_per_second(), ahead))
    }

    fn own_eta(&self) -> Option<Duration> {
        let wait = time_for(SEND_BUFFER_BYTES as u64, self.own.bytes_per_second())?;
        // QUIC takes about a round trip's worth ahead of time.
        Some(wait + self.rtt * 3 / 2)
    }

    fn bytes_per_second(&self) -> u64 {
        self.own.bytes_per_second() + self.sources.iter().map(RangeSource::bytes_per_second).sum::<u64>()
    }
}

/// The next chunk for a server of such a rate: what it brings in a while, at the end no more than its share of what is
/// left.
fn chunk(rate: u64, all: u64, left: u64) -> u64 {
    /// Less is not worth a grant.
    const CHUNK_LAST: u64 = 16 * 1024;
    let usual = bytes_in(rate, Shares::CHUNK_TIME).clamp(Shares::CHUNK_MIN, Shares::CHUNK_MAX);
    let share = left.saturating_mul(rate) / all.max(1);
    if rate == 0 { usual } else { usual.min(share.max(CHUNK_LAST)) }
}
