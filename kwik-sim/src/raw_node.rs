//! A node that is no KWIK endpoint.

use std::net::SocketAddr;
use std::time::Instant;

/// Something with an address that sends and receives datagrams: a dishonest peer, a scanner, an echo.
///
/// The world treats it as it treats an endpoint: after every call that takes `&mut self` it polls until nothing is left
/// to transmit, and it comes back at the timeout. Time enters as an argument.
pub trait RawNode {
    /// A datagram arrived.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, data: &[u8]);

    /// The time that [`RawNode::poll_timeout`] named has come.
    fn handle_timeout(&mut self, now: Instant);

    /// The next datagram to send, and to whom.
    fn poll_transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)>;

    /// When to call [`RawNode::handle_timeout`] at the latest. After it was called at that time and all was
    /// transmitted, the next timeout must be later.
    fn poll_timeout(&self) -> Option<Instant>;
}
