//! How a run ends: everything is well again, every application does what it still has to, woken by events alone, and
//! then nothing may be left.

use std::time::Duration;

use kwik_core::{Dir, PathId, SessionHandle, Side, WriteError};
use kwik_sim::{Disturbance, NodeId, RestartState};

use crate::fixture::{Fixture, Slot, Wake};
use crate::model::StreamHalf;
use crate::op::RawParty;

/// Longer than silence, retries and transfers take all together.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long closed connections may linger.
const LINGER: Duration = Duration::from_secs(600);

impl Fixture {
    /// Heals the world and plays every application to its end.
    pub(crate) fn settle(&mut self) {
        self.heal();
        self.wake_everybody();
        let done = self.run_until(PATIENCE, |fixture| {
            fixture.serve_all();
            fixture.open_work().is_none()
        });
        assert!(done, "{PATIENCE:?} after all is well, something is open: {:?}", self.open_work());
        self.close_all();
    }

    fn heal(&mut self) {
        self.world.inject(Disturbance::HealAll);
        self.paused.clear();
        for node in self.world.nodes().collect::<Vec<_>>() {
            if self.world.is_crashed(node) {
                self.world.inject(Disturbance::Restart { node, state: RestartState::Kept });
            }
        }
        let byzantines: Vec<_> = self.paths.iter().copied().filter(|path| self.model.is_byzantine(*path)).collect();
        for path in byzantines {
            self.remove_path(path);
        }
        self.run_for(Duration::ZERO);
    }

    /// As when every task runs for the first time: from now on events alone wake them.
    fn wake_everybody(&mut self) {
        for end in &self.ends {
            let Some(session) = end.session else { continue };
            self.wakes.insert(Wake::Accept(end.node, session));
            self.wakes.insert(Wake::Raw(end.node, session));
            let streams = end.slots.iter().flatten().map(|slot| Wake::Stream(end.node, session, slot.handle));
            self.wakes.extend(streams);
        }
        for secondary in &self.secondaries {
            let (node, session) = (secondary.node, secondary.session);
            self.wakes.extend([Wake::Accept(node, session), Wake::Raw(node, session)]);
            self.wakes.extend(secondary.parts.iter().map(|part| Wake::Stream(node, session, part.handle)));
        }
    }

    /// Lets every application that was woken act.
    fn serve_all(&mut self) {
        while let Some(wake) = self.wakes.pop_first() {
            match wake {
                Wake::Accept(node, session) => self.accept_all((node, session)),
                Wake::Raw(node, session) => {
                    let nth = |path| self.paths.iter().position(|known| *known == path);
                    let secondary = self.secondaries.iter().find(|it| (it.node, it.session) == (node, session));
                    let at = match secondary {
                        Some(secondary) => nth(secondary.path).map(RawParty::Path),
                        None => (self.ends[1].session == Some(session)).then_some(RawParty::Primary),
                    };
                    while at.is_some_and(|at| self.recv_raw(at).is_some()) {}
                }
                Wake::Stream(node, session, stream) => {
                    let end = self.ends.iter().find(|end| (end.node, end.session) == (node, Some(session)));
                    let slot = end.and_then(|end| end.slots.iter().flatten().find(|slot| slot.handle == stream));
                    if let (Some(end), Some(slot)) = (end, slot.copied()) {
                        self.serve(end.side, slot);
                        continue;
                    }
                    let at = self.secondaries.iter().position(|it| (it.node, it.session) == (node, session));
                    let Some(at) = at else { continue };
                    let parts = &self.secondaries[at].parts;
                    if let Some(part) = parts.iter().position(|part| part.handle == stream) {
                        self.serve_part(at, part);
                    }
                }
                Wake::Delegation(half) => {
                    let slot = self.ends[1].slots.iter().flatten().find(|slot| slot.stream == half.stream);
                    if let Some(slot) = slot.copied() {
                        self.serve(Side::Server, slot);
                    }
                }
            }
        }
    }

    fn accept_all(&mut self, at: (NodeId, SessionHandle)) {
        if let Some(side) =
            self.ends.iter().find(|end| (end.node, end.session) == (at.0, Some(at.1))).map(|end| end.side)
        {
            for dir in Dir::ALL {
                let next = |fixture: &mut Self| fixture.session_at(side).and_then(|mut it| it.accept_stream(dir));
                while let Some(handle) = next(self) {
                    let stream = self.session_at(side).and_then(|session| session.stream(handle).id());
                    let stream = stream.expect("just accepted");
                    let place = self.end(side).slots.len();
                    self.opened(side, place, handle, stream);
                    self.wakes.insert(Wake::Stream(at.0, at.1, handle));
                }
            }
            return;
        }
        let Some(at) = self.secondaries.iter().position(|it| (it.node, it.session) == at) else { return };
        while let Some(part) = self.accept_part(at) {
            self.read_request(at, part);
            self.serve_part(at, part);
        }
    }

