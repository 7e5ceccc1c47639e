//! What operations do that only servers know: paths, delegations, raw packets and parts.

use std::time::Instant;

use bytes::Bytes;
use kwik_core::{
    AddPathError, DelegateError, Dir, FinishError, PathError, PathId, PathState, RawError, ReadError, SessionHandle,
    SessionMut, Side, StreamOffset, WriteError,
};
use kwik_sim::NodeId;

use crate::fixture::{AcceptedGrant, DelegatedRange, Fixture, raw_payload, reason_of};
use crate::model::{Spans, StreamHalf};
use crate::op::{Op, RawParty, StreamPlace};

/// A path id that no session of a run comes to.
const NO_PATH: PathId = PathId(77);

impl Fixture {
    pub(crate) fn perform_at_primary(&mut self, op: &Op) {
        match *op {
            Op::AddPath { server } => self.add_path(server),
            Op::RemovePath { path } => _ = self.paths.get(path).copied().map(|path| self.remove_path(path)),
            Op::Delegate { slot, path, len } => _ = self.delegate(slot, path, None, len),
            Op::DelegateRange { slot, path, place, len } => _ = self.delegate(slot, path, Some(place), len),
            Op::Revoke { nth } => _ = self.revoke(nth),
            Op::SendRaw { from, to, len } => _ = self.send_raw(from, to, len),
            Op::RecvRaw { at } => _ = self.recv_raw(at),
            _ => {}
        };
    }

