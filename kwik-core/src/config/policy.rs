//! What a primary may make a client dial (PROTOCOL.md §8).

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::Limits;

type Check = dyn Fn(&SocketAddr, &str) -> bool + Send + Sync;

/// Bounds which servers a primary may add to a client's session. What the policy refuses costs no datagram.
///
/// Always refused: unspecified, broadcast and multicast addresses, ports below 1024 other than 443 (unless the primary
/// itself is on that port), and addresses of a narrower scope than the primary's: a primary on the internet cannot make
/// its clients dial their own loopback, link-local or private network.
#[derive(Clone, Default)]
pub struct PathPolicy {
    refuse_all: bool,
    check: Option<Arc<Check>>,
}

impl PathPolicy {
    /// No secondary at all: the session stays with its primary.
    #[must_use]
    pub fn refuse_all() -> Self {
        Self { refuse_all: true, check: None }
    }

    /// A further check of address and server name, after the built-in ones.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&SocketAddr, &str) -> bool + Send + Sync + 'static) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    pub(crate) fn judge(&self, primary: SocketAddr, target: SocketAddr, name: &str) -> Result<(), PolicyRefusal> {
        if self.refuse_all {
            return Err(PolicyRefusal("the client takes no secondaries"));
        }
        if target.port() == 0 || (target.port() < 1024 && target.port() != 443 && target.port() != primary.port()) {
            return Err(PolicyRefusal("port not allowed"));
        }
        let Some(scope) = Scope::of(target.ip()) else {
            return Err(PolicyRefusal("unspecified, broadcast or multicast address"));
        };
        if scope != Scope::Global && Some(scope) != Scope::of(primary.ip()) {
            return Err(PolicyRefusal("address of a narrower scope than the primary's"));
        }
        let Some(check) = &self.check else { return Ok(()) };
        // A check that panics refuses.
        let allows = catch_unwind(AssertUnwindSafe(|| check(&target, name))).unwrap_or(false);
        if allows { Ok(()) } else { Err(PolicyRefusal("refused by the application's check")) }
    }
}

impl fmt::Debug for PathPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PathPolicy").field("refuse_all", &self.refuse_all).finish_non_exhaustive()
    }
}

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyRefusal(pub(crate) &'static str);

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Loopback,
    LinkLocal,
    Private,
    Global,
}

impl Scope {
    /// `None` for addresses that name no single host.
    fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        let [a, b, ..] = address.octets();
        if address.is_multicast() || address.is_broadcast() || a == 0 || a >= 240 {
            None
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_link_local() {
            Some(Self::LinkLocal)
        } else if address.is_private() || (a == 100 && (64..128).contains(&b)) {
            Some(Self::Private)
        } else {
            Some(Self::Global)
        }
    }

    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        if address.is_multicast() || address.is_unspecified() {
            None
        } else if address.is_loopback() {
            Some(Self::Loopback)
        } else if address.is_unicast_link_local() {
            Some(Self::LinkLocal)
        } else if address.is_unique_local() {
            Some(Self::Private)
        } else {
            Self::embedded_v4(address).map_or(Some(Self::Global), Self::of_v4)
        }
    }

    /// The IPv4 address that a transition mechanism would reach through this one.
    fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
        let octets = address.octets();
        let v4 = |at: usize| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]);
        match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0, 0, _, _] => Some(v4(12)),
            [0x2002, ..] => Some(v4(2)),
            _ => None,
        }
    }
}

/// Counts dials, so that a primary cannot turn its clients into a scanner.
#[derive(Debug, Default)]
pub(crate) struct DialBudget {
    recent: VecDeque<Instant>,
}

impl DialBudget {
    /// Whether one more dial may start within the last minute's allowance; counts it if so.
    pub(crate) fn take(&mut self, now: Instant, limits: &Limits) -> bool {
        while self.recent.front().is_some_and(|start| now.duration_since(*start) >= Duration::from_secs(60)) {
            self.recent.pop_front();
        }
        let free = self.recent.len() < limits.dials_per_minute_max;
        if free {
            self.recent.push_back(now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(primary: &str, target: &str) -> bool {
        let parse = |text: &str| text.parse::<SocketAddr>().expect("test address");
        PathPolicy::default().judge(parse(primary), parse(target), "name").is_ok()
    }

    // [P-8.3]
    #[test]
    fn primary_on_the_internet_cannot_reach_inside() {
        for target in [
            "127.0.0.1:4433",
            "127.8.9.1:4433",
            "[::1]:4433",
            "[::ffff:127.0.0.1]:4433",
            "[64:ff9b::7f00:1]:4433",
            "[2002:7f00:1::1]:4433",
            "[::127.0.0.1]:4433",
            "169.254.169.254:4433",
            "[fe80::1]:4433",
            "10.1.2.3:4433",
            "192.168.1.1:4433",
            "100.64.0.1:4433",
            "[fd00::1]:4433",
            "224.0.0.1:4433",
            "[ff02::1]:4433",
            "255.255.255.255:4433",
            "0.0.0.0:4433",
            "0.1.2.3:4433",
            "[::]:4433",
            "9.9.9.9:53",
            "9.9.9.9:0",
        ] {
            assert!(!judge("203.0.113.9:4433", target), "{target} must be refused");
        }
        assert!(judge("203.0.113.9:4433", "198.51.100.7:4433"));
        assert!(judge("203.0.113.9:4433", "[2001:db8::1]:443"));
    }

    // [P-8.3]
    #[test]
    fn primary_next_door_may_name_its_neighbours() {
        assert!(judge("127.0.0.1:4433", "127.0.0.1:5000"));
        assert!(judge("[::1]:4433", "127.0.0.1:5000"));
        assert!(judge("192.168.1.2:4433", "192.168.1.3:4433"));
        assert!(!judge("192.168.1.2:4433", "127.0.0.1:4433"));
        assert!(!judge("127.0.0.1:4433", "224.0.0.1:4433"));
    }

    // [P-8.3]
    #[test]
    fn application_check_comes_last_and_can_only_narrow() {
        let policy = PathPolicy::default().check(|_, name| name == "good");
        let primary = "127.0.0.1:4433".parse().expect("test address");
        assert!(policy.judge(primary, primary, "good").is_ok());
        assert!(policy.judge(primary, primary, "bad").is_err());
        assert!(policy.judge(primary, "224.0.0.1:4433".parse().expect("test address"), "good").is_err());
        assert!(PathPolicy::refuse_all().judge(primary, primary, "good").is_err());
    }

    // [P-8.2]
    #[test]
    fn dials_are_counted_by_the_minute() {
        let limits = Limits::default();
        let mut budget = DialBudget::default();
        // The only Instant a pure test can have is one the standard library makes.
        let start = crate::test_support::instant();
        let taken = (0..20).filter(|_| budget.take(start, &limits)).count();
        assert_eq!(taken, limits.dials_per_minute_max);
        assert!(!budget.take(start + Duration::from_secs(59), &limits));
        assert!(budget.take(start + Duration::from_secs(60), &limits));
    }
}
