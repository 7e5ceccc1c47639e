//! The client: which source fetches which piece.

use std::cmp::Reverse;
use std::time::Instant;

use quinn_proto::{Connection, Event};

use super::chunks::Strategy;
use super::node::{Connections, Program};
use super::object::Object;
use super::source::Source;

/// Fetches an object from its sources.
pub(super) struct Fetcher {
    strategy: Strategy,
    object: Object,
    sources: Vec<Source>,
}

impl Fetcher {
    /// Chunks that a connection has under way.
    const CHUNKS_EACH: usize = 2;
    /// Pieces that all connections together have under way.
    const PIECES_IN_ALL: usize = 8;

    pub(super) fn new(strategy: Strategy, object: Object) -> Self {
        Self { strategy, object, sources: Vec::new() }
    }

    /// A connection was dialled.
    pub(super) fn add_source(&mut self, now: Instant, number: usize) {
        self.sources.push(Source::new(number, now));
    }

    /// Reads what came. Of a piece that two sources fetch, the other one is stopped once it is whole.
    fn read(&mut self, now: Instant, connections: &mut Connections) {
        let mut whole = Vec::new();
        for source in &mut self.sources {
            if let Some(quic) = connections.get_mut(&source.number) {
                whole.extend(source.read(now, quic, &mut self.object));
            }
        }
        for piece in whole {
            for source in &mut self.sources {
                if let Some(quic) = connections.get_mut(&source.number) {
                    source.stop(quic, &mut self.object, piece);
                }
            }
        }
    }

    /// Leaves sources that stalled, but never the last, and takes up those that something came from.
    fn leave_stalled(&mut self, now: Instant, connections: &mut Connections) {
        for source in &mut self.sources {
            if let Some(quic) = connections.get(&source.number) {
                source.take_up(quic);
            }
        }
        for index in 0..self.sources.len() {
            let is_late = self.may_leave(index).is_some_and(|at| at <= now);
            let source = &mut self.sources[index];
            if let Some(quic) = connections.get_mut(&source.number).filter(|_| is_late) {
                source.leave(quic, &mut self.object);
            }
        }
    }

    /// When a source is to be left, if it brings nothing till then.
    fn may_leave(&self, index: usize) -> Option<Instant> {
        let mut others = self.sources.iter().enumerate().filter(|(other, _)| *other != index);
        let has_others = others.any(|(_, source)| source.is_usable());
        self.sources[index].stalls_at().filter(|_| has_others)
    }

    /// Every connection has two chunks under way, the lowest first. If all are begun, one that has none fetches one of
    /// another a second time.
    fn begin_chunks(&mut self, now: Instant, connections: &mut Connections) {
        let mut has_begun = true;
        while std::mem::take(&mut has_begun) {
            for index in 0..self.sources.len() {
                let source = &self.sources[index];
                if !source.is_usable() || source.under_way() >= Self::CHUNKS_EACH {
                    continue;
                }
                let again = if source.under_way() == 0 { self.object.most_missing() } else { None };
                if let Some(piece) = self.object.lowest_unbegun().or(again) {
                    has_begun |= self.begin(now, connections, index, piece);
                }
            }
        }
    }

    /// As many pieces as may be are under way, each new one at the source that seems best.
    fn begin_pieces(&mut self, now: Instant, connections: &mut Connections) {
        while self.sources.iter().map(Source::under_way).sum::<usize>() < Self::PIECES_IN_ALL {
            let Some(piece) = self.object.lowest_unbegun() else { return };
            let Some(index) = self.best(now) else { return };
            if !self.begin(now, connections, index, piece) {
                return;
            }
        }
    }

    /// A source that was asked for nothing, or else the one that brought most in the last second, of those that ever
    /// brought something.
    fn best(&mut self, now: Instant) -> Option<usize> {
        let usable = || (0..self.sources.len()).filter(|index| self.sources[*index].is_usable());
        let is_new = |index: &usize| !self.sources[*index].is_known && self.sources[*index].under_way() == 0;
        if let Some(new) = usable().find(is_new) {
            return Some(new);
        }
        let known: Vec<usize> = usable().filter(|index| self.sources[*index].is_known).collect();
        known.into_iter().max_by_key(|index| {
            let source = &mut self.sources[*index];
            (source.rate(now), Reverse(source.under_way()), Reverse(*index))
        })
    }

    fn begin(&mut self, now: Instant, connections: &mut Connections, index: usize, piece: usize) -> bool {
        let source = &mut self.sources[index];
        let quic = connections.get_mut(&source.number);
        quic.is_some_and(|quic| source.begin(now, quic, &mut self.object, piece))
    }
}

impl Program for Fetcher {
    fn on_event(&mut self, number: usize, _: &mut Connection, event: &Event) {
        let Some(source) = self.sources.iter_mut().find(|source| source.number == number) else { return };
        match event {
            Event::Connected => source.on_connected(),
            Event::ConnectionLost { .. } => source.on_lost(&mut self.object),
            _ => {}
        }
    }

    fn act(&mut self, now: Instant, connections: &mut Connections) {
        self.read(now, connections);
        match self.strategy {
            Strategy::Chunks => {
                self.leave_stalled(now, connections);
                self.begin_chunks(now, connections);
            }
            Strategy::Pieces => self.begin_pieces(now, connections),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        match self.strategy {
            Strategy::Chunks => (0..self.sources.len()).filter_map(|index| self.may_leave(index)).min(),
            Strategy::Pieces => None,
        }
    }
}
