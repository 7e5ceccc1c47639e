//! What an application decides for an endpoint: its socket, and how QUIC runs on it.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    time::Duration,
};

use kwik_core::{AckFrequency, ConfigError, Congestion, Limits, TransportConfig, limits::WORKERS_MAX};
use tokio::runtime::{Handle, RuntimeFlavor};

/// What the kernel may be asked to buffer: at least the largest datagram. It takes a number of 32 bits with a sign.
const BUFFER_BYTES: RangeInclusive<usize> = 65_536..=1 << 30;

/// Where the socket of an endpoint comes from.
///
/// The default is a free port of all addresses of this host, from which IPv6 and IPv4 are reached, or IPv4 alone where there
/// is no IPv6. An address is bound; port 0 takes a free port, and `[::]` serves IPv4 as well. A socket of one's own is
/// bound already, and its other options stay as they are.
#[derive(Debug, Default)]
pub struct Local(pub(crate) LocalSocket);

#[derive(Debug, Default)]
pub(crate) enum LocalSocket {
    #[default]
    Any,
    Address(SocketAddr),
    Own(UdpSocket),
}

impl Local {
    /// A free port of all addresses of this host.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// As many workers as are of use, if the application does not say.
    pub(crate) fn workers_by_default(&self, runtime: &Handle) -> usize {
        match (&self.0, runtime.runtime_flavor()) {
            (LocalSocket::Address(_), RuntimeFlavor::MultiThread) => {
                runtime.metrics().num_workers().clamp(1, usize::from(WORKERS_MAX))
            }
            _ => 1,
        }
    }
}

impl<A: Into<IpAddr>> From<(A, u16)> for Local {
    fn from(address: (A, u16)) -> Self {
        Self(LocalSocket::Address(address.into()))
    }
}

impl From<SocketAddr> for Local {
    fn from(address: SocketAddr) -> Self {
        Self(LocalSocket::Address(address))
    }
}

impl From<UdpSocket> for Local {
    fn from(socket: UdpSocket) -> Self {
        Self(LocalSocket::Own(socket))
    }
}

/// What an application decides for an [`Endpoint`](crate::Endpoint). The defaults suit the internet.
///
/// ```
/// use kwik_tokio::{Congestion, EndpointConfig};
///
/// let config = EndpointConfig::new().congestion(Congestion::NewReno).mtu_initial(1400);
/// # let _ = config;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct EndpointConfig {
    pub(crate) transport: TransportConfig,
    pub(crate) limits: Limits,
    pub(crate) socket: SocketConfig,
    pub(crate) workers: Option<usize>,
}

/// What the socket is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketConfig {
    pub(crate) receive_buffer_bytes: usize,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) segmentation_offload: bool,
    /// Whether the kernel is told which worker a datagram belongs to.
    pub(crate) steering: bool,
}

impl Default for SocketConfig {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self { receive_buffer_bytes: 4 * MIB, send_buffer_bytes: 4 * MIB, segmentation_offload: true, steering: true }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl EndpointConfig {
    /// The defaults.
    pub fn new() -> Self {
        let (transport, limits) = (TransportConfig::default(), Limits::default());
        Self { transport, limits, socket: SocketConfig::default(), workers: None }
    }

    /// The congestion controller of every path. BBR by default.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.transport.congestion = congestion;
        self
    }

    /// The UDP payload that every path is taken to carry at first, in bytes: 1200 to [`mtu_max`](Self::mtu_max). By default
    /// 1200, and towards an address of this host all that its interface carries, which only Linux tells. More saves the
    /// search of the first round trips where the network is known; where it carries less, a path falls back to 1200 bytes
    /// after some losses.
    pub fn mtu_initial(mut self, bytes: u16) -> Self {
        self.transport.mtu_initial = Some(bytes);
        self
    }

    /// The largest UDP payload to probe for, and to receive, in bytes: 1200 to 65,527. As much as `mtu_initial` leaves nothing
    /// to probe for.
    ///
    /// By default a path receives any size, and probes for what the interface towards its peer carries: 1472 bytes on
    /// Ethernet with IPv4 and 1452 with IPv6, 8972 and 8952 with jumbo frames, 65,507 on loopback with IPv4. Systems other
    /// than Linux do not tell: there it is 1452 bytes, and on loopback what is found.
    pub fn mtu_max(mut self, bytes: u16) -> Self {
        self.transport.mtu_max = Some(bytes);
        self
    }

