//! One UDP socket: batched receive, segmented send, and the mapping between IPv4 addresses and a dual-stack socket.

mod icmp;
pub(crate) mod mtu;
mod shared_port;

use std::{
    array,
    cell::Cell,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use kwik_core::{DatagramMeta, EcnCodepoint, Routing, Transmit};
use quinn_udp::{RecvMeta, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use crate::{
    config::{Local, LocalSocket, SocketConfig},
    error::BindError,
};

/// The most a UDP datagram carries, and so the most one segmented send may carry.
const UDP_PAYLOAD_MAX: usize = 65_507;
/// Room for one receive, which the kernel may fill with many datagrams of one sender.
const RECEIVE_BYTES: usize = 64 * 1024;
/// Receives in one call of the system. More cost their memory, and time in each call, and gained nothing.
const BATCH_SIZE: usize = 4;
/// ICMP errors taken in one turn.
const ICMP_PER_TURN: usize = 64;
/// At most one socket error is logged in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A bound socket. Everything above it sees canonical addresses: never an IPv4-mapped one.
pub(crate) struct UdpIo {
    socket: Arc<UdpSocket>,
    /// Ready when the network has something to say; `None` if nobody listens.
    icmp: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    state: UdpSocketState,
    segmentation_offload: bool,
    is_v6: bool,
    last_log: Option<Instant>,
}

/// An address that nothing reaches, and why.
pub(crate) type Unreachable = (SocketAddr, &'static str);

/// A transmit of the core, and how much of it the kernel took.
pub(crate) struct Outgoing {
    transmit: Transmit,
    sent: usize,
    /// Whether the kernel refused to segment it.
    is_refused: bool,
}

impl Outgoing {
    pub(crate) fn new(transmit: Transmit) -> Self {
        Self { transmit, sent: 0, is_refused: false }
    }
}

thread_local! {
    static SPARE: Cell<Box<[u8]>> = Cell::default();
}

/// Room for one batch of datagrams. It is needed for no longer than they take to be handled, so that all endpoints that a
/// thread drives share one: an idle endpoint has none.
pub(crate) struct ReceiveBuffer(Box<[u8]>);

impl ReceiveBuffer {
    pub(crate) fn take() -> Self {
        let spare = SPARE.take();
        Self(if spare.is_empty() { vec![0; RECEIVE_BYTES * BATCH_SIZE].into() } else { spare })
    }
}

impl Drop for ReceiveBuffer {
    fn drop(&mut self) {
        let buf = std::mem::take(&mut self.0);
        // A thread that ends needs no spare.
        let _ = SPARE.try_with(|spare| spare.set(buf));
    }
}

/// Received datagrams.
pub(crate) struct Batch<'a> {
    metas: [RecvMeta; BATCH_SIZE],
    count: usize,
    buf: &'a [u8],
}

impl Batch<'_> {
    pub(crate) fn bytes(&self) -> usize {
        self.metas.iter().take(self.count).map(|meta| meta.len).sum()
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (DatagramMeta, &[u8])> {
        self.metas.iter().take(self.count).zip(self.buf.chunks(RECEIVE_BYTES)).flat_map(|(meta, buf)| {
            let datagram = DatagramMeta {
                remote: canonical(meta.addr),
                local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
            };
            let gathered = buf.get(..meta.len).unwrap_or(buf);
            split_by_stride(gathered, meta.stride).map(move |data| (datagram, data))
        })
    }
}

impl UdpIo {
    /// Opens the socket that `local` names, and others on the same port, where the system can share it: `count` in all, or
    /// as many as there may be. Returns the address too.
    pub(crate) fn open_all(
        Local(local): Local,
        config: SocketConfig,
        count: usize,
    ) -> Result<(Vec<Self>, SocketAddr), BindError> {
        let (first, may_share) = match local {
            LocalSocket::Own(socket) => (socket, false),
            LocalSocket::Address(address) => {
                let socket = bind(address, false).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
                    _ => BindError::Bind { address, source },
                });
                (socket?, true)
            }
            // IPv4 alone where there is no IPv6.
            LocalSocket::Any => {
                let socket = bind((Ipv6Addr::UNSPECIFIED, 0).into(), false);
                (socket.or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into(), false))?, true)
            }
        };
        let address = canonical(first.local_addr()?);
        let others = if may_share { shared_port::join(&first, count.saturating_sub(1)) } else { Vec::new() };
        let open = |socket: std::net::UdpSocket| {
            socket.set_nonblocking(true)?;
            Self::new(UdpSocket::from_std(socket)?, config)
        };
        Ok((std::iter::once(first).chain(others).map(open).collect::<io::Result<_>>()?, address))
    }

    /// Has the kernel bring each datagram to the worker that it belongs to, among the sockets that share this one's port in
    /// the order of their workers.
    pub(crate) fn steer(&self, routing: Routing) {
        if let Err(error) = shared_port::steer(&self.socket, routing) {
            tracing::debug!(%error, "the kernel does not bring datagrams to their workers, which hand them over");
        }
    }

    /// Hears from now on of addresses that cannot be reached, where the system tells.
    pub(crate) fn hear_unreachable(&mut self) {
        match icmp::listen(&self.socket, self.is_v6) {
            Ok(true) => self.listen_to_icmp(),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "ICMP errors are not heard"),
        }
    }

    fn new(socket: UdpSocket, config: SocketConfig) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let kernel = SockRef::from(&socket);
        let sized = kernel
            .set_recv_buffer_size(config.receive_buffer_bytes)
            .and_then(|()| kernel.set_send_buffer_size(config.send_buffer_bytes));
        if let Err(error) = sized {
            tracing::debug!(%error, "the socket keeps its default buffer sizes");
        }
        let is_v6 = socket.local_addr()?.is_ipv6();
        let socket = Arc::new(socket);
        let segmentation_offload = config.segmentation_offload;
        Ok(Self { socket, icmp: None, state, segmentation_offload, is_v6, last_log: None })
    }

    /// How many datagrams of equal size one send may carry.
    pub(crate) fn segments_max(&self) -> usize {
        if self.segmentation_offload { self.state.max_gso_segments().max(1) } else { 1 }
    }

    /// Receives one batch; `None` if the socket cannot be read now. Errors are those of single datagrams or of the
    /// moment: try again a little later.
    pub(crate) fn poll_receive<'a>(
        &mut self,
        cx: &mut Context<'_>,
        ReceiveBuffer(buf): &'a mut ReceiveBuffer,
    ) -> Poll<Option<Batch<'a>>> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut received = ready!(self.poll_receive_batch(cx, buf, &mut metas));
        if received.is_err() {
            // The error of a datagram that was sent is told here too, once.
            received = ready!(self.poll_receive_batch(cx, buf, &mut metas));
        }
        Poll::Ready(match received {
            Ok(count) => Some(Batch { metas, count, buf }),
            Err(error) => {
                self.log("receive", &error);
                None
            }
        })
    }

    /// Takes what the network said since the last call of addresses that it cannot reach.
    pub(crate) fn poll_unreachable(&mut self, cx: &mut Context<'_>) -> Poll<Vec<Unreachable>> {
        let Some(icmp) = &mut self.icmp else { return Poll::Pending };
        ready!(icmp.as_mut().poll(cx));
        let errors = std::iter::from_fn(|| icmp::next(&self.socket).ok()).take(ICMP_PER_TURN);
        let unreachable = errors.filter_map(|(address, error)| Some((canonical(address?), refusal(&error)?))).collect();
        self.listen_to_icmp();
        Poll::Ready(unreachable)
    }

    /// Has the task woken when an ICMP error is queued. The runtime takes an error for the end of the sending half, for
    /// good, and would not wait for room in the kernel's buffer any more: so it gets to know the socket anew each time.
    fn listen_to_icmp(&mut self) {
        let anew = SockRef::from(&self.socket).try_clone().and_then(|socket| UdpSocket::from_std(socket.into()));
        match anew {
            Ok(socket) => {
                self.socket = Arc::new(socket);
                let socket = Arc::clone(&self.socket);
                self.icmp = Some(Box::pin(async move { drop(socket.ready(Interest::ERROR).await) }));
            }
            Err(error) => {
                self.icmp = None;
                self.log("listening to ICMP errors", &error);
            }
        }
    }

    /// Hands `outgoing`, whose bytes are the head of `contents`, to the kernel. Pending when the kernel's buffer is
    /// full: call again with the same arguments. Every other error is the loss of a datagram; it is returned if it means
    /// that nothing reaches the destination.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
        contents: &[u8],
    ) -> Poll<Result<(), Unreachable>> {
        let Transmit { destination, ecn, size, segment_size, src_ip } = outgoing.transmit;
        let unreachable = |why| (destination, why);
        let destination = socket_address(self.is_v6, destination).map_err(unreachable)?;
        let mut is_repeated = false;
        let contents = contents.get(..size).unwrap_or(contents);
        while let Some(rest) = contents.get(outgoing.sent..).filter(|rest| !rest.is_empty()) {
            let batch_len = segment_size.map_or(rest.len(), |segment| batch_bytes(segment, self.segments_max()));
            let batch = quinn_udp::Transmit {
                destination,
                ecn: ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: rest.get(..batch_len).unwrap_or(rest),
                segment_size,
                src_ip: src_ip.map(|ip| socket_ip(self.is_v6, ip)),
            };
            let was_segmented = self.segments_max() > 1;
            let result = ready!(self.socket.poll_send_ready(cx)).and_then(|()| {
                self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &batch))
            });
            match result {
                Ok(()) => outgoing.sent += batch.contents.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The interface cannot segment: the same bytes go out again, one datagram at a time.
                Err(_) if was_segmented && self.segments_max() == 1 => outgoing.is_refused = true,
                // It may be the ICMP error of another datagram, which is told once.
                Err(_) if !is_repeated => is_repeated = true,
                Err(error) => {
                    outgoing.sent += batch.contents.len();
                    self.log("send", &error);
                    if std::mem::take(&mut outgoing.is_refused) && icmp::is_too_large(&error) {
                        self.resume_segmentation();
                    }
                    let local = Some(error).filter(|error| error.kind() != io::ErrorKind::PermissionDenied);
                    if let Some(why) = local.as_ref().and_then(refusal) {
                        return Poll::Ready(Err(unreachable(why)));
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Segments larger than the interface carries are refused as if it could not segment at all, by Linux before 6.14.
    fn resume_segmentation(&mut self) {
        if let Ok(state) = UdpSocketState::new((&self.socket).into()) {
            self.state = state;
        }
    }

    fn poll_receive_batch(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
        metas: &mut [RecvMeta; BATCH_SIZE],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let mut chunks = buf.chunks_mut(RECEIVE_BYTES);
            let mut slices: [_; BATCH_SIZE] = array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let mut last = None;
            let received = self.socket.try_io(Interest::READABLE, || {
                let count = self.state.recv((&self.socket).into(), &mut slices, metas)?;
                // Where the system takes one at a time, one says nothing of what is left.
                if count < BATCH_SIZE.min(quinn_udp::BATCH_SIZE) {
                    // The socket is empty now. The runtime hears so, and what comes after this call wakes the task.
                    last = Some(count);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(count)
            });
            match (last, received) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, received) => return Poll::Ready(received),
            }
        }
    }

    fn log(&mut self, action: &str, error: &io::Error) {
        let now = Instant::now();
        if self.last_log.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            self.last_log = Some(now);
            tracing::debug!(%error, "a UDP {action} failed and counts as loss");
        }
    }
}

