//! How fast the path delivers (draft-ietf-ccwg-bbr §4.1): what was known when a packet was sent, beside what is known when it
//! is acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bytes;

/// What was known at a moment at which packets were sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    sent: Instant,
    /// Bytes delivered until then.
    pub(super) delivered: u64,
    delivered_at: Instant,
    /// When the packet was sent that was delivered last until then.
    first_sent: Instant,
    /// Bytes lost until then.
    pub(super) lost: u64,
    /// Bytes in flight, these packets included.
    pub(super) in_flight: u64,
    is_app_limited: bool,
}

/// What one batch of acknowledgements tells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes a second; `None` if the packets were under way for too short a time to tell.
    pub(super) rate: Option<u64>,
    /// The sender had less to send than the path carries.
    pub(super) is_app_limited: bool,
    /// Bytes delivered when the newest of the packets was sent.
    pub(super) prior_delivered: u64,
    /// The shortest round trip of the batch.
    pub(super) rtt: Duration,
}

/// Counts what is sent, delivered and lost.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    records: VecDeque<Record>,
    delivered: u64,
    delivered_at: Instant,
    first_sent: Instant,
    lost: u64,
    /// Whatever is sent until so much was delivered is limited by the application.
    app_limited_until: Option<u64>,
    batch: Option<Batch>,
}

/// Acknowledgements of one moment.
#[derive(Debug, Clone, Copy)]
struct Batch {
    newest_sent: Instant,
    rtt: Duration,
}

impl Sampler {
    /// Records there are at most. Packets that were sent shortly after each other share one, so that memory does not follow
    /// the rate.
    const RECORDS_MAX: usize = 512;
    /// Places that are kept while nothing is in flight.
    const RECORDS_KEPT: usize = 8;
    /// Records are so many to a round trip at most.
    const PER_ROUND_TRIP: u32 = 64;
    /// Records are so far apart at least, however short the round trip.
    const GAP_MIN: Duration = Duration::from_micros(500);

    pub(super) fn new(now: Instant) -> Self {
        Self {
            records: VecDeque::new(),
            delivered: 0,
            delivered_at: now,
            first_sent: now,
            lost: 0,
            app_limited_until: None,
            batch: None,
        }
    }

    /// Packets were sent; `in_flight` bytes were on the way before.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64, rtt: Duration) {
        if in_flight == 0 {
            // A flight begins: neither its packets nor their acknowledgements are late because of what was before.
            (self.first_sent, self.delivered_at) = (now, now);
        }
        let in_flight = in_flight.saturating_add(bytes);
        let gap = (rtt / Self::PER_ROUND_TRIP).max(Self::GAP_MIN);
        if let Some(last) = self.records.back_mut()
            && now.saturating_duration_since(last.sent) < gap
        {
            last.in_flight = last.in_flight.max(in_flight);
            return;
        }
        if self.records.len() >= Self::RECORDS_MAX {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            lost: self.lost,
            in_flight,
            is_app_limited: self.app_limited_until.is_some(),
        });
    }

    /// A packet sent at `sent` was acknowledged.
    pub(super) fn on_acked(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered = self.delivered.saturating_add(bytes);
        let rtt = now.saturating_duration_since(sent);
        let batch = self.batch.get_or_insert(Batch { newest_sent: sent, rtt });
        batch.newest_sent = batch.newest_sent.max(sent);
        batch.rtt = batch.rtt.min(rtt);
    }

    /// The batch of acknowledgements is complete; it began with `in_flight` bytes left, and no rate is taken from less than
    /// `rtt_min`.
    pub(super) fn on_batch(
        &mut self,
        now: Instant,
        in_flight: u64,
        is_app_limited: bool,
        rtt_min: Duration,
    ) -> Option<Sample> {
        let batch = self.batch.take()?;
        let record = self.at(batch.newest_sent).copied();
        let sample = record.map(|record| Sample {
            rate: self.rate(now, &record, batch.newest_sent, rtt_min),
            is_app_limited: record.is_app_limited,
            prior_delivered: record.delivered,
            rtt: batch.rtt,
        });
        self.delivered_at = now;
        self.first_sent = self.first_sent.max(batch.newest_sent);
        if in_flight == 0 {
            // No record is asked for any more. Most connections are idle most of the time.
            self.records.clear();
            self.records.shrink_to(Self::RECORDS_KEPT);
        }
        if is_app_limited {
            self.app_limited_until = Some(self.delivered.saturating_add(in_flight));
        } else if self.app_limited_until.is_some_and(|until| self.delivered > until) {
            self.app_limited_until = None;
        }
        sample
    }

    fn rate(&self, now: Instant, record: &Record, sent: Instant, rtt_min: Duration) -> Option<u64> {
        let sending = sent.saturating_duration_since(record.first_sent);
        let acknowledging = now.saturating_duration_since(record.delivered_at);
        // The larger of both: neither a burst of packets nor one of acknowledgements makes a path faster.
        let interval = sending.max(acknowledging);
        if interval < rtt_min || interval.is_zero() {
            return None;
        }
        let delivered = self.delivered.saturating_sub(record.delivered);
        Some(bytes(delivered as f64 / interval.as_secs_f64()))
    }

    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_add(bytes);
    }

    /// What was known when a packet was sent, or shortly before; `None` if that was long ago.
    pub(super) fn at(&self, sent: Instant) -> Option<&Record> {
        let after = self.records.partition_point(|record| record.sent <= sent);
        self.records.get(after.checked_sub(1)?)
    }

    /// Bytes.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Bytes.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}
