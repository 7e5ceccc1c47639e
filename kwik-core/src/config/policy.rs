//! What a primary may make a client dial (PROTOCOL.md §8).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::address::{Address, Reach};

type Check = dyn Fn(&SocketAddr, &str) -> bool + Send + Sync;

/// Bounds which servers a primary may add to a client's session. What the policy refuses costs no datagram.
///
/// Always refused: unspecified, broadcast, multicast and reserved addresses; ports below 1024 other than 443 (unless the
/// primary itself is on that port); the client's own address, unless it is the primary's too; and addresses of a
/// narrower scope than the primary's: a primary on the internet cannot make its clients dial their own loopback,
/// link-local or private network. An IPv6 address is judged by the IPv4 address inside as well, wherever translators and
/// tunnels put one. A provider that translates under a prefix of its own is to be refused by [`PathPolicy::check`].
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

    /// A further check of address and server name, after the built-in ones. It is asked about the address that would be
    /// dialled, with IPv4 never written as IPv6, then about every IPv4 address inside it; one refusal is enough.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&SocketAddr, &str) -> bool + Send + Sync + 'static) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Gives the address to dial, if the policy allows it to a client that reached `primary` from its address `own`.
    pub(crate) fn judge(
        &self,
        primary: Address,
        own: Option<IpAddr>,
        target: SocketAddr,
        name: &str,
    ) -> Result<Address, PolicyRefusal> {
        if self.refuse_all {
            return Err(PolicyRefusal("the client takes no secondaries"));
        }
        let unreal = PolicyRefusal("unspecified, broadcast, multicast or reserved address, or no port");
        let target = Address::new(target).ok_or(unreal)?;
        let reach = target.reach().ok_or(unreal)?;
        if target.port() < 1024 && target.port() != 443 && target.port() != primary.port() {
            return Err(PolicyRefusal("port not allowed"));
        }
        if reach != Reach::Global && Some(reach) != primary.reach() {
            return Err(PolicyRefusal("address of a narrower scope than the primary's"));
        }
        if own == Some(target.ip()) && own != Some(primary.ip()) {
            return Err(PolicyRefusal("the client's own address"));
        }
        let target =
            target.on_link_of(primary).ok_or(PolicyRefusal("a link-local address on no link of the primary's"))?;
        let Some(check) = &self.check else { return Ok(target) };
        // A check that panics refuses.
        let allows = |spelling| catch_unwind(AssertUnwindSafe(|| check(&spelling, name))).unwrap_or(false);
        if target.spellings().all(allows) {
            Ok(target)
        } else {
            Err(PolicyRefusal("refused by the application's check"))
        }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    fn parse(text: &str) -> SocketAddr {
        text.parse().expect("test address")
    }

    fn host(text: &str) -> Address {
        Address::new(parse(text)).expect("a host")
    }

    fn judge(primary: &str, target: &str) -> bool {
        PathPolicy::default().judge(host(primary), None, parse(target), "name").is_ok()
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
            "[64:ff9b:1::7f00:1]:4433",
            "[64:ff9b:1::203.0.113.9]:4433",
            "[2002:7f00:1::1]:4433",
            "[2001::80ff:fffe]:4433",
            "[2001:0:7f00:1::34ff:8ef6]:4433",
            "[2001:db8::5efe:192.168.1.1]:4433",
            "[::ffff:0:127.0.0.1]:4433",
            "[::127.0.0.1]:4433",
            "[fec0::1]:4433",
            "[100::1]:4433",
            "198.18.0.1:4433",
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
    fn clients_own_address_is_refused_unless_the_primary_is_there_too() {
        let judge = |primary, own: &str, target| {
            let own = Some(own.parse().expect("an address"));
            PathPolicy::default().judge(host(primary), own, parse(target), "name").is_ok()
        };
        assert!(!judge("203.0.113.9:4433", "198.51.100.7", "198.51.100.7:4433"));
        assert!(!judge("203.0.113.9:4433", "198.51.100.7", "[::ffff:198.51.100.7]:4433"));
        assert!(!judge("10.0.0.1:4433", "10.0.0.2", "10.0.0.2:4433"));
        assert!(judge("203.0.113.9:4433", "198.51.100.7", "198.51.100.8:4433"));
        assert!(judge("127.0.0.1:4433", "127.0.0.1", "127.0.0.1:5000"));
    }

    // [P-8.3]
    #[test]
    fn link_local_target_is_dialled_on_the_primarys_link() {
        let on_link = |ip: &str, port| SocketAddr::from(SocketAddrV6::new(ip.parse().unwrap(), port, 0, 3));
        let primary = Address::new(on_link("fe80::9", 4433)).expect("a host");
        let dialled = PathPolicy::default().judge(primary, None, parse("[fe80::1]:5000"), "name");
        assert_eq!(dialled.map(SocketAddr::from), Ok(on_link("fe80::1", 5000)));
        assert!(!judge("169.254.1.1:4433", "[fe80::1]:5000"), "nobody knows on which link");
        assert!(judge("169.254.1.1:4433", "169.254.1.2:5000"));
    }

    // [P-8.3]
    #[test]
    fn application_check_sees_every_spelling_of_the_host() {
        let policy = PathPolicy::default().check(|address, _| address.ip().to_string() != "198.51.100.7");
        let primary = host("203.0.113.9:4433");
        for target in ["198.51.100.7:1024", "[::ffff:198.51.100.7]:1024", "[64:ff9b::198.51.100.7]:1024"] {
            assert!(policy.judge(primary, None, parse(target), "name").is_err(), "{target}");
        }
        assert!(policy.judge(primary, None, parse("[64:ff9b::198.51.100.8]:1024"), "name").is_ok());
    }

    // [P-8.3]
    #[test]
    fn application_check_comes_last_and_can_only_narrow() {
        let policy = PathPolicy::default().check(|_, name| name == "good");
        let primary = host("127.0.0.1:4433");
        let judge = |policy: &PathPolicy, target, name| policy.judge(primary, None, parse(target), name).is_ok();
        assert!(judge(&policy, "127.0.0.1:4433", "good"));
        assert!(!judge(&policy, "127.0.0.1:4433", "bad"));
        assert!(!judge(&policy, "224.0.0.1:4433", "good"));
        assert!(!judge(&PathPolicy::refuse_all(), "127.0.0.1:4433", "good"));
    }
}
