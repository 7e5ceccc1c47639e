//! One spelling for each host and port (PROTOCOL.md §8).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use smallvec::{SmallVec, smallvec};

/// A port of one host, as everything compares, dials and judges it.
///
/// IPv4 is written as IPv4, never mapped into IPv6; an IPv6 address has no flow label, and a scope only where it says
/// which link is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(SocketAddr);

impl Address {
    /// `None` if the address names no single host, or no port.
    pub(crate) fn new(address: SocketAddr) -> Option<Self> {
        let address = match address {
            SocketAddr::V6(v6) => match v6.ip().to_canonical() {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                    SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
                }
                ip => SocketAddr::new(ip, v6.port()),
            },
            SocketAddr::V4(_) => address,
        };
        let names_a_host = match address.ip() {
            IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
        };
        (names_a_host && address.port() != 0).then_some(Self(address))
    }

    pub(crate) fn ip(self) -> IpAddr {
        self.0.ip()
    }

    pub(crate) fn port(self) -> u16 {
        self.0.port()
    }

    /// How far the address reaches. `None` if it is reserved, or leads to an IPv4 address that is or names no host.
    pub(crate) fn reach(self) -> Option<Reach> {
        match self.ip() {
            IpAddr::V4(ip) => Reach::of_v4(ip),
            IpAddr::V6(ip) => Reach::of_v6(ip),
        }
    }

    /// This address as the application may know it too: itself, and every IPv4 address that a translator or a tunnel
    /// would deliver to.
    pub(crate) fn spellings(self) -> impl Iterator<Item = SocketAddr> {
        let inside = match self.ip() {
            IpAddr::V4(_) => SmallVec::new(),
            IpAddr::V6(ip) => v4_inside(ip),
        };
        std::iter::once(self.0).chain(inside.into_iter().map(move |ip| SocketAddr::from((ip, self.port()))))
    }

    /// An address that another host named, which cannot know this host's links: if it is link-local, the link of
    /// `neighbour` is meant. `None` if `neighbour` is not on a link.
    pub(crate) fn on_link_of(self, neighbour: Self) -> Option<Self> {
        let is_link_local = |v6: &SocketAddrV6| v6.ip().is_unicast_link_local();
        match (self.0, neighbour.0) {
            (SocketAddr::V6(v6), SocketAddr::V6(near)) if is_link_local(&v6) && is_link_local(&near) => {
                Some(Self(SocketAddrV6::new(*v6.ip(), v6.port(), 0, near.scope_id()).into()))
            }
            (SocketAddr::V6(v6), _) if is_link_local(&v6) => None,
            _ => Some(self),
        }
    }
}

impl From<Address> for SocketAddr {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far an address reaches, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    Loopback,
    LinkLocal,
    Private,
    Global,
}

impl Reach {
    /// `None` for what is reserved or names no single host.
    fn of_v4(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [0 | 224..=255, ..] => None,
            [127, ..] => Some(Self::Loopback),
            [169, 254, ..] => Some(Self::LinkLocal),
            // Networks of their own, behind a provider's translator, of protocols, and of laboratories.
            [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [100, 64..=127, ..]
            | [192, 0, 0, _]
            | [198, 18..=19, ..] => Some(Self::Private),
            _ => Some(Self::Global),
        }
    }

    /// As far as the prefix and every IPv4 address inside, whichever is narrowest.
    fn of_v6(address: Ipv6Addr) -> Option<Self> {
        let by_prefix = match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 1] => return Some(Self::Loopback),
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfec0..=0xfeff | 0xfc00..=0xfdff, ..] | [0x64, 0xff9b, 1, ..] => Self::Private,
            [0x2000..=0x3fff, ..]
            | [0x64, 0xff9b, 0, 0, 0, 0, ..]
            | [0, 0, 0, 0, 0, 0, ..]
            | [0, 0, 0, 0, 0xffff, 0, ..] => Self::Global,
            _ => return None,
        };
        v4_inside(address).into_iter().try_fold(by_prefix, |reach, v4| Some(reach.min(Self::of_v4(v4)?)))
    }
}

