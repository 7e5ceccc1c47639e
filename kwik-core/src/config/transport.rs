//! How QUIC runs on every path of an endpoint.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::ConfigError;
use super::mtu::MTU;
use crate::limits;

/// Which congestion controller QUIC runs on every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC (RFC 9438).
    Cubic,
    /// New Reno (RFC 9002 §7), the simplest.
    NewReno,
    /// BBR, version 3 (draft-ietf-ccwg-bbr): measures the path, keeps queues short, and is not slowed by random loss. Its
    /// datagrams leave paced. The default: with 1 % of random loss and round trips of 50 ms, one to five paths of the
    /// simulator bring 87 to 95 % of what their links could, where CUBIC brings 17 to 23 %; with 200 ms and no loss 69 to
    /// 82 %, where CUBIC brings 47 to 77 %.
    #[default]
    Bbr,
}

/// How often the peer is asked to acknowledge QUIC packets (draft-ietf-quic-ack-frequency). A peer whose QUIC does not know
/// this acknowledges as RFC 9000 §13.2 says.
///
/// Fewer acknowledgements cost a fast sender less; later ones make losses known later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AckFrequency {
    /// Packets that the peer may receive without an acknowledgement. 1 by default: every second packet is acknowledged.
    pub ack_eliciting_threshold: u32,
    /// How long the peer waits with an acknowledgement at most; no longer than a round trip or 25 ms, whichever is more.
    /// By default what the peer says itself, which is 25 ms here. From 1 ms to 16 s.
    pub max_ack_delay: Option<Duration>,
    /// By how many packets the order must be broken for an immediate acknowledgement. 2 by default; 0 is never.
    pub reordering_threshold: u32,
}

impl Default for AckFrequency {
    fn default() -> Self {
        Self { ack_eliciting_threshold: 1, max_ack_delay: None, reordering_threshold: 2 }
    }
}

/// How QUIC runs on every path of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportConfig {
    /// The congestion controller. BBR by default.
    pub congestion: Congestion,
    /// The UDP payload that every path is taken to carry at first, in bytes: 1200 to `mtu_max`. By default 1200, and towards
    /// an address of this host all that its interface carries. More saves the search of the first round trips where the
    /// network is known. If it carries less, a path falls back to 1200 bytes, which costs some hundred milliseconds. The
    /// first packets of a client have 1200 bytes in any case.
    pub mtu_initial: Option<u16>,
    /// The largest UDP payload to probe for, and to receive, in bytes: 1200 to 65,527. By default a path probes for what the
    /// interface towards its peer carries ([`EndpointConfig::mtu_towards`](super::EndpointConfig::mtu_towards)), or for 1452
    /// bytes where that is not known, and receives any size.
    pub mtu_max: Option<u16>,
    /// The round trip that is taken until one was measured. 333 ms by default (RFC 9002 §6.2.2), from 1 ms to 10 s. Three
    /// times as long, the first packet is repeated. Less saves time where it is lost; less than the round trip repeats
    /// packets in vain.
    pub rtt_initial: Duration,
    /// How often the peer is asked to acknowledge. By default it is not asked.
    pub ack_frequency: Option<AckFrequency>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            congestion: Congestion::default(),
            mtu_initial: None,
            mtu_max: None,
            rtt_initial: Duration::from_millis(333),
            ack_frequency: None,
        }
    }
}

impl TransportConfig {
    /// Checks the values against QUIC and each other. With values that pass, an endpoint works.
    ///
    /// # Errors
    /// [`ConfigError::Field`] names the one to change.
    pub fn check(&self) -> Result<(), ConfigError> {
        let milliseconds = Duration::from_millis;
        within("mtu_max", self.mtu_receivable(), MTU)?;
        if let Some(initial) = self.mtu_initial {
            within("mtu_initial", initial, *MTU.start()..=self.mtu_receivable())?;
        }
        within("rtt_initial", self.rtt_initial, milliseconds(1)..=milliseconds(10_000))?;
        if let Some(delay) = self.ack_frequency.and_then(|asked| asked.max_ack_delay) {
            within("max_ack_delay", delay, milliseconds(1)..=milliseconds(16_000))?;
        }
        Ok(())
    }

    /// The largest UDP payload that is received, in bytes. Peers are told.
    pub(crate) fn mtu_receivable(&self) -> u16 {
        self.mtu_max.unwrap_or(*MTU.end())
    }
}

fn within<T: PartialOrd + Debug>(field: &'static str, value: T, bounds: RangeInclusive<T>) -> Result<(), ConfigError> {
    limits::within(field, value, bounds).map_err(|error| ConfigError::Field { field, rule: error.rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_named() {
        type Change = fn(&mut TransportConfig);
        let asked =
            |max_ack_delay| Some(AckFrequency { max_ack_delay: Some(max_ack_delay), ..AckFrequency::default() });
        let refused = |config: TransportConfig| match config.check() {
            Err(ConfigError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(TransportConfig::default().check(), Ok(()));
        let changes: [(&str, Change); 7] = [
            ("mtu_max", |config| config.mtu_max = Some(1199)),
            ("mtu_max", |config| config.mtu_max = Some(u16::MAX)),
            ("mtu_initial", |config| config.mtu_initial = Some(1199)),
            ("mtu_initial", |config| config.mtu_initial = Some(65_528)),
            ("mtu_initial", |config| (config.mtu_initial, config.mtu_max) = (Some(1401), Some(1400))),
            ("rtt_initial", |config| config.rtt_initial = Duration::ZERO),
            ("rtt_initial", |config| config.rtt_initial = Duration::MAX),
        ];
        for (field, change) in changes {
            let mut config = TransportConfig::default();
            change(&mut config);
            assert_eq!(refused(config), field);
        }
        for delay in [Duration::from_micros(999), Duration::MAX] {
            let config = TransportConfig { ack_frequency: asked(delay), ..TransportConfig::default() };
            assert_eq!(refused(config), "max_ack_delay");
        }
    }
}
