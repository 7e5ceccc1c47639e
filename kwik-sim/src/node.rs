//! One endpoint of the world, at one address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use kwik_core::{Endpoint, SessionEvent, SessionHandle};

/// Names a node of a [`World`](crate::World).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) usize);

/// A datagram on its way out of a node.
pub(crate) struct Outgoing {
    pub(crate) destination: SocketAddr,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Endpoint,
    /// A crashed node neither sends nor receives.
    pub(crate) crashed: bool,
    pub(crate) events: VecDeque<(SessionHandle, SessionEvent)>,
    pub(crate) history: Vec<SessionEvent>,
}

impl Node {
    pub(crate) fn new(address: SocketAddr, endpoint: Endpoint) -> Self {
        Self { address, endpoint, crashed: false, events: VecDeque::new(), history: Vec::new() }
    }

    /// Drains the endpoint in its order: transmits, events; the timeout is asked for later.
    pub(crate) fn drain(&mut self, now: Instant, out: &mut Vec<Outgoing>) {
        let mut buf = Vec::new();
        while let Some(transmit) = self.endpoint.poll_transmit(now, 10, &mut buf) {
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            out.extend(
                buf[..transmit.size]
                    .chunks(segment)
                    .map(|data| Outgoing { destination: transmit.destination, data: data.to_vec() }),
            );
            buf.clear();
        }
        while let Some((session, event)) = self.endpoint.poll_event() {
            self.history.push(event.clone());
            self.events.push_back((session, event));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.endpoint.poll_timeout().filter(|_| !self.crashed)
    }
}
