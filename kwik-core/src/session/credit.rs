//! How fast stream credit comes back of streams that the peer abandoned (PROTOCOL.md §5).

use std::time::Instant;

use crate::allowance::Allowance;
use crate::id::Dir;
use crate::limits::{FLOOR_STREAMS, Limits};
use crate::stream::StreamTable;

/// Slots of streams that end well come free at once, and make up for as many of abandoned ones. Of those, as many come
/// free at once as the peer may have streams, and as many again in each [`Limits::stream_credit_refill`]: nobody who
/// cancels is punished, and who does nothing else spends its own credit.
pub(super) struct StreamCredit {
    bidi: Slots,
    uni: Slots,
}

struct Slots {
    allowance: Allowance,
    /// How many are worth a frame of their own.
    step: u64,
}

impl StreamCredit {
    pub(super) fn new(now: Instant, limits: &Limits) -> Self {
        let slots = |streams: u64| {
            let streams = streams.max(FLOOR_STREAMS);
            let allowance = Allowance::over(now, streams, streams, limits.stream_credit_refill);
            Slots { allowance, step: streams / FLOOR_STREAMS }
        };
        Self { bidi: slots(limits.streams_bidi_max), uni: slots(limits.streams_uni_max) }
    }

    /// Lets slots come free whose time has come.
    pub(super) fn give_out(&mut self, now: Instant, streams: &mut StreamTable) {
        for dir in Dir::ALL {
            let slots = match dir {
                Dir::Bi => &mut self.bidi,
                Dir::Uni => &mut self.uni,
            };
            let completed = streams.take_completed(dir);
            if completed > 0 {
                slots.allowance.give_back(completed);
            }
            // A step of slots is worth a frame; once one is due, all that the allowance has go with it.
            if slots.due(streams.withheld(dir)).is_some_and(|at| at <= now) {
                streams.free_withheld(dir, slots.allowance.take_up_to(now, streams.withheld(dir)));
            }
        }
    }

    /// When the next slots come free, if some wait for it.
    pub(super) fn deadline(&self, streams: &StreamTable) -> Option<Instant> {
        let due = [self.bidi.due(streams.withheld(Dir::Bi)), self.uni.due(streams.withheld(Dir::Uni))];
        due.into_iter().flatten().min()
    }
}

impl Slots {
    /// When `withheld` slots come free, or the first few of them.
    fn due(&self, withheld: u64) -> Option<Instant> {
        (withheld > 0).then(|| self.allowance.ready_at(withheld.min(self.step))).flatten()
    }
}