/// The IPv4 addresses that translators and tunnels would deliver to. A provider may use a prefix of its own for the same
/// purpose: that cannot be told from the address.
fn v4_inside(address: Ipv6Addr) -> SmallVec<[Ipv4Addr; 4]> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // Compatible, translated (RFC 2765), and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => smallvec![last],
        [0x64, 0xff9b, 1, ..] => v4_behind_local_nat64(&octets),
        // 6to4 (RFC 3056).
        [0x2002, ..] => smallvec![at([2, 3, 4, 5])],
        // Teredo (RFC 4380): the server, and the client, whose bits are flipped.
        [0x2001, 0, ..] => smallvec![at([4, 5, 6, 7]), Ipv4Addr::from(!u32::from(last))],
        // ISATAP (RFC 5214), in any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => smallvec![last],
        _ => SmallVec::new(),
    }
}

/// Within 64:ff9b:1::/48 (RFC 8215) a network chooses how long its prefix is, and so where the IPv4 address stands
/// (RFC 6052 §2.2): every place is meant where a host can be read and the rest is zero as it must be.
fn v4_behind_local_nat64(octets: &[u8; 16]) -> SmallVec<[Ipv4Addr; 4]> {
    let places = [([6, 7, 9, 10], 11), ([7, 9, 10, 11], 12), ([9, 10, 11, 12], 13), ([12, 13, 14, 15], 16)];
    let well_formed = places.into_iter().filter(|(_, end)| octets[8] == 0 && octets[*end..].iter().all(|o| *o == 0));
    let read = well_formed.map(|(places, _)| Ipv4Addr::from(places.map(|place| octets[place])));
    let hosts: SmallVec<[Ipv4Addr; 4]> = read.filter(|v4| Reach::of_v4(*v4).is_some()).collect();
    if hosts.is_empty() { smallvec![Ipv4Addr::UNSPECIFIED] } else { hosts }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<Address> {
        Address::new(text.parse().expect("an address of the table"))
    }

    // [P-8.3]
    #[test]
    fn spellings_of_one_host_are_one_address() {
        let with = |ip: &str, flow, scope| SocketAddr::from(SocketAddrV6::new(ip.parse().unwrap(), 4433, flow, scope));
        let same = [
            ("192.0.2.7:4433".parse().unwrap(), "[::ffff:192.0.2.7]:4433".parse().unwrap()),
            ("192.0.2.7:4433".parse().unwrap(), with("::ffff:192.0.2.7", 9, 3)),
            (with("2001:db8::1", 0, 0), with("2001:db8::1", 0xfffff, 0)),
            (with("2001:db8::1", 0, 0), with("2001:db8::1", 0, 3)),
            (with("fe80::1", 0, 3), with("fe80::1", 7, 3)),
        ];
        for (one, other) in same {
            assert_eq!(Address::new(one), Address::new(other), "{one} and {other}");
            assert_eq!(Address::new(one).map(SocketAddr::from), Some(one), "{one} is the spelling kept");
        }
        let different = [
            (with("fe80::1", 0, 2), with("fe80::1", 0, 3)),
            ("192.0.2.7:4433".parse().unwrap(), "[64:ff9b::192.0.2.7]:4433".parse().unwrap()),
            ("192.0.2.7:4433".parse().unwrap(), "192.0.2.7:4434".parse().unwrap()),
        ];
        for (one, other) in different {
            assert_ne!(Address::new(one), Address::new(other), "{one} and {other}");
        }
    }

    // [P-8.3]
    #[test]
    fn what_names_no_host_is_no_address() {
        for none in [
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
            "224.0.0.1:1",
            "[::ffff:239.1.2.3]:1",
            "255.255.255.255:1",
            "[::ffff:255.255.255.255]:1",
            "[ff02::1]:1",
            "192.0.2.1:0",
            "[2001:db8::1]:0",
            "[::ffff:192.0.2.1]:0",
        ] {
            assert_eq!(address(none), None, "{none}");
        }
    }

    // [P-8.3]
    #[test]
    fn address_reaches_no_farther_than_the_ipv4_address_inside() {
        // Forms with `X` where the IPv4 address stands in hexadecimal, and whether they go beyond a private network.
        type Form = fn([u8; 4]) -> String;
        let forms: [(Form, bool); 12] = [
            (|[a, b, c, d]| format!("{a}.{b}.{c}.{d}:4433"), true),
            (|[a, b, c, d]| format!("[::ffff:{a}.{b}.{c}.{d}]:4433"), true),
            (|[a, b, c, d]| format!("[::{a}.{b}.{c}.{d}]:4433"), true),
            (|[a, b, c, d]| format!("[::ffff:0:{a}.{b}.{c}.{d}]:4433"), true),
            (|[a, b, c, d]| format!("[64:ff9b::{a}.{b}.{c}.{d}]:4433"), true),
            (|[a, b, c, d]| format!("[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]:4433"), true),
            (|[a, b, c, d]| format!("[2001:0:cb00:7109:0:3fff:{:02x}{:02x}:{:02x}{:02x}]:4433", !a, !b, !c, !d), true),
            (|[a, b, c, d]| format!("[2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}:0:3fff:34ff:8ef6]:4433"), true),
            (|[a, b, c, d]| format!("[2001:db8::200:5efe:{a}.{b}.{c}.{d}]:4433"), true),
            (|[a, b, c, d]| format!("[64:ff9b:1::{a}.{b}.{c}.{d}]:4433"), false),
            (|[a, b, c, d]| format!("[64:ff9b:1:{a:02x}{b:02x}:{c:02x}:{d:02x}00::]:4433"), false),
            (|[a, b, c, d]| format!("[64:ff9b:1:ff{a:02x}:{b:02x}:{c:02x}{d:02x}::]:4433"), false),
        ];
        let hosts = [
            ([203, 0, 113, 9], Some(Reach::Global)),
            ([127, 0, 0, 1], Some(Reach::Loopback)),
            ([169, 254, 169, 254], Some(Reach::LinkLocal)),
            ([10, 1, 2, 3], Some(Reach::Private)),
            ([172, 31, 0, 1], Some(Reach::Private)),
            ([192, 168, 1, 1], Some(Reach::Private)),
            ([100, 64, 0, 1], Some(Reach::Private)),
            ([192, 0, 0, 170], Some(Reach::Private)),
            ([198, 19, 0, 1], Some(Reach::Private)),
            ([224, 0, 0, 1], None),
            ([240, 0, 0, 1], None),
            ([255, 255, 255, 255], None),
            ([0, 0, 0, 3], None),
        ];
        for (form, beyond) in forms {
            for (host, reach) in hosts {
                let text = form(host);
                let found = address(&text).and_then(Address::reach);
                let expected = reach.map(|reach| if beyond { reach } else { reach.min(Reach::Private) });
                assert_eq!(found, expected, "{text}");
            }
        }
    }

    // [P-8.3]
    #[test]
    fn ipv6_prefixes_reach_as_far_as_they_are_for() {
        for (text, reach) in [
            ("[::1]:1", Some(Reach::Loopback)),
            ("[fe80::1]:1", Some(Reach::LinkLocal)),
            ("[febf::1]:1", Some(Reach::LinkLocal)),
            ("[fe80::5efe:203.0.113.9]:1", Some(Reach::LinkLocal)),
            ("[fec0::1]:1", Some(Reach::Private)),
            ("[fc00::1]:1", Some(Reach::Private)),
            ("[fdff::1]:1", Some(Reach::Private)),
            ("[fd00::5efe:127.0.0.1]:1", Some(Reach::Loopback)),
            ("[2001:db8::1]:1", Some(Reach::Global)),
            ("[3fff::1]:1", Some(Reach::Global)),
            ("[64:ff9b:1::]:1", None),
            ("[64:ff9b:2::1]:1", None),
            ("[100::1]:1", None),
            ("[1fff::1]:1", None),
            ("[4000::1]:1", None),
            ("[5f00::1]:1", None),
        ] {
            assert_eq!(address(text).and_then(Address::reach), reach, "{text}");
        }
    }

    // [P-8.3]
    #[test]
    fn link_local_address_that_another_host_names_is_on_its_link() {
        let near: SocketAddr = SocketAddrV6::new("fe80::9".parse().unwrap(), 4433, 0, 3).into();
        let near = Address::new(near).unwrap();
        let named = address("[fe80::1]:5000").unwrap();
        let on_link: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 5000, 0, 3).into();
        assert_eq!(named.on_link_of(near).map(SocketAddr::from), Some(on_link));
        for elsewhere in ["169.254.1.1:4433", "[2001:db8::1]:4433"] {
            assert_eq!(named.on_link_of(address(elsewhere).unwrap()), None, "{elsewhere}");
        }
        let far = address("[2001:db8::7]:5000").unwrap();
        assert_eq!(far.on_link_of(near), Some(far));
    }
}
