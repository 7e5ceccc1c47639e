//! How a session ends: draining what was finished, then closing every path (PROTOCOL.md §12).

use std::time::Instant;

use super::{Moment, RoleState, Session};
use crate::error::{DeadReason, ErrorCode, FrameEffect, SessionError, TransportCode, cut_reason};
use crate::id::PathId;
use crate::protocol_event::ProtocolEventKind;
use crate::wire::Close;

/// Where a session stands between its first and its last moment.
///
/// ```text
///            close, release                  all delivered, or time is up
///   Open ───────────────────────▶ Draining ───────────────────────────────▶ Closed
///     │                               │                                        ▲
///     └───────────────────────────────┴── a fault, or the main path is lost ───┘
/// ```
///
/// An open session whose peer announced its end begins nothing new.
#[derive(Debug)]
pub(super) enum Phase {
    Open {
        /// The peer announced its end; it still delivers what it finished.
        peer_closing: Option<Close>,
    },
    Draining {
        close: Close,
        deadline: Option<Instant>,
        announced: bool,
        /// The peer announced its end too.
        peer_closing: bool,
        /// Until when this end waits, with everything delivered, for the peer to know or to deliver more; and the
        /// packets that had come from it by then.
        lingers: Option<(Instant, u64)>,
    },
    Closed {
        error: SessionError,
        noticed: bool,
    },
}

impl Phase {
    pub(super) fn new() -> Self {
        Self::Open { peer_closing: None }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open { peer_closing: None })
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    pub(super) fn error(&self) -> Option<&SessionError> {
        match self {
            Self::Closed { error, .. } => Some(error),
            Self::Open { .. } | Self::Draining { .. } => None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Draining { deadline, lingers, .. } => deadline.iter().copied().chain(lingers.map(|(at, _)| at)).min(),
            Self::Open { .. } | Self::Closed { .. } => None,
        }
    }

    /// Returns the end of the session, the first time only.
    pub(super) fn take_notice(&mut self) -> Option<SessionError> {
        match self {
            Self::Closed { error, noticed } if !*noticed => {
                *noticed = true;
                Some(error.clone())
            }
            _ => None,
        }
    }
}

impl Phase {
    /// The peer announced its end. Of several CLOSE frames the last one counts.
    pub(super) fn on_peer_closing(&mut self, close: Close) -> FrameEffect {
        let was_closing = match self {
            Self::Open { peer_closing } => peer_closing.replace(close).is_some(),
            Self::Draining { peer_closing, .. } => std::mem::replace(peer_closing, true),
            Self::Closed { .. } => true,
        };
        if was_closing { FrameEffect::NoOp } else { FrameEffect::Progress }
    }

    /// This end will announce its end, as soon as the control plane has room.
    fn move_to_draining(&mut self, close: Close, deadline: Option<Instant>) {
        debug_assert!(matches!(self, Self::Open { .. }), "{self:?}");
        let peer_closing = matches!(self, Self::Open { peer_closing: Some(_) });
        *self = Self::Draining { close, deadline, announced: false, peer_closing, lingers: None };
    }

    fn move_to_closed(&mut self, error: SessionError) {
        debug_assert!(!self.is_closed(), "{self:?}");
        *self = Self::Closed { error, noticed: false };
    }
}