    /// The round trip that is taken until one was measured: 1 ms to 10 s, by default 333 ms. After three times as long
    /// without an answer the first packet is repeated.
    pub fn rtt_initial(mut self, round_trip: Duration) -> Self {
        self.transport.rtt_initial = round_trip;
        self
    }

    /// How often peers are asked to acknowledge. By default they are not asked: every second packet is acknowledged, and
    /// after 25 ms at the latest.
    pub fn ack_frequency(mut self, asked: AckFrequency) -> Self {
        self.transport.ack_frequency = Some(asked);
        self
    }

    /// What the kernel is asked to buffer of what arrived, in bytes: 64 KiB to 1 GiB, by default 4 MiB. It may give less, and
    /// a debug event tells if it refuses.
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.socket.receive_buffer_bytes = bytes;
        self
    }

    /// What the kernel is asked to buffer of what is to be sent, in bytes. As
    /// [`receive_buffer_bytes`](Self::receive_buffer_bytes).
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.socket.send_buffer_bytes = bytes;
        self
    }

    /// Whether the kernel is handed many datagrams at once where it can (GSO). On by default, which costs much less; an
    /// interface that cannot is found out by itself. Off for networks and tools that such datagrams do not pass.
    pub fn segmentation_offload(mut self, is_on: bool) -> Self {
        self.socket.segmentation_offload = is_on;
        self
    }

    /// How many workers share the port, 1 to 256: each has a socket and a task of its own and some of the sessions, and its
    /// sessions share one thread at a time. By default as many as the runtime has threads on an address that was asked for,
    /// and one on [`Local::any`], since most endpoints there dial one session. On a socket of one's own, and on systems
    /// other than Linux, there is one.
    ///
    /// Limits hold for all of them together. The system brings all datagrams of a session to its worker; where it does not,
    /// such as after a client moved, workers hand them over ([`WorkerStats`](crate::WorkerStats)).
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Limits of the endpoint as a whole, such as `sessions_max` and `endpoint_memory_max`. Those of a session are what
    /// [`ClientConfig::limits`](crate::ClientConfig::limits) and [`ServerConfig::limits`](crate::ServerConfig::limits)
    /// say.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Checks every value. With values that pass, an endpoint works; an error names the one to change.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.transport.check()?;
        self.limits.check()?;
        let workers = 1..=usize::from(WORKERS_MAX);
        if let Some(count) = self.workers.filter(|count| !workers.contains(count)) {
            let rule = format!("is {count} and must be 1 to {WORKERS_MAX}");
            return Err(ConfigError::Field { field: "workers", rule });
        }
        let SocketConfig { receive_buffer_bytes, send_buffer_bytes, .. } = self.socket;
        for (field, bytes) in [("receive_buffer_bytes", receive_buffer_bytes), ("send_buffer_bytes", send_buffer_bytes)]
        {
            if !BUFFER_BYTES.contains(&bytes) {
                let (least, most) = BUFFER_BYTES.into_inner();
                return Err(ConfigError::Field { field, rule: format!("is {bytes} and must be {least} to {most}") });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setter_sets_what_it_names() {
        let mut limits = Limits::default();
        limits.sessions_max = 3;
        let asked = AckFrequency::default();
        let config = EndpointConfig::new()
            .congestion(Congestion::Bbr)
            .mtu_initial(1300)
            .mtu_max(1400)
            .rtt_initial(Duration::from_millis(5))
            .ack_frequency(asked)
            .receive_buffer_bytes(100_000)
            .send_buffer_bytes(200_000)
            .segmentation_offload(false)
            .workers(7)
            .limits(limits);
        let mut transport = TransportConfig::default();
        (transport.congestion, transport.ack_frequency) = (Congestion::Bbr, Some(asked));
        (transport.mtu_initial, transport.mtu_max) = (Some(1300), Some(1400));
        transport.rtt_initial = Duration::from_millis(5);
        assert_eq!(config.transport, transport);
        assert_eq!((config.limits.sessions_max, config.workers), (3, Some(7)));
        let SocketConfig { receive_buffer_bytes, send_buffer_bytes, segmentation_offload, .. } = config.socket;
        assert_eq!((receive_buffer_bytes, send_buffer_bytes, segmentation_offload), (100_000, 200_000, false));
        assert_eq!(config.check(), Ok(()));
    }
}
