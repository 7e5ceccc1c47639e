//! Virtual time. An `Instant` cannot be made from nothing, so one is read when a world begins; only differences to it
//! are ever used.

use std::time::{Duration, Instant};

/// The time of a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VirtualClock {
    start: Instant,
    now: Instant,
}

impl VirtualClock {
    /// What the wall clock shows when a world begins: a fixed moment, so that certificates and tickets are reproducible.
    pub(crate) const UNIX_AT_START: Duration = Duration::from_secs(1_800_000_000);

    #[expect(clippy::disallowed_methods, reason = "the origin of virtual time; nothing depends on its value")]
    pub(crate) fn new() -> Self {
        let start = Instant::now();
        Self { start, now: start }
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }

    /// Time never goes back.
    pub(crate) fn advance_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }
}