/// Binds a socket to `address`. `[::]` serves IPv4 as well where the system allows it.
fn bind(address: SocketAddr, shares_port: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%address, %error, "the socket serves IPv6 only");
    }
    if shares_port {
        shared_port::allow(&socket)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The bytes of one send: whole segments, no more than the kernel takes at once.
fn batch_bytes(segment: usize, segments_max: usize) -> usize {
    let segment = segment.max(1);
    segment * segments_max.min(UDP_PAYLOAD_MAX / segment).max(1)
}

/// The datagrams that the kernel gathered in one buffer.
fn split_by_stride(gathered: &[u8], stride: usize) -> impl Iterator<Item = &[u8]> {
    gathered.chunks(if stride == 0 { gathered.len().max(1) } else { stride })
}

/// `address` with an IPv4-mapped IP written as IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// `address` as a socket of the given family must be told it, or why the socket cannot reach it.
fn socket_address(is_v6: bool, address: SocketAddr) -> Result<SocketAddr, &'static str> {
    match address {
        SocketAddr::V4(v4) if is_v6 => Ok(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()),
        SocketAddr::V6(_) if !is_v6 => Err("the socket has no IPv6"),
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            Err("a link-local address needs the number of its interface, as in [fe80::1%2]:4433")
        }
        _ => Ok(address),
    }
}

