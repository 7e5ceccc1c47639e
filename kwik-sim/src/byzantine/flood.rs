//! A host that dials without end and says nothing, or what is refused.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kwik_core::__test_exports::{Frame, Hello};
use quinn_proto::crypto;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::peer::params;
use super::quic::{Heard, QuicEndpoint, SeededIds};
use crate::fleet::Fleet;
use crate::raw_node::RawNode;

/// What the connections of a [`Flood`] do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialer {
    /// They send a first datagram and hear no answer, as if the address were another's.
    Spoofed,
    /// They complete the handshake and say nothing.
    Silent,
    /// They complete the handshake and say HELLO with a key that is none of theirs.
    Forger,
}

/// A host that dials one server again and again, so many times a second. It repeats nothing that is lost and closes
/// nothing.
pub struct Flood {
    quic: QuicEndpoint,
    crypto: Arc<dyn crypto::ClientConfig>,
    server: SocketAddr,
    name: String,
    dialer: Dialer,
    every: Duration,
    left: usize,
    next: Instant,
    /// Connections with something to hear or to send.
    work: BTreeSet<usize>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    connected: Rc<Cell<usize>>,
}

impl Flood {
    /// `dials` connections to the primary, each `every` later than the one before, the first within so long.
    #[must_use]
    pub fn new(fleet: &Fleet, seed: u64, dialer: Dialer, (dials, every): (usize, Duration)) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ids = SeededIds::new(&mut rng);
        let next = fleet.world.now() + every.mul_f64(rng.random());
        Self {
            quic: QuicEndpoint::new(&mut rng, ids, None),
            crypto: fleet.pki.quic_client(),
            server: fleet.server_address(0),
            name: fleet.pki.name().to_owned(),
            dialer,
            every,
            left: dials,
            next,
            work: BTreeSet::new(),
            out: VecDeque::new(),
            connected: Rc::default(),
        }
    }

    /// How many of its handshakes the server completed so far.
    #[must_use]
    pub fn connected(&self) -> Rc<Cell<usize>> {
        self.connected.clone()
    }

    fn dial(&mut self, now: Instant) {
        while self.left > 0 && self.next <= now {
            self.left -= 1;
            self.next += self.every;
            let number = self.quic.dial(now, self.crypto.clone(), self.server, &self.name);
            self.work.extend(number);
        }
    }

    /// Lets one connection send what it has to.
    fn run(&mut self, now: Instant, number: usize) {
        let Some(connection) = self.quic.connection(number) else { return };
        connection.deaf = true;
        while let Some(heard) = connection.poll() {
            if matches!(heard, Heard::Connected) {
                self.connected.set(self.connected.get() + 1);
                if self.dialer == Dialer::Forger {
                    connection.control(&forged_hello());
                }
            }
        }
        self.quic.exchange_with(number);
        if let Some(connection) = self.quic.connection(number) {
            self.out.extend(std::iter::from_fn(|| connection.poll_transmit(now)));
        }
    }
}

impl RawNode for Flood {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]) {
        if self.dialer != Dialer::Spoofed {
            self.work.extend(self.quic.handle_datagram(now, from, data));
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.dial(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        while self.out.is_empty() {
            let number = self.work.pop_first()?;
            self.run(now, number);
        }
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (self.left > 0).then_some(self.next)
    }
}

/// A HELLO as it should be, but for a key that the sender does not have.
fn forged_hello() -> Bytes {
    let client_key = *kwik_core::Identity::from_seed([0x7e; 32]).public().as_bytes();
    Frame::from(Hello { version: 1, params: params(), client_key, proof: [0; 64], credential: Bytes::new() }).encode()
}
