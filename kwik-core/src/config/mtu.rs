//! How large the datagrams of a path may become.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::TransportConfig;

/// The UDP payload that QUIC can do with, and what it can do with at most, in bytes.
pub(super) const MTU: RangeInclusive<u16> = 1200..=65_527;
/// What is probed for where nobody knows the interface: Ethernet with IPv6, or with a tunnel.
const MTU_UNKNOWN: u16 = 1452;

/// What the interface towards an address carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceMtu {
    /// The largest UDP payload that leaves it in one piece, in bytes.
    pub payload_bytes: u16,
    /// Whether the address is this host's own, as that of loopback is. No other link follows then, and a path begins with
    /// what the interface carries.
    pub is_local: bool,
}

/// Tells what the interface towards an address carries, or `None` where that is not known. The endpoint asks whenever it
/// dials and accepts a connection: it must be quick, and must not block.
#[derive(Clone)]
pub struct MtuTowards(Arc<dyn Fn(SocketAddr) -> Option<InterfaceMtu> + Send + Sync>);

impl MtuTowards {
    /// From a function of the address.
    #[must_use]
    pub fn new(towards: impl Fn(SocketAddr) -> Option<InterfaceMtu> + Send + Sync + 'static) -> Self {
        Self(Arc::new(towards))
    }

    pub(crate) fn ask(&self, remote: SocketAddr) -> Option<InterfaceMtu> {
        (self.0)(remote)
    }
}

impl fmt::Debug for MtuTowards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MtuTowards").finish_non_exhaustive()
    }
}

/// The UDP payload that one path begins with, and what it probes for at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MtuBounds {
    pub(crate) initial: u16,
    pub(crate) max: u16,
}

impl MtuBounds {
    /// What the application configured, within what the interface carries.
    pub(crate) fn new(config: &TransportConfig, interface: Option<InterfaceMtu>) -> Self {
        let (least, most) = (*MTU.start(), *MTU.end());
        let carried = interface.map(|interface| interface.payload_bytes.clamp(least, most));
        let max = match (config.mtu_max, carried) {
            (Some(configured), Some(carried)) => configured.min(carried),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => config.mtu_initial.unwrap_or(least).max(MTU_UNKNOWN),
        };
        let is_local = interface.is_some_and(|interface| interface.is_local);
        let initial = config.mtu_initial.unwrap_or(if is_local { max } else { least });
        Self { initial: initial.min(max), max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_interface_carries_bounds_what_is_configured() {
        let near = |payload_bytes| Some(InterfaceMtu { payload_bytes, is_local: true });
        let far = |payload_bytes| Some(InterfaceMtu { payload_bytes, is_local: false });
        let cases = [
            // (configured at first, at most), the interface, (begins with, ends with)
            ((None, None), None, (1200, 1452)),
            ((None, None), far(1472), (1200, 1472)),
            ((None, None), far(8972), (1200, 8972)),
            ((None, None), far(500), (1200, 1200)),
            ((None, None), near(65_507), (65_507, 65_507)),
            ((None, None), near(u16::MAX), (65_527, 65_527)),
            ((None, Some(9000)), None, (1200, 9000)),
            ((None, Some(9000)), far(1472), (1200, 1472)),
            ((None, Some(1300)), far(1472), (1200, 1300)),
            ((None, Some(9000)), near(65_507), (9000, 9000)),
            ((Some(1400), None), None, (1400, 1452)),
            ((Some(8000), None), None, (8000, 8000)),
            ((Some(8000), None), far(1472), (1472, 1472)),
            ((Some(1400), None), near(65_507), (1400, 65_507)),
            ((Some(1400), Some(1400)), near(65_507), (1400, 1400)),
        ];
        for ((mtu_initial, mtu_max), interface, (initial, max)) in cases {
            let config = TransportConfig { mtu_initial, mtu_max, ..TransportConfig::default() };
            assert_eq!(config.check(), Ok(()));
            let bounds = MtuBounds::new(&config, interface);
            assert_eq!(bounds, MtuBounds { initial, max }, "{mtu_initial:?}, {mtu_max:?}, {interface:?}");
        }
    }
}
