//! Packet numbers of one path: each direction counts its own from 0 (PROTOCOL.md §6).

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::error::TransportCode;
use crate::id::PacketNumber;
use crate::limits::{ACK_RANGES_MAX, PACKETS_OUTSTANDING_MAX};
use crate::range_set::RangeSet;
use crate::wire::WireError;

/// Packets this end sent and the peer has not acknowledged.
#[derive(Debug, Default)]
pub(super) struct SentPackets {
    next: u64,
    /// The bytes of the packets before `next`, beginning with the oldest that is not acknowledged; none of those that are.
    sizes: VecDeque<u32>,
    bytes_outstanding: u64,
    bytes_acknowledged: u64,
}

impl SentPackets {
    pub(super) fn next(&self) -> PacketNumber {
        PacketNumber(self.next)
    }

    /// Whether one more packet may be sent before an acknowledgement comes.
    pub(super) fn has_room(&self) -> bool {
        self.next - self.oldest() < PACKETS_OUTSTANDING_MAX
    }

    /// A packet was sent. It has a header at least.
    pub(super) fn on_sent(&mut self, bytes: u64) {
        let size = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        self.sizes.push_back(size);
        self.bytes_outstanding += u64::from(size);
        self.next += 1;
    }

    /// Bytes of packets that are sent and not acknowledged.
    pub(super) fn bytes_outstanding(&self) -> u64 {
        self.bytes_outstanding
    }

    /// Bytes of packets that are acknowledged.
    pub(super) fn bytes_acknowledged(&self) -> u64 {
        self.bytes_acknowledged
    }

    /// Returns the packets acknowledged for the first time.
    pub(super) fn on_ack(&mut self, ranges: &[Range<u64>]) -> Result<SmallVec<[PacketNumber; 8]>, WireError> {
        let (mut new, oldest) = (SmallVec::<[PacketNumber; 8]>::new(), self.oldest());
        for range in ranges {
            if range.end > self.next {
                return Err(WireError {
                    code: TransportCode::PROTOCOL_VIOLATION,
                    frame: "PACKET_ACK",
                    detail: "acknowledges a packet that was never sent",
                });
            }
            // The decoder refuses ranges that overlap ([P-5.6]), so no packet comes twice.
            for number in range.start.max(oldest)..range.end {
                let place = usize::try_from(number - oldest).ok().and_then(|place| self.sizes.get_mut(place));
                let size = place.map_or(0, std::mem::take);
                if size > 0 {
                    new.push(PacketNumber(number));
                    self.bytes_outstanding = self.bytes_outstanding.saturating_sub(size.into());
                    self.bytes_acknowledged = self.bytes_acknowledged.saturating_add(size.into());
                }
            }
        }
        while self.sizes.front() == Some(&0) {
            self.sizes.pop_front();
        }
        Ok(new)
    }

    fn oldest(&self) -> u64 {
        self.next - self.sizes.len() as u64
    }

    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.sizes.is_empty()
    }

    pub(super) fn sent(&self) -> u64 {
        self.next
    }
}

/// Packets this end received, and the acknowledgement it owes.
#[derive(Debug, Default)]
pub(super) struct ReceivedPackets {
    started: RangeSet,
    complete: RangeSet,
    unreported: u32,
    /// What the last report said.
    reported: SmallVec<[Range<u64>; 4]>,
    report_at: Option<Instant>,
    /// The peer is closing, and waits for nothing but this.
    is_peer_closing: bool,
    received: u64,
}

impl ReceivedPackets {
    /// Packets that are worth a report which goes along with other frames.
    const REPORT_ALONG: u32 = 4;
    /// Packets that are worth a report which goes alone, in a datagram that the peer's QUIC must acknowledge.
    const REPORT_ALONE: u32 = 32;
    const REPORT_DELAY: Duration = Duration::from_millis(20);

    /// A packet header was read.
    pub(super) fn on_start(&mut self, number: PacketNumber) -> Result<(), WireError> {
        let violation = |detail| WireError { code: TransportCode::PROTOCOL_VIOLATION, frame: "packet", detail };
        // Carriers are not ordered among each other, so packets complete in any order. The bound keeps both sets small.
        let lowest_missing = match self.complete.first() {
            Some(range) if range.start == 0 => range.end,
            _ => 0,
        };
        if number.0 >= lowest_missing.saturating_add(PACKETS_OUTSTANDING_MAX) {
            return Err(violation("too far ahead of the packets that are missing"));
        }
        if self.started.contains(number.0) {
            return Err(violation("packet number used twice"));
        }
        self.started.insert(number.0..number.0 + 1);
        Ok(())
    }

    /// The last byte of a packet was read.
    pub(super) fn on_end(&mut self, now: Instant, number: PacketNumber) {
        self.complete.insert(number.0..number.0 + 1);
        self.received += 1;
        self.unreported += 1;
        // The delay counts from the first packet that was not reported.
        self.report_at.get_or_insert_with(|| now.checked_add(Self::REPORT_DELAY).unwrap_or(now));
    }

