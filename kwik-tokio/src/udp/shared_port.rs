//! Several sockets on one port, one for each worker of an endpoint, on Linux. Elsewhere there is one.
//!
//! The kernel chooses the socket of a datagram by a hash of the addresses. A program that is attached to the port chooses
//! before it, by the connection id.

use std::{io, net::UdpSocket};

#[cfg(target_os = "linux")]
pub(super) use self::linux::{allow, steer};

/// Opens up to `count` more sockets on the port of `first`, which was bound without sharing it: so nobody else has it.
pub(super) fn join(first: &UdpSocket, count: usize) -> Vec<UdpSocket> {
    if count == 0 {
        return Vec::new();
    }
    let opened = || -> io::Result<_> {
        allow(&socket2::SockRef::from(first))?;
        first.local_addr()
    };
    let others = opened().map(|address| (0..count).map_while(move |_| super::bind(address, true).ok()).collect());
    let others: Vec<_> = others.unwrap_or_default();
    if others.len() < count {
        tracing::debug!(sockets = others.len() + 1, "the system lets fewer sockets share the port than workers");
    }
    others
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allow(_: &socket2::Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn steer(_: &tokio::net::UdpSocket, _: kwik_core::Routing) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use kwik_core::Routing;
    use nix::{
        libc::{self, sock_filter, sock_fprog},
        sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
    };

    /// Lets sockets of the same user share the port.
    pub(in super::super) fn allow(socket: &socket2::Socket) -> io::Result<()> {
        socket.set_reuse_port(true)
    }

    /// Attaches the program to the port of a socket.
    pub(in super::super) fn steer(socket: &tokio::net::UdpSocket, routing: Routing) -> io::Result<()> {
        let mut program = program(routing);
        let len = u16::try_from(program.len()).map_err(io::Error::other)?;
        let program = sock_fprog { len, filter: program.as_mut_ptr() };
        Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
    }

    /// What [`Routing::owner`] computes, for the kernel. It sees the datagram from its first byte on, and returns the number
    /// of a socket; one that there is not means the kernel's own choice. A datagram that is too short is for the first
    /// socket, since the kernel ends a program that reads beyond it with 0.
    pub(super) fn program(routing: Routing) -> Vec<sock_filter> {
        use libc::{
            BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MEM,
            BPF_MISC, BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
        };
        const NOBODY: u32 = u32::MAX;
        let [a, b, c] = routing.keys();
        let id_len = u32::try_from(Routing::CONNECTION_ID_BYTES).unwrap_or(u32::MAX);
        let (byte, word) = (BPF_LD | BPF_B | BPF_ABS, BPF_LD | BPF_W | BPF_ABS);
        let alu = |operation, of| BPF_ALU | operation | of;
        let (to_x, store, load_x) = (BPF_MISC | BPF_TAX, BPF_ST, BPF_LDX | BPF_MEM);
        let steps = [
            // The half of the id that is wanted last is kept in memory, the other one in the accumulator.
            (byte, 0, 0, 0),
            (BPF_JMP | BPF_JSET | BPF_K, 4, 0, 0x80),
            // A short header: the id is behind the first byte.
            (word, 0, 0, 5),
            (store, 0, 0, 0),
            (word, 0, 0, 1),
            (BPF_JMP | BPF_JA, 0, 0, 6),
            // A long one: version, length of the id, id.
            (byte, 0, 0, 5),
            (BPF_JMP | BPF_JEQ | BPF_K, 1, 0, id_len),
            (BPF_RET | BPF_K, 0, 0, NOBODY),
            (word, 0, 0, 10),
            (store, 0, 0, 0),
            (word, 0, 0, 6),
            // The hash.
            (alu(BPF_XOR, BPF_K), 0, 0, a),
            (alu(BPF_MUL, BPF_K), 0, 0, b),
            (to_x, 0, 0, 0),
            (alu(BPF_RSH, BPF_K), 0, 0, 16),
            (alu(BPF_XOR, BPF_X), 0, 0, 0),
            (load_x, 0, 0, 0),
            (alu(BPF_XOR, BPF_X), 0, 0, 0),
            (alu(BPF_MUL, BPF_K), 0, 0, c),
            (to_x, 0, 0, 0),
            (alu(BPF_RSH, BPF_K), 0, 0, 15),
            (alu(BPF_XOR, BPF_X), 0, 0, 0),
            (alu(BPF_MOD, BPF_K), 0, 0, routing.workers().into()),
            (BPF_RET | BPF_A, 0, 0, 0),
        ];
        let step = |(code, jt, jf, k): (u32, u8, u8, u32)| sock_filter {
            code: u16::try_from(code).unwrap_or_default(),
            jt,
            jf,
            k,
        };
        steps.map(step).into()
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::SocketAddr,
        time::{Duration, Instant},
    };

    use kwik_core::{Endpoint, EndpointConfig, Routing};

    use super::*;

    fn routing(workers: u16) -> Routing {
        Endpoint::workers(EndpointConfig::new([7; 32], Duration::ZERO), workers, Instant::now()).unwrap().1
    }

    /// The sockets of a port, and which of them gets a datagram.
    struct Port(Vec<UdpSocket>);

    impl Port {
        fn new(address: SocketAddr, workers: u16) -> (Self, Routing) {
            let first = super::super::bind(address, false).unwrap();
            let others = join(&first, usize::from(workers) - 1);
            let sockets: Vec<_> = std::iter::once(first).chain(others).collect();
            assert_eq!(sockets.len(), usize::from(workers));
            sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
            let routing = routing(workers);
            let first = tokio::net::UdpSocket::from_std(sockets[0].try_clone().unwrap()).unwrap();
            steer(&first, routing).unwrap();
            (Self(sockets), routing)
        }

        /// On loopback a datagram is there when it was sent.
        fn takes(&self, client: &UdpSocket, datagram: &[u8]) -> u16 {
            client.send_to(datagram, self.0[0].local_addr().unwrap()).unwrap();
            let took = self.0.iter().position(|socket| socket.recv(&mut [0; 2000]).is_ok());
            u16::try_from(took.expect("a socket got it")).unwrap()
        }
    }

    #[tokio::test]
    async fn kernel_and_routing_choose_the_same_worker() {
        for (local, workers) in [("127.0.0.1:0", 2), ("127.0.0.1:0", 5), ("[::1]:0", 16)] {
            let local: SocketAddr = local.parse().unwrap();
            let (port, routing) = Port::new(local, workers);
            let client = UdpSocket::bind(local).unwrap();
            let mut seen = BTreeSet::new();
            for number in 0..200_u64 {
                let id = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
                let short = [&[0x41], &id[..], &[9; 30]].concat();
                let owner = routing.owner(&short).unwrap();
                assert_eq!(port.takes(&client, &short), owner);
                let long = [&[0xe1, 0, 0, 0, 1, 8], &id[..], &[9; 30]].concat();
                assert_eq!((port.takes(&client, &long), routing.owner(&long)), (owner, Some(owner)));
                seen.insert(owner);
            }
            assert_eq!(seen.len(), usize::from(workers));
        }
    }

    #[tokio::test]
    async fn ids_of_clients_are_for_one_worker_for_each_address() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (port, routing) = Port::new(local, 4);
        let mut seen = BTreeSet::new();
        for _ in 0..64 {
            let client = UdpSocket::bind(local).unwrap();
            let initial = |first: u8| [&[0xc1, 0, 0, 0, 1, 16], &[first; 16][..], &[9; 30]].concat();
            assert_eq!(routing.owner(&initial(1)), None);
            let took: BTreeSet<_> = (0..8).map(|first| port.takes(&client, &initial(first))).collect();
            assert_eq!(took.len(), 1);
            seen.extend(took);
        }
        assert_eq!(seen.len(), 4, "all of them get some");
    }
}