    fn primary(&mut self) -> Option<SessionMut<'_>> {
        let (node, session) = (self.ends[1].node, self.ends[1].session?);
        self.session_mut(node, session)
    }

    fn add_path(&mut self, server: usize) {
        let now = self.world.now();
        let is_closing = self.ends.iter().any(|end| end.closed.is_some() || end.over.is_some());
        let is_byzantine = server >= self.servers.len();
        let Some(target) = self.target(server) else { return };
        let Some(mut session) = self.primary() else { return };
        let live = session.all_paths().iter().filter(|path| !path.state.is_dead()).count();
        match session.add_path(now, target) {
            Ok(path) => {
                self.paths.push(path);
                if is_byzantine {
                    self.model.distrust(path);
                }
            }
            Err(AddPathError::LimitReached { limit }) => assert_eq!(live, limit),
            Err(AddPathError::SessionClosed) => assert!(is_closing, "the session is open"),
            Err(error) => panic!("not added: {error}"),
        }
    }

    pub(crate) fn remove_path(&mut self, path: PathId) -> Option<()> {
        let result = self.primary()?.remove_path(path);
        assert_eq!(result, if path.is_primary() { Err(PathError::Primary) } else { Ok(()) });
        Some(())
    }

    fn delegate(&mut self, slot: usize, path: usize, place: Option<StreamPlace>, len: u64) -> Option<()> {
        let slot = (*self.ends[1].slots.get(slot)?)?;
        let offset = match place {
            Some(place) => Some(self.offset(Side::Server, slot, place)?),
            None => None,
        };
        let path = self
            .paths
            .get(path)
            .copied()
            .unwrap_or_else(|| if path.is_multiple_of(2) { PathId::PRIMARY } else { NO_PATH });
        let half = StreamHalf { stream: slot.stream, writer: Side::Server };
        let is_closing = self.ends.iter().any(|end| end.closed.is_some() || end.over.is_some());
        let active = self.delegations.values().filter(|delegated| delegated.is_active).count();
        let request = Bytes::from(format!("{len} bytes, please, {}", "now ".repeat(active)));
        let mut session = self.primary()?;
        let is_dead = session.path(path).is_some_and(|path| path.state.is_dead() || path.state == PathState::Closing);
        let mut stream = session.stream_mut(slot.handle);
        let result = match offset {
            Some(offset) => stream.delegate_range(path, offset..offset + len, request.clone()),
            None => stream.delegate(path, len, request.clone()),
        };
        if !slot.sends {
            assert!(result.is_err());
            return None;
        }
        let start = offset.unwrap_or_else(|| self.model.record(half).cursor);
        let range = start..start + len;
        match result {
            Ok(info) => {
                assert_eq!(info.range, range);
                self.model.delegated(half, path, range.clone(), offset.is_none());
                let delegated = DelegatedRange { half, path, range, request, is_active: true };
                assert!(self.delegations.insert(info.grant, delegated).is_none());
            }
            Err(DelegateError::OwnPath) => assert!(path.is_primary()),
            Err(DelegateError::PathUnknown(_)) => assert_eq!(path, NO_PATH),
            Err(DelegateError::PathDead(_)) => assert!(is_dead, "{path} lives"),
            Err(DelegateError::SessionClosed) => assert!(is_closing, "the session is open"),
            Err(DelegateError::TooMany) => assert!(active >= 16, "{active} are not many"),
            Err(error) => self.model.refused(half, &range, &error),
        }
        Some(())
    }

    fn revoke(&mut self, nth: usize) -> Option<()> {
        let active = self.delegations.iter().filter(|(_, delegated)| delegated.is_active);
        let grant = active.map(|(grant, _)| *grant).rev().nth(nth)?;
        let mut session = self.primary()?;
        let over = session.close_reason().is_some();
        let result = session.revoke(grant);
        assert!(result.is_ok() || over, "{grant:?}: {result:?}");
        Some(())
    }

    fn send_raw(&mut self, from: RawParty, to: RawParty, len: usize) -> Option<()> {
        let (path, node, session) = self.server_at(from)?;
        let to = match to {
            RawParty::Primary => PathId::PRIMARY,
            RawParty::Path(nth) => self.paths.get(nth).copied().unwrap_or(NO_PATH),
        };
        let sequence = self.raw_next.get(&(path, to)).copied().unwrap_or(0);
        let waiting = self.raw_sent.range((path, to, 0)..=(path, to, u64::MAX)).count();
        let mut session = self.session_mut(node, session)?;
        let is_dead = session.path(to).is_none_or(|path| path.state.is_dead());
        let payload = raw_payload(path, to, sequence, len);
        match session.send_raw(to, payload.clone()) {
            Ok(number) => {
                assert_eq!(number, sequence);
                self.raw_next.insert((path, to), sequence + 1);
                self.raw_sent.insert((path, to, sequence));
            }
            Err(RawError::TooLong { .. }) => assert!(payload.len() > 12 * 1024),
            Err(RawError::Blocked) => assert!(waiting >= 20, "{waiting} packets wait"),
            Err(RawError::OwnPath(_)) => assert_eq!(path, to),
            Err(RawError::PathUnknown(_)) => assert!(is_dead && path.is_primary()),
            // Also when the peer is about to leave, of which nobody else was told.
            Err(RawError::SessionClosed) => {}
            Err(error) => panic!("not sent: {error}"),
        }
        Some(())
    }

    pub(crate) fn recv_raw(&mut self, at: RawParty) -> Option<()> {
        let (path, node, session) = self.server_at(at)?;
        let packet = self.session_mut(node, session)?.recv_raw()?;
        self.received_raw(path, &packet);
        Some(())
    }

    // ---- secondaries

    pub(crate) fn perform_at_secondary(&mut self, op: &Op) -> Option<()> {
        let (Op::AcceptPart { path: nth }
        | Op::WritePart { path: nth, .. }
        | Op::WritePartAt { path: nth, .. }
        | Op::ReadRequest { path: nth, .. }
        | Op::FinishPart { path: nth, .. }
        | Op::ResetPart { path: nth, .. }
        | Op::ClosePart { path: nth, .. }) = *op
        else {
            return None;
        };
        let at = self.secondary_of(*self.paths.get(nth)?)?;
        match *op {
            Op::AcceptPart { .. } => self.accept_part(at).map(|_| ()),
            Op::WritePart { part, len, .. } => self.write_part(at, part, None, len).map(|_| ()),
            Op::WritePartAt { part, skip, len, .. } => {
                let offset = self.secondaries[at].parts.get(part)?.cursor + skip;
                self.write_part(at, part, Some(offset), len).map(|_| ())
            }
            Op::ReadRequest { part, .. } => self.read_request(at, part),
            Op::FinishPart { part, .. } => self.finish_part(at, part),
            Op::ResetPart { part, code, .. } => self.reset_part(at, part, code),
            Op::ClosePart { code, .. } => {
                let (node, session, now) = self.where_is(at);
                self.session_mut(node, session)?.close(now, code, &reason_of(code));
                Some(())
            }
            _ => None,
        }
    }

    fn where_is(&self, at: usize) -> (NodeId, SessionHandle, Instant) {
        (self.secondaries[at].node, self.secondaries[at].session, self.world.now())
    }

    /// The place of the part that was accepted.
    pub(crate) fn accept_part(&mut self, at: usize) -> Option<usize> {
        let (node, session, _) = self.where_is(at);
        let path = self.secondaries[at].path;
        let mut view = self.session_mut(node, session)?;
        let handle = view.accept_stream(Dir::Bi)?;
        let stream = view.stream(handle);
        let (Some(id), Some(grant)) = (stream.id(), stream.grant()) else { panic!("it is no part of a stream") };
        let half = StreamHalf { stream: id, writer: Side::Server };
        if let Some(delegated) = self.delegations.get(&grant.grant) {
            assert_eq!((delegated.half, delegated.path), (half, path));
            assert_eq!(delegated.range, grant.range);
        } else {
            // The primary lost its memory, but nobody grants what was never delegated.
            panic!("{path} was granted {:?} of {half:?}, which nobody delegated", grant.range);
        }
        let parts = &mut self.secondaries[at].parts;
        let cursor = grant.range.start;
        let part =
            AcceptedGrant { handle, half, range: grant.range, cursor, written: Spans::default(), is_over: false };
        // What is over makes room for operations to name the new one.
        let place = parts.iter().position(|part| part.is_over).unwrap_or(parts.len());
        let old = (place < parts.len()).then(|| parts[place].handle);
        if place < parts.len() {
            parts[place] = part
        } else {
            parts.push(part)
        }
        if let Some(old) = old {
            let mut view = self.session_mut(node, session)?;
            view.stream_mut(old).release_send();
            view.stream_mut(old).release_recv();
        }
        Some(place)
    }

    pub(crate) fn write_part(
        &mut self,
        at: usize,
        part: usize,
        offset: Option<u64>,
        len: u64,
    ) -> Option<Result<usize, WriteError>> {
        let (node, session, _) = self.where_is(at);
        let part = self.secondaries[at].parts.get(part)?;
        let (handle, half) = (part.handle, part.half);
        let range = offset.unwrap_or(part.cursor)..offset.unwrap_or(part.cursor) + len;
        let mut view = self.session_mut(node, session)?;
        let mut stream = view.stream_mut(handle);
        let result = match offset {
            Some(offset) => stream.write_at(StreamOffset(offset), half.bytes(range.clone())),
            None => stream.write_chunk(half.bytes(range.clone())),
        };
        let over = view.close_reason().is_some();
        let part = self.secondaries[at].parts.iter_mut().find(|part| part.handle == handle)?;
        let inside = part.range.start <= range.start && range.end <= part.range.end;
        match result {
            Ok(0) if len == 0 => {}
            Ok(taken) => {
                assert!(taken > 0 && taken as u64 <= len && inside && !over);
                let taken = range.start..range.start + taken as u64;
                assert!(!part.written.overlaps(&taken));
                part.written.insert(taken.clone());
                if offset.is_none() {
                    part.cursor = taken.end;
                }
            }
            Err(WriteError::Blocked) => assert!(inside && !over),
            Err(WriteError::BeyondGrant { .. }) => assert!(!inside),
            Err(WriteError::Overlap { .. }) => assert!(part.written.overlaps(&range)),
            Err(WriteError::Finished | WriteError::Reset) => assert!(part.is_over),
            Err(WriteError::Stopped(_)) => part.is_over = true,
            Err(WriteError::SessionClosed) => assert!(over),
            Err(error) => panic!("{range:?} of a part was not written: {error}"),
        }
        Some(result)
    }

    pub(crate) fn read_request(&mut self, at: usize, part: usize) -> Option<()> {
        let (node, session, _) = self.where_is(at);
        let part = self.secondaries[at].parts.get(part)?;
        let (handle, range, path) = (part.handle, part.range.clone(), self.secondaries[at].path);
        let mut view = self.session_mut(node, session)?;
        let chunk = view.stream_mut(handle).read(usize::MAX);
        let is_granted = |request: &Bytes| {
            let same = |delegated: &&DelegatedRange| delegated.path == path && delegated.range == range;
            self.delegations.values().filter(same).any(|delegated| delegated.request == *request)
        };
        match chunk {
            Ok(chunk) => assert!(is_granted(&chunk.data), "another request came than was made"),
            Err(error) => assert!(matches!(error, ReadError::Finished | ReadError::SessionClosed), "{error}"),
        }
        Some(())
    }

    pub(crate) fn finish_part(&mut self, at: usize, part: usize) -> Option<()> {
        let (node, session, _) = self.where_is(at);
        let handle = self.secondaries[at].parts.get(part)?.handle;
        let mut view = self.session_mut(node, session)?;
        let result = view.stream_mut(handle).finish();
        let over = view.close_reason().is_some();
        let part = &mut self.secondaries[at].parts[part];
        let is_right = !matches!(result, Err(FinishError::ClosedStream)) || over || part.is_over;
        assert!(is_right, "a part was not finished: {result:?}");
        part.is_over = true;
        Some(())
    }

    fn reset_part(&mut self, at: usize, part: usize, code: u32) -> Option<()> {
        let (node, session, _) = self.where_is(at);
        let handle = self.secondaries[at].parts.get(part)?.handle;
        let mut view = self.session_mut(node, session)?;
        let over = view.close_reason().is_some();
        let result = view.stream_mut(handle).reset(code);
        let part = &mut self.secondaries[at].parts[part];
        assert!(result.is_ok() || over || part.is_over, "an open part was not reset");
        part.is_over = true;
        Some(())
    }
}
