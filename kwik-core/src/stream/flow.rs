//! The credit of a session: an absolute limit for each stream, and one budget for the sum.
//!
//! What is reserved is at least the sum over streams of (limit − consumed), and never more than the budget. Every
//! stream the peer may open has its initial window reserved from the start, so that stream credit is always covered.

use crate::limits::{FLOOR_STREAM_BYTES, Limits, VARINT_MAX};

/// How windows of streams develop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowRules {
    pub(crate) initial: u64,
    usual: u64,
    max: u64,
    /// What the paths ask for.
    wanted: u64,
}

impl WindowRules {
    /// How many times what the application consumed a window may be: a sender that begins doubles what it sends with each
    /// round trip, and hears of credit a round trip late.
    const GROWTH: u64 = 4;

    pub(crate) fn new(limits: &Limits) -> Self {
        let initial = limits.stream_window_initial_bytes.clamp(FLOOR_STREAM_BYTES, VARINT_MAX);
        let usual = limits.stream_window_bytes.max(initial);
        Self { initial, usual, max: limits.stream_window_bytes_max().max(usual), wanted: 0 }
    }

    /// With windows of so many bytes, what the paths can bring is never held up.
    pub(crate) fn on_wanted(&mut self, bytes: u64) {
        self.wanted = bytes;
    }

    /// The window a stream deserves: what the paths ask for, as far as the application consumes it. Its reader may have to
    /// wait for the lowest bytes, while others bring what follows.
    fn target(&self, consumed: u64, reader_waits: bool) -> u64 {
        let keeps_up = if reader_waits { u64::MAX } else { consumed.saturating_mul(Self::GROWTH) };
        self.wanted.min(keeps_up).clamp(self.usual, self.max)
    }
}

/// The bytes a session may promise to buffer.
#[derive(Debug)]
pub(crate) struct Budget {
    total: u64,
    reserved: u64,
    /// What windows leave free when they grow, so that streams can be opened here as well.
    kept: u64,
    /// What the endpoint has left for the session now.
    room: Room,
}

/// What an endpoint has left for a session, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// For anything.
    pub(crate) grow: u64,
    /// Of that, for the windows of paths, which are kept as long as a path lives.
    pub(crate) windows: u64,
    /// For a stream to be opened, if there is no more for anything.
    pub(crate) open: u64,
}

impl Room {
    const ALL: Self = Self { grow: u64::MAX, windows: u64::MAX, open: u64::MAX };

    fn on_changed(&mut self, before: u64, after: u64) {
        for room in [&mut self.grow, &mut self.windows, &mut self.open] {
            *room = room.saturating_add(before).saturating_sub(after);
        }
    }
}

impl Budget {
    /// A budget of which the initial windows of `streams` of the peer are reserved, and those of `opened_here` kept
    /// from windows that grow.
    pub(crate) fn new(total: u64, streams: u64, opened_here: u64, rules: WindowRules) -> Self {
        let reserved = streams.saturating_mul(rules.initial);
        let kept = opened_here.saturating_mul(rules.initial);
        // The peer may use all streams that it was promised, even if the budget says less.
        Self { total: total.max(reserved), reserved, kept, room: Room::ALL }
    }

    pub(crate) fn free(&self) -> u64 {
        (self.total - self.reserved).min(self.room.grow)
    }

    /// What is free for the window of a stream that is opened here.
    pub(crate) fn free_to_open(&self) -> u64 {
        (self.total - self.reserved).min(self.room.grow.max(self.room.open))
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// Something else than credit took `after` bytes of the room instead of `before`.
    pub(crate) fn on_changed(&mut self, before: u64, after: u64) {
        self.room.on_changed(before, after);
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Takes so much of what is free.
    fn reserve(&mut self, bytes: u64, free: u64) -> bool {
        let fits = bytes <= free;
        if fits {
            self.reserved += bytes;
            self.room.on_changed(0, bytes);
        }
        fits
    }

    fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
        self.room.on_changed(bytes, 0);
    }
}

/// The credit of all streams since the session began, and the bytes that came. An honest peer sends no byte twice, so
/// it sends fewer bytes than that, whatever became of their streams.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    given: u64,
    used: u64,
}

impl Credit {
    pub(crate) fn on_given(&mut self, bytes: u64) {
        self.given = self.given.saturating_add(bytes);
    }

    /// Whether so many more bytes may come; counts them if so.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let used = self.used.saturating_add(bytes);
        let fits = used <= self.given;
        if fits {
            self.used = used;
        }
        fits
    }
}

/// The credit of one stream, and what it holds of the budget.
#[derive(Debug)]
pub(crate) struct Window {
    limit: u64,
    /// Reserved even while less is promised, so that the stream can always go on.
    floor: u64,
    charged: u64,
}

impl Window {
    /// The window of a stream the peer opens. Its initial part is reserved since the stream credit was given, and
    /// stays so until the credit is given again.
    pub(crate) fn covered(rules: WindowRules) -> Self {
        Self { limit: rules.initial, floor: rules.initial, charged: rules.initial }
    }

    /// The window of a stream opened here. `None` when the budget has no room.
    pub(crate) fn reserve(budget: &mut Budget, rules: WindowRules) -> Option<Self> {
        let free = budget.free_to_open();
        budget.reserve(rules.initial, free).then(|| Self::covered(rules))
    }

    /// The window of bytes that came without credit: nothing is reserved for them.
    pub(crate) fn without_credit(len: u64) -> Self {
        Self { limit: len, floor: 0, charged: 0 }
    }

