//! Raw queries between servers, and their replies.

use kwik_core::{PathId, RawError, SessionEvent, SessionMut};

use super::message::RawMessage;
use crate::checks::{FlowModel, RawKey};

/// One server's raw packets in one session.
#[derive(Debug, Default)]
pub(super) struct RawTalk {
    next: u64,
    /// Replies that found no room.
    owed: Vec<(PathId, RawMessage)>,
}

impl RawTalk {
    const OWED_MAX: usize = 256;

    /// Sends a query to a path.
    pub(super) fn ask(
        &mut self,
        session: &mut SessionMut<'_>,
        (token, own, to): (u64, PathId, PathId),
        padding: usize,
        model: &mut FlowModel,
    ) {
        let message = RawMessage { token, from: own.0, to: to.0, number: self.next, is_reply: false };
        self.next += 1;
        if send(session, to, message, padding, model) {
            model.coverage.work("raw query");
        }
    }

    /// Takes what came, and answers queries.
    pub(super) fn receive(&mut self, session: &mut SessionMut<'_>, own: PathId, model: &mut FlowModel) {
        while let Some(packet) = session.recv_raw() {
            let is_judged = session.id().is_some_and(|id| model.is_judged_raw(id, packet.from));
            if !is_judged {
                continue;
            }
            let message = RawMessage::decode(&packet.data);
            let Some(message) = message.filter(|message| (message.from, message.to) == (packet.from.0, own.0)) else {
                model.violate(format!("{own} got a raw packet from {} that nobody wrote so", packet.from));
                continue;
            };
            if let Some(id) = session.id() {
                model.received_raw(id, key(message));
            }
            if message.is_reply {
                model.coverage.work("raw reply");
            } else if self.owed.len() < Self::OWED_MAX {
                let reply = RawMessage { from: message.to, to: message.from, is_reply: true, ..message };
                self.owed.push((packet.from, reply));
            }
        }
        self.repay(session, model);
    }

    /// A receipt came, and with it room.
    pub(super) fn on_status(&mut self, session: &mut SessionMut<'_>, event: &SessionEvent, model: &mut FlowModel) {
        if let SessionEvent::RawStatus { result: Err(code), .. } = event {
            model.coverage.code(*code);
        }
        self.repay(session, model);
    }

    fn repay(&mut self, session: &mut SessionMut<'_>, model: &mut FlowModel) {
        self.owed.retain(|(to, reply)| {
            let padding = usize::try_from(reply.number % 7).unwrap_or(0) * 100;
            match session.send_raw(*to, reply.encode(padding)) {
                Ok(_) => {
                    model.sent_raw(key(*reply));
                    false
                }
                Err(RawError::Blocked) => true,
                Err(_) => false,
            }
        });
    }
}

fn send(session: &mut SessionMut<'_>, to: PathId, message: RawMessage, padding: usize, model: &mut FlowModel) -> bool {
    match session.send_raw(to, message.encode(padding)) {
        Ok(_) => {
            model.sent_raw(key(message));
            true
        }
        Err(RawError::Blocked) => {
            model.coverage.limit("raw packets");
            false
        }
        Err(RawError::PathUnknown(_) | RawError::SessionClosed) => false,
        Err(error) => {
            model.violate(format!("a raw packet to {to} was refused: {error}"));
            false
        }
    }
}

fn key(message: RawMessage) -> RawKey {
    RawKey {
        token: message.token,
        from: PathId(message.from),
        to: PathId(message.to),
        number: message.number,
        is_reply: message.is_reply,
    }
}
