//! The bytes that streams carry: each follows from the key of its stream and its offset.

use std::ops::Range;

use bytes::Bytes;

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
pub(crate) fn first_difference(key: u64, offset: u64, data: &[u8]) -> Option<u64> {
    let end = offset + data.len() as u64;
    let expected = bytes_at(key, offset..end);
    if expected == data {
        return None;
    }
    let at = expected.iter().zip(data).position(|(expected, found)| expected != found)?;
    Some(offset + at as u64)
}

/// Mixes numbers into a key.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0x6B77_696B, |key, part| scramble(key ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

fn word(key: u64, index: u64) -> u64 {
    scramble(key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}

/// The finalizer of SplitMix64.
fn scramble(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
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
}
