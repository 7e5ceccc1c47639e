//! How a session ends: draining what was finished, then closing every path (PROTOCOL.md §12).

use std::time::Instant;

use super::{Moment, RoleState, Session};
use crate::error::{DeadReason, ErrorCode, SessionError, TransportCode, cut_reason};
use crate::id::PathId;
use crate::protocol_event::ProtocolEventKind;
use crate::status::PathState;
use crate::wire::Close;

/// Where a session stands between its first and its last moment.
#[derive(Debug)]
pub(super) enum Phase {
    Open {
        /// The peer announced its end; it still delivers what it finished.
        peer_closing: Option<Close>,
    },
    Draining {
        close: Close,
        deadline: Option<Instant>,
        told: bool,
        /// The peer announced its end too.
        peer_closing: bool,
        /// Until when this end waits, with everything delivered, for the peer to know or to deliver more; and the packets
        /// that had come from it by then.
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

    /// The end of the session, once.
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

impl Session {
    /// The application closes the session. What it finished is delivered first, for a while.
    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &str) {
        if !matches!(self.phase, Phase::Open { .. }) {
            return;
        }
        let close = Close { code: ErrorCode::Application(code), reason: cut_reason(reason).to_owned() };
        let peer_closing = matches!(self.phase, Phase::Open { peer_closing: Some(_) });
        let deadline = now.checked_add(self.limits.drain_timeout);
        self.phase = Phase::Draining { close, deadline, told: false, peer_closing, lingers: None };
        let usable = self.paths.get(&self.home).is_some_and(|home| home.state().is_usable());
        if !usable && self.streams.is_drained() {
            self.finish_close(now);
        }
    }

    /// The peer announced its end.
    pub(super) fn on_close_frame(&mut self, close: Close) {
        match &mut self.phase {
            Phase::Open { peer_closing } => *peer_closing = Some(close),
            Phase::Draining { peer_closing, .. } => *peer_closing = true,
            Phase::Closed { .. } => {}
        }
    }

    pub(super) fn flush_close(&mut self) {
        let Phase::Draining { close, told, .. } = &mut self.phase else { return };
        if *told {
            return;
        }
        if let Some(home) = self.paths.get_mut(&self.home).filter(|home| home.is_control_ready()) {
            *told = true;
            home.queue_control(&close.clone().into());
        }
    }

    /// Ends a session that drains when everything is delivered, or its time is up. Returns whether there is more to say now.
    pub(super) fn check_drained(&mut self, moment: Moment) -> bool {
        let now = moment.now;
        let Phase::Draining { deadline, told, peer_closing, lingers, .. } = &mut self.phase else { return false };
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.finish_close(now);
            return false;
        }
        let delivered = match &self.role {
            RoleState::Primary(primary) => primary.has_no_active_delegation(),
            RoleState::Client(_) | RoleState::Secondary(_) => true,
        };
        let home = self.paths.get_mut(&self.home).filter(|home| !home.state().is_dead());
        let settled = home.as_ref().is_none_or(|home| home.is_settled());
        if !(*told && delivered && settled && self.streams.is_drained()) {
            *lingers = None;
            return false;
        }
        // The peer may not know yet what arrived here, or it is closing too and may not have delivered everything.
        if let Some(home) = home {
            if home.hasten_report(now) {
                return true;
            }
            if !home.has_announced_all() || *peer_closing {
                let received = home.packets_received();
                if lingers.is_none_or(|(_, before)| before != received) {
                    *lingers = now.checked_add(home.answer_time()).map(|until| (until, received));
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
        let Phase::Draining { close, .. } = &self.phase else { return };
        let reason = DeadReason::new(close.code, close.reason.clone());
        if !self.streams.undelivered().is_empty()
            && let Some(home) = self.paths.get_mut(&self.home)
        {
            home.close(now, DeadReason::new(close.code.cut_short(), close.reason.clone()));
        }
        self.end(now, &reason, SessionError::LocallyClosed);
    }

    /// A fault of the whole session: told to every peer, then reported.
    pub(super) fn fail(&mut self, now: Instant, code: TransportCode, detail: impl Into<String>) {
        let reason = DeadReason::new(code, detail);
        self.end(now, &reason.clone(), reason.into());
    }

    /// The home path is gone, and the session with it.
    pub(super) fn on_home_lost(&mut self, now: Instant, reason: DeadReason) {
        let error = match &mut self.phase {
            Phase::Draining { .. } => SessionError::LocallyClosed,
            Phase::Open { peer_closing: Some(close) } => {
                let was_cut_short = reason.code == close.code.cut_short();
                let code = if was_cut_short { reason.code } else { close.code };
                DeadReason::new(code, std::mem::take(&mut close.reason)).into()
            }
            Phase::Open { peer_closing: None } => reason.into(),
            Phase::Closed { .. } => return,
        };
        let farewell = DeadReason::new(TransportCode::SOURCE_LOST, "the primary is gone");
        self.end(now, &farewell, error);
    }

    fn end(&mut self, now: Instant, reason: &DeadReason, error: SessionError) {
        if self.phase.is_closed() {
            return;
        }
        self.log.change(None, || ProtocolEventKind::SessionEnded { error: error.clone() });
        self.phase = Phase::Closed { error, noticed: false };
        for path in self.paths.values_mut().filter(|path| !path.state().is_dead()) {
            path.close(now, reason.clone());
        }
        self.undelivered = self.streams.undelivered();
        self.streams.close();
        if let RoleState::Primary(primary) = &mut self.role {
            let lost = primary.on_session_end();
            self.delegations_changed.extend(lost);
        }
    }

    /// A fault of the peer on one path. A secondary's costs its path; any other, the session.
    pub(super) fn on_fault(&mut self, now: Instant, path: PathId, code: TransportCode, detail: &str) {
        self.log.change(path, || ProtocolEventKind::Fault { code, detail: detail.to_owned() });
        self.close_path(now, path, code, detail);
    }

    /// A path is closed for what is nobody's fault; with the path that carries it, the session ends.
    pub(super) fn close_path(&mut self, now: Instant, path: PathId, code: TransportCode, detail: &str) {
        if path == self.home {
            self.fail(now, code, detail);
            return;
        }
        let reason = DeadReason::new(code, detail);
        if let Some(path) = self.paths.get_mut(&path) {
            path.close(now, reason.clone());
        }
        self.on_path_lost(now, path, reason);
    }

    /// A path is gone, whoever ended it.
    pub(super) fn on_path_lost(&mut self, now: Instant, path: PathId, reason: DeadReason) {
        self.transmit.on_path_lost(path);
        self.log.change(path, || ProtocolEventKind::PathChanged { state: PathState::Dead(reason.clone()) });
        if path == self.home {
            self.on_home_lost(now, reason);
        } else {
            self.on_secondary_lost(path, &DeadReason { code: reason.code.without_cut(), ..reason });
        }
    }

    /// Whether the application may begin anything new.
    pub(super) fn is_open(&self) -> bool {
        self.phase.is_open()
    }
}
