//! The primary's work on one file: every chunk goes to whichever source has capacity, the primary itself being one.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use anyhow::{Context, Result};
use kwik_tokio::{
    DelegateError, Delegation, Lost, PathEvents, PathId, PathState, ServerSendStream, ServerSession, StreamOffset,
    bytes::Bytes,
};
use tokio::task::JoinSet;

use crate::{
    content::Content,
    message::{self, Command, Request},
    plan::Plan,
};

/// Delegations of one path at a time: while one arrives the next is known, and a fast path asks for more sooner.
const DELEGATIONS_PER_PATH: usize = 3;

/// Bytes that the primary writes before it looks whether a path has capacity again.
const PIECE_BYTES: usize = 64 * 1024;

/// What the sources did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Ranges that each path delivered.
    pub(crate) ranges: BTreeMap<PathId, u64>,
    /// Ranges that one source did not deliver and another one did.
    pub(crate) lost_ranges: u64,
}

/// A file on its way into a stream.
pub(crate) struct Transfer<'a> {
    session: &'a ServerSession,
    stream: &'a mut ServerSendStream,
    content: Content,
    name: &'a str,
    /// Where the file begins in the stream.
    start: u64,
    holders: Vec<PathId>,
    plan: Plan,
    /// The delegations whose end is not known, by where they begin in the file.
    under_way: BTreeMap<u64, UnderWay>,
    ends: JoinSet<(Arc<Delegation>, Result<(), Lost>)>,
    own: Option<OwnChunk>,
    tally: Tally,
}

/// A range that a secondary writes.
struct UnderWay {
    delegation: Arc<Delegation>,
    is_revoked: bool,
}

/// A chunk that the primary writes itself.
struct OwnChunk {
    range: Range<u64>,
    rest: Bytes,
}

impl<'a> Transfer<'a> {
    pub(crate) fn new(
        session: &'a ServerSession,
        stream: &'a mut ServerSendStream,
        content: Content,
        request: &'a Request,
        start: u64,
        holders: Vec<PathId>,
    ) -> Self {
        let plan = Plan::new(content.length(), holders.len() + 1, request.window_bytes);
        Self {
            session,
            stream,
            content,
            name: &request.name,
            start,
            holders,
            plan,
            under_way: BTreeMap::new(),
            ends: JoinSet::new(),
            own: None,
            tally: Tally::default(),
        }
    }

    /// Returns when the primary has written its chunks and the client has the others.
    pub(crate) async fn run(mut self) -> Result<Tally> {
        let mut events = self.session.path_events();
        while !self.plan.is_done() {
            while let Some(end) = self.ends.try_join_next() {
                let (delegation, outcome) = end?;
                self.settle(&delegation, outcome);
            }
            self.revoke_from_suspects();
            if self.own.is_none() {
                self.take_own_chunk().await?;
            }
            self.delegate()?;
            if self.own.is_some() {
                self.write_own_piece().await?;
            } else if !self.plan.is_done() {
                self.wait(&mut events).await?;
            }
        }
        Ok(self.tally)
    }

    /// Gives the next chunks to the paths with capacity, the least busy one first.
    fn delegate(&mut self) -> Result<()> {
        let paths = self.session.active_paths();
        let ready = paths.iter().filter(|path| path.state == PathState::Active && self.holders.contains(&path.id));
        let mut loads: Vec<_> = ready.map(|path| (self.under_way_on(path.id).count(), path.id)).collect();
        while let Some((load, path)) = loads.iter_mut().min() {
            if *load >= DELEGATIONS_PER_PATH {
                break;
            }
            let Some(range) = self.plan.take() else { break };
            *load = if self.delegate_range(*path, range)? { *load + 1 } else { DELEGATIONS_PER_PATH };
        }
        Ok(())
    }

