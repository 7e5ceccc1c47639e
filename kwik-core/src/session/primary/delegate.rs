//! Ranges that the primary delegates to secondaries, and what the client reports of them (PROTOCOL.md §8).

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use super::PrimaryRole;
use super::paths::is_wanted;
use crate::auth::{self, SignatureContext};
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::grant::Change;
use crate::id::{GrantId, PathId, StreamHandle, StreamOffset};
use crate::limits;
use crate::protocol_event::{EventDetail, ProtocolEventKind};
use crate::session::common::Common;
use crate::session::event::{DelegateError, GrantInfo, SessionEvent};
use crate::session::violation;
use crate::wire::{Grant, GrantStatusFrame, Revoke, SignedPayload};

/// Which bytes of a stream are delegated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) enum Extent {
    /// So many at the cursor.
    Next(u64),
    /// These.
    At(Range<u64>),
    /// These, which another is to write already.
    Copy(Range<u64>),
}

impl PrimaryRole {
    // ---- the application's calls

    pub(in crate::session) fn delegate(
        &mut self,
        cx: &mut Common,
        stream: StreamHandle,
        path: PathId,
        extent: Extent,
        request: Bytes,
    ) -> Result<GrantInfo, DelegateError> {
        if !cx.is_open() {
            return Err(DelegateError::SessionClosed);
        }
        if path.is_primary() {
            return Err(DelegateError::OwnPath);
        }
        let info = self.remote.info(path).ok_or(DelegateError::PathUnknown(path))?;
        if !is_wanted(&info.state) {
            return Err(DelegateError::PathDead(path));
        }
        if request.len() > limits::REQUEST_BYTES_MAX {
            return Err(DelegateError::RequestTooLong { len: request.len() });
        }
        if !self.delegations.has_room(path) || !self.commands.has_room(request.len()) {
            self.crowded.insert(path);
            return Err(DelegateError::TooMany);
        }
        let id = cx.streams.stream_id(stream).ok_or(DelegateError::ClosedStream)?;
        let is_copy = matches!(extent, Extent::Copy(_));
        // Reserved last: no range may stay reserved for a grant that is not issued.
        let range = match extent {
            Extent::Next(len) => cx.streams.reserve(stream, len)?,
            Extent::At(range) => cx.streams.reserve_range(stream, range)?,
            Extent::Copy(range) => {
                cx.streams.check_copy(stream, &range)?;
                range
            }
        };
        let Ok(grant) = self.delegations.issue(path, id, range.clone(), is_copy) else {
            // Too many others overlap it.
            if !is_copy {
                cx.streams.unreserve(id, std::slice::from_ref(&range));
            }
            self.crowded.insert(path);
            return Err(DelegateError::TooMany);
        };
        // The path was found above, so it has a sequence.
        let next = self.remote.grant_sequence(path).ok_or(DelegateError::PathUnknown(path))?;
        let sequence = *next;
        *next += 1;
        let context = SignatureContext { session: self.session, from: PathId::PRIMARY, to: path, sequence };
        let signature = auth::sign_grant(&self.identity, context, grant, id, range.clone(), &request);
        let epoch = self.next_epoch();
        cx.log.change(path, || ProtocolEventKind::GrantIssued { grant, stream: id, range: range.clone() });
        self.commands.grant(Grant {
            grant,
            epoch,
            path,
            stream: id,
            start: StreamOffset(range.start),
            len: range.end - range.start,
            signed: SignedPayload { sequence, payload: request, signature },
        });
        Ok(GrantInfo { grant, range })
    }

    pub(in crate::session) fn revoke(&mut self, cx: &mut Common, grant: GrantId) -> Result<(), DelegateError> {
        let is_news = self.delegations.revoke(grant).ok_or(DelegateError::GrantUnknown(grant))?;
        if is_news {
            cx.log.change(None, || ProtocolEventKind::GrantRevoked { grant });
        }
        if self.commands.holds_grant(grant) {
            // GRANT did not leave, so the client never knows the grant.
            self.commands.drop_grant(grant);
            let change = self.delegations.annul(grant, TransportCode::REVOKED.into());
            change.into_iter().for_each(|change| self.on_delegation_changed(cx, change));
            self.announce_room(cx);
        } else if is_news {
            // The delegation stays active until the client reports what arrived before REVOKE did.
            let epoch = self.next_epoch();
            self.commands.revoke(Revoke { grant, epoch });
        }
        Ok(())
    }

    // ---- the client's reports

    pub(in crate::session) fn on_grant_status(
        &mut self,
        cx: &mut Common,
        frame: GrantStatusFrame,
    ) -> Result<FrameEffect, Fault> {
        let GrantStatusFrame { grant, status } = frame;
        if self.commands.holds_grant(grant) {
            return Err(violation("GRANT_STATUS of a grant that was never issued"));
        }
        let is_last = status.is_settled();
        let event = (cx.log.detail() > EventDetail::Off).then(|| ProtocolEventKind::of_grant(grant, &status));
        let change = self.delegations.on_status(grant, status)?;
        if is_last {
            // A REVOKE that still waits has nothing to revoke any more.
            self.commands.drop_grant(grant);
        }
        let effect = if change.is_some() { FrameEffect::Progress } else { FrameEffect::NoOp };
        if let Some(change) = change {
            event.into_iter().for_each(|event| cx.log.change(None, || event));
            self.on_delegation_changed(cx, change);
        }
        if is_last {
            self.announce_room(cx);
        }
        Ok(effect)
    }

    /// Applies to the stream what a delegation delivered or lost for good, and notes the delegation for the
    /// application.
    pub(super) fn on_delegation_changed(&mut self, cx: &mut Common, change: Change) {
        for range in change.arrived {
            cx.streams.delivered(change.stream, range);
        }
        if !change.missing.is_empty() {
            cx.streams.unreserve(change.stream, &change.missing);
        }
        self.changed.insert(change.grant);
    }

    /// Something was freed: notifies an application whose delegation was refused for lack of room.
    pub(super) fn announce_room(&mut self, cx: &mut Common) {
        if !self.commands.has_room(0) {
            return;
        }
        let has_room = |path: &PathId| self.delegations.has_room(*path);
        let (free, crowded) = std::mem::take(&mut self.crowded).into_iter().partition(has_room);
        self.crowded = crowded;
        let free: BTreeSet<PathId> = free;
        free.into_iter().for_each(|path| cx.emit(SessionEvent::DelegationRoom(path)));
    }
}