/// What an error says of the address that a datagram was for, if it says that nothing gets there.
fn refusal(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("nobody listens on the port"),
        io::ErrorKind::HostUnreachable => Some("there is no way to the host"),
        io::ErrorKind::NetworkUnreachable => Some("there is no way to its network"),
        io::ErrorKind::NetworkDown => Some("the network is down"),
        io::ErrorKind::AddrNotAvailable => Some("this host has no address to reach it from"),
        io::ErrorKind::PermissionDenied => Some("a firewall forbids it"),
        _ => None,
    }
}

fn socket_ip(is_v6: bool, ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) if is_v6 => v4.to_ipv6_mapped().into(),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn ipv4_is_mapped_for_a_dual_stack_socket_and_unmapped_on_the_way_back() {
        let v4 = address("192.0.2.7:4433");
        let mapped = socket_address(true, v4).expect("a dual-stack socket reaches IPv4");
        assert_eq!(mapped, address("[::ffff:192.0.2.7]:4433"));
        assert_eq!(canonical(mapped), v4);
        assert_eq!(socket_ip(true, v4.ip()), mapped.ip());
    }

    #[test]
    fn addresses_of_the_own_family_pass_unchanged() {
        let v4 = address("192.0.2.7:4433");
        let v6: SocketAddr = SocketAddrV6::new("fe80::1".parse().expect("a literal address"), 4433, 0, 3).into();
        assert_eq!(socket_address(false, v4), Ok(v4));
        assert_eq!(socket_address(true, v6), Ok(v6));
        assert_eq!(canonical(v4), v4);
        assert_eq!(canonical(v6), v6, "the scope of a link-local address is kept");
        assert_eq!(socket_ip(false, v4.ip()), v4.ip());
    }

    #[test]
    fn an_ipv4_socket_cannot_reach_ipv6() {
        assert!(socket_address(false, address("[2001:db8::1]:4433")).is_err());
    }

    #[test]
    fn a_link_local_address_is_reached_over_its_interface_only() {
        assert!(socket_address(true, address("[fe80::1]:4433")).is_err());
        let on_link = SocketAddrV6::new("fe80::1".parse().expect("a literal address"), 4433, 0, 3).into();
        assert_eq!(socket_address(true, on_link), Ok(on_link));
    }

    #[test]
    fn gathered_datagrams_are_split_at_the_stride() {
        let split = |bytes, stride| split_by_stride(bytes, stride).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(split(b"aabbc", 2), [b"aa".to_vec(), b"bb".to_vec(), b"c".to_vec()]);
        assert_eq!(split(b"aab", 9), [b"aab".to_vec()]);
        assert_eq!(split(b"aab", 0), [b"aab".to_vec()]);
        assert!(split(b"", 2).is_empty());
    }

    #[test]
    fn a_batch_holds_whole_segments_within_one_datagrams_limit() {
        assert_eq!(batch_bytes(1452, 64), 1452 * 45);
        assert_eq!(batch_bytes(1452, 10), 14_520);
        assert_eq!(batch_bytes(65_507, 64), 65_507);
        assert_eq!(batch_bytes(0, 64), 64);
    }

    fn open(local: impl Into<Local>) -> UdpIo {
        UdpIo::open_all(local.into(), SocketConfig::default(), 1).expect("a free port").0.remove(0)
    }

    /// A datagram of so many bytes to `destination`, alone.
    fn single(destination: SocketAddr, size: usize) -> Outgoing {
        Outgoing::new(Transmit { destination, ecn: None, size, segment_size: None, src_ip: None })
    }

    async fn send(from: &mut UdpIo, outgoing: &mut Outgoing) -> Result<(), Unreachable> {
        let contents = vec![7; outgoing.transmit.size];
        std::future::poll_fn(|cx| from.poll_send(cx, outgoing, &contents)).await
    }

    /// How large the next datagram is that arrives.
    async fn receive(at: &mut UdpIo) -> usize {
        let mut buf = ReceiveBuffer::take();
        std::future::poll_fn(|cx| {
            let batch = ready!(at.poll_receive(cx, &mut buf)).expect("the socket can be read");
            Poll::Ready(batch.datagrams().map(|(_, data)| data.len()).sum())
        })
        .await
    }

    /// More than the interface carries is lost, alone: it does not make the peer unreachable, and is not fragmented.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_datagram_that_is_too_large_is_lost_and_nothing_else() {
        let (mut client, mut server) = (open(address("127.0.0.1:0")), open(address("127.0.0.1:0")));
        client.hear_unreachable();
        let there = canonical(server.socket.local_addr().expect("a bound socket"));
        for _ in 0..3 {
            assert_eq!(send(&mut client, &mut single(there, UDP_PAYLOAD_MAX + 1)).await, Ok(()));
        }
        let heard = std::future::poll_fn(|cx| client.poll_unreachable(cx)).await;
        assert_eq!(heard, [], "the error queue tells of it, and it is no refusal");
        for size in [UDP_PAYLOAD_MAX, 1200] {
            assert_eq!(send(&mut client, &mut single(there, size)).await, Ok(()));
            assert_eq!(receive(&mut server).await, size);
        }
        assert!(client.segments_max() > 1);
    }

    /// One batch of segments larger than the interface carries cost all that followed its segmentation.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn regression_segmentation_was_given_up_for_segments_that_were_too_large() {
        let mut client = open(address("127.0.0.1:0"));
        let segments = client.segments_max();
        assert!(segments > 1, "the kernel segments on loopback");
        // Nothing is sent to port 0: the kernel refuses it as it refuses to segment.
        let mut refused = single(address("127.0.0.1:0"), 2000);
        refused.transmit.segment_size = Some(1000);
        assert_eq!(send(&mut client, &mut refused).await, Ok(()));
        assert_eq!(client.segments_max(), 1);
        let mut too_large = single(address("127.0.0.1:9"), UDP_PAYLOAD_MAX + 1);
        too_large.is_refused = true;
        assert_eq!(send(&mut client, &mut too_large).await, Ok(()));
        assert_eq!(client.segments_max(), segments);
    }

    /// Three datagrams in one send, from a dual-stack socket to an IPv4 one. Returns in how many pieces they came.
    async fn cross(config: SocketConfig) -> usize {
        let open = |local| UdpIo::open_all(local, config, 1).expect("a free port").0.remove(0);
        let (mut client, mut server) = (open(Local::any()), open(address("127.0.0.1:0").into()));
        let transmit = Transmit {
            destination: canonical(server.socket.local_addr().expect("a bound socket")),
            ecn: None,
            size: 5,
            segment_size: Some(2),
            src_ip: None,
        };
        let mut outgoing = Outgoing::new(transmit);
        let sent = std::future::poll_fn(|cx| client.poll_send(cx, &mut outgoing, b"aabbc and more")).await;
        assert_eq!(sent, Ok(()));
        let (mut received, mut pieces, mut buf) = (Vec::new(), 0, ReceiveBuffer::take());
        while received.len() < 3 {
            std::future::poll_fn(|cx| {
                let batch = ready!(server.poll_receive(cx, &mut buf)).expect("the socket can be read");
                pieces += batch.count;
                for (meta, data) in batch.datagrams() {
                    assert!(meta.remote.is_ipv4(), "{} is not canonical", meta.remote);
                    received.push(data.to_vec());
                }
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(received, [b"aa".to_vec(), b"bb".to_vec(), b"c".to_vec()]);
        pieces
    }

    #[tokio::test]
    async fn datagrams_cross_one_by_one_or_gathered() {
        let pieces = cross(SocketConfig::default()).await;
        if cfg!(target_os = "linux") {
            assert_eq!(pieces, 1, "the kernel gathers what was sent together");
        }
        let off = SocketConfig { segmentation_offload: false, ..SocketConfig::default() };
        assert_eq!(cross(off).await, 3);
        let (sockets, _) = UdpIo::open_all(Local::any(), off, 1).expect("a free port");
        assert_eq!(sockets[0].segments_max(), 1);
    }
}
