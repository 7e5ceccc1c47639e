use std::{fmt, time::Duration};

/// A moment of civil time: whole milliseconds since 1970-01-01 00:00 UTC.
///
/// Only tickets use it. The caller reads its own clock and passes the moment in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(Duration);

impl UnixTime {
    /// The moment `since_epoch` after the epoch, cut to whole milliseconds. What 64 bits of milliseconds cannot
    /// express, half a billion years, becomes the last moment they can.
    #[must_use]
    pub fn new(since_epoch: Duration) -> Self {
        Self::from_millis(millis(since_epoch))
    }

    /// The time since the epoch.
    #[must_use]
    pub fn since_epoch(self) -> Duration {
        self.0
    }

    /// The moment `later` after this one, or the last moment there is.
    #[must_use]
    pub fn saturating_add(self, later: Duration) -> Self {
        Self::new(self.0.saturating_add(later))
    }

    /// The moment so many milliseconds after the epoch.
    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Milliseconds since the epoch.
    pub(crate) fn as_millis(self) -> u64 {
        millis(self.0)
    }

    /// The moment `earlier` before this one, or the epoch.
    pub(super) fn saturating_sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }

    /// How long after `earlier` this moment is, if it is not before it.
    pub(super) fn checked_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixTime({} ms)", self.as_millis())
    }
}

/// Whole milliseconds, at most what the wire can express.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
