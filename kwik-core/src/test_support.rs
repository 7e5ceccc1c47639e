//! What unit tests need that the code itself must not have.

use std::time::Instant;

/// Some instant to count from.
#[expect(clippy::disallowed_methods, reason = "a test must begin somewhere; only differences matter")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