    /// Whether something is reserved for what may come.
    pub(crate) fn is_reserved(&self) -> bool {
        self.floor > 0
    }

    /// How far the peer may write.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes of the budget that are reserved for this stream.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    /// Raises the limit if that is worth an announcement. A window never takes more of the budget than it leaves
    /// free, so that one stream cannot take everything.
    pub(crate) fn advance(
        &mut self,
        budget: &mut Budget,
        rules: WindowRules,
        consumed: u64,
        reader_waits: bool,
    ) -> bool {
        let target = rules.target(consumed, reader_waits);
        let affordable = budget.free().saturating_sub(budget.kept).saturating_add(self.charged) / 2;
        let window = target.min(affordable.max(self.floor));
        let limit = consumed.saturating_add(window).min(VARINT_MAX);
        let step = limit.saturating_sub(self.limit);
        let (more, free) = (window.max(self.floor).saturating_sub(self.charged), budget.free());
        // A raise by less than a quarter of the window is not worth a frame.
        if step == 0 || step < window / 4 || !budget.reserve(more, free) {
            return false;
        }
        self.limit = limit;
        self.charged = self.charged.max(window);
        true
    }

    /// Gives back what is not needed to buffer `needed` more bytes.
    pub(crate) fn settle(&mut self, budget: &mut Budget, needed: u64) {
        let charge = needed.max(self.floor).min(self.charged);
        budget.release(self.charged - charge);
        self.charged = charge;
    }

    /// Gives back everything, the floor included. For streams opened here.
    pub(crate) fn close(&mut self, budget: &mut Budget) {
        self.floor = 0;
        self.settle(budget, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> WindowRules {
        WindowRules { initial: 16, usual: 64, max: 256, wanted: u64::MAX }
    }

    // [P-5.12]
    #[test]
    fn a_window_grows_only_with_consumption() {
        let mut budget = Budget::new(10_000, 1, 0, rules());
        let mut window = Window::covered(rules());
        assert!(window.advance(&mut budget, rules(), 0, false));
        assert_eq!(window.limit(), 64);
        assert!(!window.advance(&mut budget, rules(), 0, false), "nothing was consumed");
        window.settle(&mut budget, window.limit() - 10);
        assert!(!window.advance(&mut budget, rules(), 10, false), "less than a quarter");
        window.settle(&mut budget, window.limit() - 32);
        assert!(window.advance(&mut budget, rules(), 32, false));
        assert_eq!(window.limit(), 32 + 128);
        window.settle(&mut budget, 0);
        assert!(window.advance(&mut budget, rules(), 1000, false));
        assert_eq!(window.limit(), 1256);
        assert_eq!(budget.reserved(), 256);
    }

    #[test]
    fn a_window_follows_what_the_paths_bring() {
        let mut budget = Budget::new(10_000, 1, 0, rules());
        let mut window = Window::covered(rules());
        let mut rules = rules();
        let mut window_at = |wanted, consumed: u64| {
            rules.on_wanted(wanted);
            let needed = window.limit().saturating_sub(consumed);
            window.settle(&mut budget, needed);
            window.advance(&mut budget, rules, consumed, false);
            (window.limit() - consumed, budget.reserved())
        };
        assert_eq!(window_at(200, 1_000), (200, 200));
        assert_eq!(window_at(200, 1_050), (200, 200));
        assert_eq!(window_at(1_000, 1_060), (256, 256), "the most");
        assert_eq!(window_at(80, 1_100), (216, 216), "what was promised stays");
        assert_eq!(window_at(80, 1_300), (80, 80), "and is not promised again");
        assert_eq!(window_at(0, 1_400), (64, 64), "the usual");
    }

    #[test]
    fn a_window_grows_while_its_reader_waits_for_the_lowest_bytes() {
        let mut budget = Budget::new(10_000, 1, 0, rules());
        let mut window = Window::covered(rules());
        assert!(window.advance(&mut budget, rules(), 0, false));
        assert!(!window.advance(&mut budget, rules(), 0, false), "it does not read");
        assert!(window.advance(&mut budget, rules(), 0, true));
        assert_eq!(window.limit(), 256);
    }

    // [P-5.12]
    #[test]
    fn one_stream_never_takes_what_others_need() {
        let mut budget = Budget::new(100, 1, 0, rules());
        let mut first = Window::covered(rules());
        assert!(first.advance(&mut budget, rules(), 0, false));
        assert!(first.charged() <= budget.free());
        let mut second = Window::reserve(&mut budget, rules()).unwrap();
        second.advance(&mut budget, rules(), 0, false);
        assert!(second.charged() >= 16 && budget.reserved() <= 100);
        second.close(&mut budget);
        assert_eq!(budget.reserved(), first.charged());
    }

    #[test]
    fn growing_windows_leave_room_to_open_streams() {
        let mut budget = Budget::new(200, 1, 3, rules());
        let mut windows = Vec::new();
        for _ in 0..3 {
            let mut window = Window::reserve(&mut budget, rules()).expect("kept for it");
            window.advance(&mut budget, rules(), 0, false);
            windows.push(window);
        }
        assert!(windows[0].limit() > 16, "what is not kept may be grown into");
    }

    #[test]
    fn the_limit_stays_what_the_wire_can_express() {
        let mut budget = Budget::new(u64::MAX, 1, 0, rules());
        let mut window = Window::covered(rules());
        assert!(window.advance(&mut budget, rules(), VARINT_MAX - 1, false));
        assert_eq!(window.limit(), VARINT_MAX);
        assert!(!window.advance(&mut budget, rules(), u64::MAX, false));
    }
}
