//! An answer that a distributor writes, instead of a plan that was made before.

use std::collections::BTreeSet;
use std::time::Instant;

use kwik_core::{Adaptive, DistributeError, Distributor, PathId, ReadOrder, SessionMut, StreamHandle};

use super::message::GrantRequest;
use super::server::Tools;
use crate::checks::Flow;
use crate::content::bytes_at;

/// More turns at one moment than a distribution takes until it is content.
const TURNS_MAX: u32 = 2000;

/// The distribution of one answer over the primary and every secondary that there is.
#[derive(Debug)]
pub(super) struct Distributed {
    distributor: Distributor,
    sources: BTreeSet<PathId>,
}

impl Distributed {
    pub(super) fn new(stream: StreamHandle, size: u64, tools: &mut Tools<'_>) -> Self {
        let order = if tools.chance(50) { ReadOrder::Ordered } else { ReadOrder::Unordered };
        let mut distributor = Distributor::new(stream, 0..size, Box::new(Adaptive::new(order)));
        distributor.add_source(tools.now, PathId::PRIMARY);
        tools.model.coverage.work("distribute");
        Self { distributor, sources: BTreeSet::new() }
    }

    /// Has it act until it is content. Returns how many bytes were given to somebody.
    pub(super) fn act(
        &mut self,
        flow: Flow,
        session: &mut SessionMut<'_>,
        tools: &mut Tools<'_>,
    ) -> Result<u64, DistributeError> {
        for path in session.all_paths() {
            if !path.id.is_primary() && !path.state.is_dead() && self.sources.insert(path.id) {
                self.distributor.add_source(tools.now, path.id);
            }
        }
        let mut issued = 0;
        for _ in 0..TURNS_MAX {
            self.distributor.act(tools.now, session)?;
            let before = issued;
            while let Some((path, range)) = self.distributor.poll_request() {
                let request = GrantRequest { token: flow.token, stream: flow.stream.0 };
                // The model hears of it first: the server may be asked before anybody else acts.
                tools.model.delegated(flow, path, range.clone());
                tools.model.coverage.work("distribute: left to a secondary");
                issued += range.end - range.start;
                self.distributor.answer(path, range, request.encode(tools.rng.index(200)));
            }
            while let Some(range) = self.distributor.poll_own() {
                tools.model.wrote(flow, range.clone());
                issued += range.end - range.start;
                self.distributor.supply(range.start, bytes_at(flow.key(), range));
            }
            if issued == before {
                return Ok(issued);
            }
        }
        tools.model.violate(format!("{flow:?}: its distribution is never content"));
        Ok(issued)
    }

    pub(super) fn is_done(&self) -> bool {
        self.distributor.is_done()
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.distributor.poll_timeout()
    }

    pub(super) fn release(&mut self, session: &mut SessionMut<'_>) {
        self.distributor.release(session);
    }
}