    /// Reads what there is, ends the stream, and writes what nobody else writes.
    fn serve(&mut self, side: Side, slot: Slot) {
        let incoming = StreamHalf { stream: slot.stream, writer: side.peer() };
        if slot.receives && !self.model.is_read(incoming) {
            let ordered = !self.model.record(incoming).read_unordered;
            while self.read(side, slot, usize::MAX, ordered) == Some(Ok(())) {}
        }
        let outgoing = StreamHalf { stream: slot.stream, writer: side };
        if !slot.sends || self.model.record(outgoing).reset.is_some() {
            return;
        }
        // To finish once more is to be woken once more.
        if self.model.record(outgoing).size.is_none() && self.finish(side, slot) != Some(Ok(())) {
            return;
        }
        loop {
            let record = self.model.record(outgoing);
            let gap = record.first_gap();
            if gap.start >= record.end() {
                return;
            }
            match self.write(side, slot, Some(gap.start), (gap.end - gap.start).min(16 * 1024)) {
                Some(Ok(_)) => {}
                Some(Err(WriteError::Blocked | WriteError::Stopped(_) | WriteError::SessionClosed)) | None => return,
                Some(Err(error)) => panic!("{gap:?} of {outgoing:?} was not filled: {error}"),
            }
        }
    }

    /// Writes what is left of a part, and ends it.
    fn serve_part(&mut self, at: usize, nth: usize) {
        loop {
            let part = &self.secondaries[at].parts[nth];
            if part.is_over {
                return;
            }
            let Some(gap) = part.written.gaps(part.range.clone()).into_iter().next() else { break };
            match self.write_part(at, nth, Some(gap.start), (gap.end - gap.start).min(16 * 1024)) {
                Some(Ok(_)) => {}
                _ => return,
            }
        }
        self.finish_part(at, nth);
    }

    /// Something that somebody still waits for, by those whose session is open.
    fn open_work(&mut self) -> Option<String> {
        let alive = [0, 1].map(|at| self.ends[at].session.is_some() && self.ends[at].over.is_none());
        for at in [0, 1].into_iter().filter(|at| alive[*at]) {
            let side = self.ends[at].side;
            if !alive[1 - at] || self.ends.iter().any(|end| end.closed.is_some()) {
                return Some(format!("the session of the {side:?}, whose peer is gone"));
            }
            for slot in self.ends[at].slots.clone().into_iter().flatten() {
                let half = StreamHalf { stream: slot.stream, writer: side.peer() };
                if slot.receives && !self.model.is_read(half) {
                    return Some(format!("{half:?}, which is not read: {:?}", self.model.record(half)));
                }
                let is_sent = self.session_at(side).is_none_or(|it| it.stream(slot.handle).is_send_done());
                if slot.sends && !is_sent {
                    let half = StreamHalf { stream: slot.stream, writer: side };
                    return Some(format!("{half:?}, which is not acknowledged: {:?}", self.model.record(half)));
                }
            }
        }
        if let Some(offered) = self.offered.first().filter(|_| alive == [true, true]) {
            return Some(format!("{offered:?} was never accepted"));
        }
        let active = self.delegations.iter().find(|(_, delegated)| delegated.is_active && alive[1]);
        if let Some((grant, delegated)) = active {
            return Some(format!("{grant:?}: {delegated:?}"));
        }
        let lives = |path: PathId| match self.secondary_of(path) {
            Some(at) => self.secondaries[at].over.is_none(),
            None => path.is_primary() && alive[1],
        };
        let waiting = self.raw_sent.iter().find(|(from, ..)| lives(*from));
        waiting.map(|(from, to, sequence)| format!("raw packet {sequence} from {from} to {to}, without a receipt"))
    }

    /// Every session ends, and leaves nothing.
    fn close_all(&mut self) {
        if let Some(byzantine) = self.byzantine {
            self.world.crash(byzantine);
        }
        let is_open = |end: &crate::fixture::SessionEnd| end.session.is_some() && end.over.is_none();
        let closer = self.ends.iter().find(|end| is_open(end)).map(|end| end.side);
        if let Some(side) = closer {
            self.close(side, 3);
        }
        let over = self.run_until(LINGER, |fixture| {
            fixture.wakes.clear();
            let ends = fixture.ends.iter().all(|end| end.session.is_none() || end.over.is_some());
            ends && fixture.secondaries.iter().all(|secondary| secondary.over.is_some())
        });
        let left = || self.secondaries.iter().filter(|it| it.over.is_none()).map(|it| it.path).collect::<Vec<_>>();
        assert!(over, "sessions go on: {:?}, {:?}", self.ends.iter().map(|end| &end.over).collect::<Vec<_>>(), left());
        let now = self.world.now();
        let ends = self.ends.iter().filter_map(|end| Some((end.node, end.session?)));
        let secondaries = self.secondaries.iter().map(|it| (it.node, it.session));
        for (node, session) in ends.chain(secondaries).collect::<Vec<_>>() {
            self.world.endpoint(node).release(now, session);
        }
        let honest: Vec<NodeId> = self.servers.iter().copied().chain([self.client]).collect();
        let idle = self.world.run_until(LINGER, |world| honest.iter().all(|node| world.endpoint(*node).is_idle()));
        self.world.run_for(Duration::ZERO);
        for node in honest {
            let endpoint = self.world.endpoint(node);
            assert!(idle && endpoint.is_idle() && endpoint.poll_timeout().is_none(), "{node} is not at rest");
        }
    }
}