    /// The ranges of a PACKET_ACK, when one is due. It is sooner if it goes along with other frames.
    pub(super) fn take_report(&mut self, now: Instant, goes_along: bool) -> Option<SmallVec<[Range<u64>; 4]>> {
        let enough = if goes_along { Self::REPORT_ALONG } else { Self::REPORT_ALONE };
        let is_awaited = self.is_peer_closing && self.unreported > 0;
        let due = is_awaited || self.unreported >= enough || self.report_at.is_some_and(|at| now >= at);
        if !due {
            return None;
        }
        self.unreported = 0;
        self.report_at = None;
        let ranges: SmallVec<[Range<u64>; 4]> = self.complete.iter().take(ACK_RANGES_MAX).collect();
        // A report holds the lowest ranges only, and they may not have changed. The peer counts a repetition as a no-op
        // frame, so none is sent.
        if ranges == self.reported {
            return None;
        }
        self.reported.clone_from(&ranges);
        Some(ranges)
    }

    /// The peer is closing: from now on every packet is reported at once.
    pub(super) fn on_peer_closing(&mut self) {
        self.is_peer_closing = true;
    }

    /// Makes the report that is owed due now. Returns whether it was not due before.
    pub(super) fn hasten(&mut self, now: Instant) -> bool {
        let later = self.report_at.is_some_and(|at| at > now);
        if later {
            self.report_at = Some(now);
        }
        later
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.report_at
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::instant;

    // [P-6.7]
    #[test]
    fn acknowledgement_of_unsent_packet_is_a_violation() {
        let mut sent = SentPackets::default();
        sent.on_sent(100);
        assert_eq!(
            sent.on_ack(std::slice::from_ref(&(0..2))).map_err(|error| error.code),
            Err(TransportCode::PROTOCOL_VIOLATION)
        );
        assert_eq!(sent.on_ack(std::slice::from_ref(&(0..1))).map(|new| new.len()), Ok(1));
        assert_eq!(sent.on_ack(std::slice::from_ref(&(0..1))).map(|new| new.len()), Ok(0));
        assert!(sent.is_all_acknowledged());
    }

    // [P-6.3] [P-6.4]
    #[test]
    fn packet_numbers_are_accepted_once_and_within_the_window() {
        let mut received = ReceivedPackets::default();
        assert!(received.on_start(PacketNumber(0)).is_ok());
        assert!(received.on_start(PacketNumber(0)).is_err());
        assert!(received.on_start(PacketNumber(PACKETS_OUTSTANDING_MAX)).is_err());
        received.on_end(instant(), PacketNumber(0));
        assert!(received.on_start(PacketNumber(PACKETS_OUTSTANDING_MAX)).is_ok());
        assert!(received.on_start(PacketNumber(u64::MAX)).is_err());
    }

    // [P-6.6]
    #[test]
    fn reports_are_gathered_and_never_late() {
        let start = instant();
        let mut received = ReceivedPackets::default();
        for number in [0, 2, 3] {
            assert!(received.on_start(PacketNumber(number)).is_ok());
            received.on_end(start, PacketNumber(number));
        }
        assert_eq!(received.take_report(start, true), None);
        let due = received.deadline().expect("a report is owed");
        assert_eq!(received.take_report(due, false).map(|ranges| ranges.to_vec()), Some(vec![0..1, 2..4]));
        assert_eq!(received.deadline(), None);
    }

    // [P-6.4]
    #[test]
    fn sender_stops_at_the_outstanding_limit() {
        let mut sent = SentPackets::default();
        for _ in 0..PACKETS_OUTSTANDING_MAX {
            assert!(sent.has_room());
            sent.on_sent(100);
        }
        assert!(!sent.has_room());
        assert!(sent.on_ack(std::slice::from_ref(&(0..1))).is_ok());
        assert!(sent.has_room());
    }

    // [P-6.6]
    #[test]
    fn fourth_packet_is_reported_with_other_frames_and_the_lowest_ranges_first() {
        let start = instant();
        let mut received = ReceivedPackets::default();
        let mut receive = |number| {
            received.on_start(PacketNumber(number)).expect("a new number");
            received.on_end(start, PacketNumber(number));
            received.take_report(start, true)
        };
        assert_eq!([0, 2, 4].map(&mut receive), [None, None, None]);
        assert_eq!(receive(6).map(|ranges| ranges.len()), Some(4));
        let mut last = None;
        for number in (8..300).step_by(2) {
            last = receive(number).or(last);
        }
        let ranges = last.expect("reported");
        assert_eq!((ranges.len(), ranges.last()), (ACK_RANGES_MAX, Some(&(126..127))));
    }

    // [P-6.6]
    #[test]
    fn many_packets_are_reported_even_if_nothing_else_is_to_be_sent() {
        let mut received = ReceivedPackets::default();
        for number in 0..32 {
            assert_eq!(received.take_report(instant(), false), None, "before packet {number}");
            received.on_start(PacketNumber(number)).expect("a new number");
            received.on_end(instant(), PacketNumber(number));
        }
        assert_eq!(received.take_report(instant(), false).as_deref(), Some(std::slice::from_ref(&(0..32))));
    }

    // [P-6.6]
    #[test]
    fn peer_that_closes_waits_for_no_report() {
        let mut received = ReceivedPackets::default();
        received.on_start(PacketNumber(0)).expect("a new number");
        received.on_end(instant(), PacketNumber(0));
        assert_eq!(received.take_report(instant(), true), None);
        received.on_peer_closing();
        assert_eq!(received.take_report(instant(), false).as_deref(), Some(std::slice::from_ref(&(0..1))));
        assert_eq!(received.take_report(instant(), false), None);
    }
}
