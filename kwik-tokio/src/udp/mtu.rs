//! What the interface towards an address carries.
//!
//! Linux tells it of a socket that is connected to the address. Elsewhere only loopback is known to carry more than usual,
//! and paths find out how much.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kwik_core::{InterfaceMtu, MtuTowards};

/// How long an answer is repeated. Routes change, and so do interfaces.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// Addresses of which the answer is kept.
const ANSWERS_MAX: usize = 256;

/// What the system answered to any endpoint.
static ANSWERS: Mutex<Answers> = Mutex::new(Answers(BTreeMap::new()));

/// Asks the system, and keeps its answers for a while.
pub(crate) fn towards() -> MtuTowards {
    MtuTowards::new(|remote| {
        let mut answers = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner);
        answers.of(remote, Instant::now(), system::interface_mtu)
    })
}

/// Answers by address, whatever the port.
struct Answers(BTreeMap<SocketAddr, (Instant, Option<InterfaceMtu>)>);

impl Answers {
    fn of(
        &mut self,
        remote: SocketAddr,
        now: Instant,
        ask: impl FnOnce(SocketAddr) -> Option<InterfaceMtu>,
    ) -> Option<InterfaceMtu> {
        let mut host = remote;
        host.set_port(0);
        let known = self.0.get(&host).filter(|(asked, _)| now.saturating_duration_since(*asked) < ANSWER_AGE_MAX);
        if let Some((_, answer)) = known {
            return *answer;
        }
        if self.0.len() >= ANSWERS_MAX {
            self.0.clear();
        }
        let answer = ask(remote);
        self.0.insert(host, (now, answer));
        answer
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

    use kwik_core::InterfaceMtu;
    use nix::sys::socket::{getsockopt, sockopt};

    /// `None` if nothing leads there, or the system does not tell.
    pub(super) fn interface_mtu(remote: SocketAddr) -> Option<InterfaceMtu> {
        let any = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(remote).ok()?;
        let own = socket.local_addr().ok()?.ip();
        // The option of IPv4 tells it of an IPv6 socket as well.
        let mtu = getsockopt(&socket, sockopt::IpMtu).ok()?;
        Some(InterfaceMtu {
            payload_bytes: payload_bytes(remote, mtu)?,
            is_local: remote.ip().is_loopback() || remote.ip() == own,
        })
    }

    /// What is left of a packet beside the headers of IP and UDP. The length of an IPv4 packet counts its header.
    fn payload_bytes(remote: SocketAddr, mtu: i32) -> Option<u16> {
        let bytes = if remote.is_ipv4() { mtu.min(u16::MAX.into()) - 28 } else { mtu - 48 };
        u16::try_from(bytes.min(u16::MAX.into())).ok()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn headers_of_ip_and_udp_are_no_payload() {
            let v4 = SocketAddr::from(([192, 0, 2, 1], 1));
            let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1));
            let payload = |remote, mtus: [i32; 4]| mtus.map(|mtu| payload_bytes(remote, mtu));
            assert_eq!(payload(v4, [1500, 9000, 65_535, 65_536]), [Some(1472), Some(8972), Some(65_507), Some(65_507)]);
            assert_eq!(payload(v6, [1500, 9000, 65_535, 65_536]), [Some(1452), Some(8952), Some(65_487), Some(65_488)]);
            assert_eq!(payload(v4, [0, -1, 27, i32::MAX]), [None, None, None, Some(65_507)]);
            assert_eq!(payload(v6, [0, i32::MIN + 48, 47, i32::MAX]), [None, None, None, Some(u16::MAX)]);
        }

        #[test]
        fn loopback_tells_what_its_interface_carries() {
            let v4 = interface_mtu(([127, 0, 0, 1], 9).into()).expect("there is a loopback interface");
            assert!(v4.is_local && v4.payload_bytes >= 1200, "{v4:?}");
            assert_eq!(interface_mtu(([127, 7, 7, 7], 9).into()), Some(v4), "every address of it");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::net::SocketAddr;

    use kwik_core::InterfaceMtu;

    use crate::udp::UDP_PAYLOAD_MAX;

    /// How large the datagrams of loopback may be differs from system to system: a path probes.
    pub(super) fn interface_mtu(remote: SocketAddr) -> Option<InterfaceMtu> {
        let payload_bytes = u16::try_from(UDP_PAYLOAD_MAX).ok()?;
        remote.ip().is_loopback().then_some(InterfaceMtu { payload_bytes, is_local: false })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn answers_are_kept_for_a_while_and_not_without_bound() {
        let (asked, mut answers, start) = (Cell::new(0), Answers(BTreeMap::new()), Instant::now());
        let answer = Some(InterfaceMtu { payload_bytes: 1472, is_local: false });
        let mut ask = |host: usize, port, age| {
            let host = u32::try_from(host).expect("a small number").to_be_bytes();
            let of = answers.of((host, port).into(), start + age, |_| {
                asked.set(asked.get() + 1);
                answer
            });
            assert_eq!(of, answer);
            (asked.get(), answers.0.len())
        };
        assert_eq!(ask(1, 1, Duration::ZERO), (1, 1));
        assert_eq!(ask(1, 2, ANSWER_AGE_MAX - Duration::from_nanos(1)), (1, 1), "another port of the same host");
        assert_eq!(ask(1, 1, ANSWER_AGE_MAX), (2, 1));
        for host in 2..=3 * ANSWERS_MAX {
            let (asked, kept) = ask(host, 1, ANSWER_AGE_MAX);
            assert!(asked == host + 1 && kept <= ANSWERS_MAX, "{asked} questions, {kept} answers");
        }
    }
}