    /// Returns whether the path took the range.
    fn delegate_range(&mut self, path: PathId, range: Range<u64>) -> Result<bool> {
        let command = Command { name: self.name.to_owned(), offset: range.start, length: range.end - range.start };
        let place = self.start + range.start..self.start + range.end;
        let delegation = match self.stream.delegate_range(path, place, message::encode(&command)?) {
            Ok(delegation) => Arc::new(delegation),
            Err(DelegateError::PathDead(_) | DelegateError::TooMany) => {
                self.plan.settle(&range, std::slice::from_ref(&range));
                return Ok(false);
            }
            Err(error) => return Err(error).with_context(|| format!("{range:?} was not delegated to {path}")),
        };
        self.under_way.insert(range.start, UnderWay { delegation: Arc::clone(&delegation), is_revoked: false });
        self.ends.spawn(async move {
            let outcome = delegation.delivered().await;
            (delegation, outcome)
        });
        Ok(true)
    }

    /// A delegation is over. What is missing of it goes back to the plan.
    fn settle(&mut self, delegation: &Delegation, outcome: Result<(), Lost>) {
        let range = self.in_file(&delegation.range());
        let missing: Vec<_> = match &outcome {
            Ok(()) => Vec::new(),
            Err(lost) => lost.missing.iter().map(|range| self.in_file(range)).collect(),
        };
        let is_revoked = self.under_way.remove(&range.start).is_some_and(|range| range.is_revoked);
        if missing.is_empty() {
            *self.tally.ranges.entry(delegation.path()).or_default() += 1;
        } else if !is_revoked {
            // A server that gave up by itself would give up again.
            self.holders.retain(|path| *path != delegation.path());
        }
        self.tally.lost_ranges += missing.len() as u64;
        self.plan.settle(&range, &missing);
    }

    /// Takes back what a path that fell silent still owes, rather than wait until it is known to be dead.
    fn revoke_from_suspects(&mut self) {
        for path in self.session.active_paths().iter().filter(|path| path.state == PathState::Suspect) {
            let owed = self.under_way.values_mut().filter(|range| range.delegation.path() == path.id);
            for range in owed.filter(|range| !range.is_revoked) {
                eprintln!("primary: {} fell silent, {:?} is taken back", path.id, range.delegation.range());
                range.is_revoked = true;
                // One that ended meanwhile cannot be taken back, and its end is about to be seen.
                let _ = range.delegation.revoke();
            }
        }
    }

    fn under_way_on(&self, path: PathId) -> impl Iterator<Item = &UnderWay> {
        self.under_way.values().filter(move |range| range.delegation.path() == path)
    }

    async fn take_own_chunk(&mut self) -> Result<()> {
        if let Some(range) = self.plan.take() {
            let rest = self.content.read(range.clone()).await?;
            self.own = Some(OwnChunk { range, rest });
        }
        Ok(())
    }

    /// Writes the next piece of the primary's own chunk. Its place is explicit: others write before and after it.
    async fn write_own_piece(&mut self) -> Result<()> {
        let Some(chunk) = &mut self.own else { return Ok(()) };
        let place = self.start + chunk.range.end - chunk.rest.len() as u64;
        let piece = chunk.rest.split_to(PIECE_BYTES.min(chunk.rest.len()));
        self.stream.write_at(StreamOffset(place), piece).await?;
        if chunk.rest.is_empty() {
            self.plan.settle(&chunk.range, &[]);
            self.own = None;
            *self.tally.ranges.entry(PathId::PRIMARY).or_default() += 1;
        }
        Ok(())
    }

    /// Waits until there may be something to do: a delegation ended, or a path changed.
    async fn wait(&mut self, events: &mut PathEvents) -> Result<()> {
        tokio::select! {
            Some(end) = self.ends.join_next() => {
                let (delegation, outcome) = end?;
                self.settle(&delegation, outcome);
            }
            event = events.recv() => drop(event.context("the session ended")?),
        }
        Ok(())
    }

    fn in_file(&self, range: &Range<u64>) -> Range<u64> {
        range.start - self.start..range.end - self.start
    }
}