impl Session {
    /// The application closes the session. What it finished is delivered first, for a while.
    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &str) {
        let common = &mut self.common;
        if !matches!(common.phase, Phase::Open { .. }) {
            return;
        }
        let close = Close { code: ErrorCode::Application(code), reason: cut_reason(reason).to_owned() };
        common.phase.move_to_draining(close, now.checked_add(common.limits.drain_timeout));
        let is_usable = common.paths.main().is_some_and(|main| main.state().is_usable());
        // Nothing is left to deliver, and on a main path that is not active nobody waits for CLOSE.
        if !is_usable && common.streams.is_drained() {
            self.finish_close(now);
        }
    }

    pub(super) fn flush_close(&mut self) {
        // A client that pins its primary sends no frame but HELLO before the primary proved itself ([P-3.4]).
        if !self.can_send_streams() {
            return;
        }
        let common = &mut self.common;
        let Phase::Draining { close, announced, .. } = &mut common.phase else { return };
        if !*announced && let Some(main) = common.paths.main_with_room() {
            *announced = true;
            main.queue_control(&close.clone().into());
        }
    }

    /// Ends a draining session when everything is delivered, or its time is up. Returns whether a report is to be sent
    /// now.
    pub(super) fn check_drained(&mut self, moment: Moment) -> bool {
        let now = moment.now;
        let has_delegations = match &self.role {
            RoleState::Primary(primary) => primary.has_active_delegations(),
            RoleState::Client(_) | RoleState::Secondary(_) => false,
        };
        let common = &mut self.common;
        let Phase::Draining { deadline, announced, peer_closing, lingers, .. } = &mut common.phase else {
            return false;
        };
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.finish_close(now);
            return false;
        }
        let main = common.paths.main_mut().filter(|main| !main.state().is_dead());
        let settled = main.as_ref().is_none_or(|main| main.is_settled());
        if !*announced || has_delegations || !settled || !common.streams.is_drained() {
            // The wait for the peer begins anew once everything is settled again.
            *lingers = None;
            return false;
        }
        // The peer may not know yet what arrived here, or it is closing too and may not have delivered everything.
        if let Some(main) = main {
            if main.hasten_report(now) {
                return true;
            }
            if !main.has_announced_all() || *peer_closing {
                let received = main.packets_received();
                // Every packet that came since renews the wait: the peer is still delivering ([P-12.6]).
                if lingers.is_none_or(|(_, before)| before != received) {
                    *lingers = now.checked_add(main.answer_time()).map(|until| (until, received));
                }
                if lingers.is_some_and(|(until, _)| now < until) {
                    return false;
                }
            }
        }
        self.finish_close(now);
        false
    }

    fn finish_close(&mut self, now: Instant) {
        let common = &mut self.common;
        let Phase::Draining { close, .. } = &common.phase else { return };
        let reason = DeadReason::new(close.code, close.reason.clone());
        if !common.streams.undelivered().is_empty()
            && let Some(main) = common.paths.main_mut()
        {
            // The first close of a path counts: `end`, below, does not replace this code ([P-12.2]).
            main.close(now, DeadReason::new(close.code.cut_short(), close.reason.clone()));
        }
        self.end(now, &reason, SessionError::LocallyClosed);
    }

    /// The whole session cannot go on: every path is closed with the reason, then the application is notified.
    pub(super) fn fail(&mut self, now: Instant, reason: DeadReason) {
        self.end(now, &reason.clone(), reason.into());
    }

    /// A path is closed here; with the main path, the session ends.
    pub(super) fn close_path(&mut self, now: Instant, path: PathId, reason: DeadReason) {
        match &mut self.role {
            RoleState::Client(client) if path != self.common.paths.main_id() => {
                client.close_member(&mut self.common, now, path, reason);
            }
            _ => self.fail(now, reason),
        }
    }

    /// A path is gone, whoever ended it; with the main path, the session ends.
    pub(super) fn on_path_lost(&mut self, now: Instant, path: PathId, reason: DeadReason) {
        match &mut self.role {
            RoleState::Client(client) if path != self.common.paths.main_id() => {
                client.lose_member(&mut self.common, path, reason);
            }
            _ => self.on_main_lost(now, reason),
        }
    }

    fn on_main_lost(&mut self, now: Instant, reason: DeadReason) {
        let error = match &mut self.common.phase {
            Phase::Draining { .. } => SessionError::LocallyClosed,
            Phase::Open { peer_closing: Some(close) } => {
                // However the connection was lost after CLOSE, its code is reported, unless the peer's time was up
                // ([P-12.3]).
                let was_cut_short = reason.code == close.code.cut_short();
                let code = if was_cut_short { reason.code } else { close.code };
                DeadReason::new(code, std::mem::take(&mut close.reason)).into()
            }
            Phase::Open { peer_closing: None } => reason.into(),
            Phase::Closed { .. } => return,
        };
        // Only a client has other paths that receive this ([P-12.5]).
        let farewell = DeadReason::new(TransportCode::SOURCE_LOST, "the primary is gone");
        self.end(now, &farewell, error);
    }

    fn end(&mut self, now: Instant, reason: &DeadReason, error: SessionError) {
        let common = &mut self.common;
        if common.phase.is_closed() {
            return;
        }
        common.paths.close_all(now, reason);
        // What the paths noted happened before the end of the session.
        common.collect_path_logs();
        common.log.change(None, || ProtocolEventKind::SessionEnded { error: error.clone() });
        common.phase.move_to_closed(error);
        common.undelivered = common.streams.undelivered();
        common.streams.close();
        if let RoleState::Primary(primary) = &mut self.role {
            primary.on_session_end();
        }
    }
}
