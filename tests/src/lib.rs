//! What the tests by topic share beside the fleet.

pub mod transfer;

use std::ops::Range;

use bytes::Bytes;

pub use kwik_sim::{Ends, Fleet, LONG, SERVER_NAME};

/// The bytes that every test expects in a range of a stream.
#[must_use]
pub fn pattern(range: Range<u64>) -> Bytes {
    kwik_sim::content::bytes_at(0, range)
}
