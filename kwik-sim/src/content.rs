//! What streams contain, wherever worlds are tested: each byte follows from the key of its stream and its offset, so that
//! a byte in the wrong place is recognised.

use std::ops::Range;

use bytes::Bytes;

use crate::rng::finish;

/// The byte at an offset of the stream with this key.
#[must_use]
pub fn byte_at(key: u64, offset: u64) -> u8 {
    word(key, offset / 8).to_le_bytes()[(offset % 8) as usize]
}

/// The bytes in a range of the stream with this key.
#[must_use]
pub fn bytes_at(key: u64, range: Range<u64>) -> Bytes {
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(len + 16);
    let first = range.start / 8;
    bytes.extend((first..range.end.div_ceil(8)).flat_map(|index| word(key, index).to_le_bytes()));
    let skip = (range.start % 8) as usize;
    Bytes::from(bytes).slice(skip..skip + len)
}

/// The offset of the first byte that is not the one it should be.
#[must_use]
pub fn first_difference(key: u64, offset: u64, data: &[u8]) -> Option<u64> {
    let end = offset + data.len() as u64;
    let expected = bytes_at(key, offset..end);
    if expected == data {
        return None;
    }
    let at = expected.iter().zip(data).position(|(expected, found)| expected != found)?;
    Some(offset + at as u64)
}

/// The beginning of a content, again and again. It is for measurements: what it lends was made before, and costs nothing.
#[derive(Clone)]
pub struct RepeatedContent(Bytes);

impl RepeatedContent {
    /// A prime, so that no misplaced chunk looks right.
    const PERIOD: u64 = 65_521;

    /// The content of the stream with this key.
    #[must_use]
    pub fn new(key: u64) -> Self {
        let period = bytes_at(key, 0..Self::PERIOD);
        Self(Bytes::from([&period[..], &period].concat()))
    }

    /// Bytes from `offset`, at most `max` and at most a period.
    #[must_use]
    pub fn at(&self, offset: u64, max: u64) -> Bytes {
        let (begin, len) = (offset % Self::PERIOD, max.min(Self::PERIOD));
        self.0.slice(position(begin)..position(begin + len))
    }

    /// The offset of the first byte that is not the one it should be.
    #[must_use]
    pub fn first_difference(&self, mut offset: u64, mut data: &[u8]) -> Option<u64> {
        while !data.is_empty() {
            let expected = self.at(offset, data.len() as u64);
            let (piece, rest) = data.split_at(expected.len());
            if piece != expected {
                let equal = expected.iter().zip(piece).take_while(|(expected, found)| expected == found).count();
                return Some(offset + equal as u64);
            }
            offset += piece.len() as u64;
            data = rest;
        }
        None
    }
}

/// Of a period, which is short.
fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// Mixes numbers into a key.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x6B77_696B, |key, part| finish(key ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn word(key: u64, index: u64) -> u64 {
    finish(key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_single_bytes() {
        for range in [0..0, 0..1, 0..8, 3..9, 7..8, 5..64, 1_000_003..1_000_100] {
            let expected: Vec<u8> = range.clone().map(|offset| byte_at(9, offset)).collect();
            assert_eq!(bytes_at(9, range.clone()), expected, "{range:?}");
        }
    }

    #[test]
    fn differences_are_found_where_they_are() {
        let mut data = bytes_at(1, 10..50).to_vec();
        assert_eq!(first_difference(1, 10, &data), None);
        data[7] ^= 1;
        assert_eq!(first_difference(1, 10, &data), Some(17));
        assert!(first_difference(2, 10, &bytes_at(1, 10..50)).is_some());
    }

    #[test]
    fn repeated_content_begins_again_after_a_prime_number_of_bytes() {
        let content = RepeatedContent::new(7);
        assert_eq!(content.at(10, 50), bytes_at(7, 10..60));
        assert_eq!(content.at(RepeatedContent::PERIOD + 10, 50), bytes_at(7, 10..60));
        let mut data = [content.at(60_000, u64::MAX), content.at(60_000 + RepeatedContent::PERIOD, 9)].concat();
        assert_eq!(content.first_difference(60_000, &data), None);
        data[7_000] ^= 1;
        assert_eq!(content.first_difference(60_000, &data), Some(67_000));
        assert_eq!(content.first_difference(60_001, &data), Some(60_001));
    }
}
