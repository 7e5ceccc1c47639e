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
    helpers: Vec<PathId>,
    plan: Plan,
    /// The delegations whose end is not known, by where they begin in the file.
    delegations: BTreeMap<u64, Arc<Delegation>>,
    ends: JoinSet<(Arc<Delegation>, Result<(), Lost>)>,
    own: Option<OwnChunk>,
    tally: Tally,
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
        helpers: Vec<PathId>,
    ) -> Self {
        let plan = Plan::new(content.length(), helpers.len() + 1, request.window_bytes);
        Self {
            session,
            stream,
            content,
            name: &request.name,
            start,
            helpers,
            plan,
            delegations: BTreeMap::new(),
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
            self.delegate()?;
            if self.own.is_none() {
                self.take_own_chunk().await?;
            }
            if self.own.is_some() {
                self.write_own_piece().await?;
            } else if !self.plan.is_done() {
                self.wait(&mut events).await?;
            }
        }
        Ok(self.tally)
    }

    /// Gives every path with capacity the next chunks.
    fn delegate(&mut self) -> Result<()> {
        for info in self.session.active_paths() {
            if info.state != PathState::Active || !self.helpers.contains(&info.id) {
                continue;
            }
            let under_way = self.delegations.values().filter(|delegation| delegation.path() == info.id).count();
            for _ in under_way..DELEGATIONS_PER_PATH {
                let Some(range) = self.plan.take() else { return Ok(()) };
                if !self.delegate_range(info.id, range)? {
                    break;
                }
            }
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
        self.delegations.insert(range.start, Arc::clone(&delegation));
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
        if missing.is_empty() {
            *self.tally.ranges.entry(delegation.path()).or_default() += 1;
        }
        self.tally.lost_ranges += missing.len() as u64;
        self.plan.settle(&range, &missing);
        self.delegations.remove(&range.start);
    }

    /// Takes back what a path that fell silent still owes, rather than wait until it is known to be dead.
    fn revoke_from_suspects(&self) {
        let paths = self.session.all_paths();
        let suspects = paths.iter().filter(|path| path.state == PathState::Suspect);
        for suspect in suspects {
            for delegation in self.delegations.values().filter(|delegation| delegation.path() == suspect.id) {
                // One that ended meanwhile cannot be taken back, and its end is about to be seen.
                let _ = delegation.revoke();
            }
        }
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
