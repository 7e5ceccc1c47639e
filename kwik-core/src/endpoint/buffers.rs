//! The memory that datagrams are copied to when they arrive.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

/// Memory of datagrams, which is used again once nothing of them waits. Each datagram has memory of its own, of about its
/// length: the little of it that may wait for a reader keeps nothing else.
#[derive(Default)]
pub(super) struct Buffers {
    /// Each with its size; the one that was filled first is the first.
    filled: VecDeque<(usize, BytesMut)>,
    /// The sum of those sizes.
    bytes: usize,
}

impl Buffers {
    /// Shorter datagrams get new memory, which costs little.
    const LEN_MIN: usize = 1024;
    /// Memory that is watched for being free again, in bytes.
    const BYTES_MAX: usize = 128 * 1024;

    /// A copy of a datagram.
    pub(super) fn copy(&mut self, datagram: &[u8]) -> BytesMut {
        let len = datagram.len();
        if len < Self::LEN_MIN {
            return BytesMut::from(datagram);
        }
        let (size, mut buf) = self.free(len).unwrap_or_else(|| (len, BytesMut::with_capacity(len)));
        buf.put_slice(datagram);
        let copy = buf.split();
        if self.bytes + size <= Self::BYTES_MAX {
            self.bytes += size;
            self.filled.push_back((size, buf));
        }
        copy
    }

    /// Memory for `len` bytes that is free again, and its size.
    fn free(&mut self, len: usize) -> Option<(usize, BytesMut)> {
        let (size, mut buf) = self.filled.pop_front()?;
        self.bytes -= size;
        // Much larger memory would be kept for a little.
        let fits = (len..=len + len / 8).contains(&size);
        (fits && buf.try_reclaim(len)).then_some((size, buf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_when_nothing_of_the_datagram_waits() {
        let mut buffers = Buffers::default();
        let first = buffers.copy(&[1; 1400]);
        let place = first.as_ptr();
        let second = buffers.copy(&[2; 1400]);
        assert_ne!(second.as_ptr(), place, "the first one still waits");
        drop((first, second));
        let third = buffers.copy(&[3; 1390]);
        assert!(third.iter().all(|byte| *byte == 3) && third.len() == 1390);
        // The first one's is not watched any more, since it waited when it was asked for.
        let fourth = buffers.copy(&[4; 1400]);
        assert!(fourth.iter().all(|byte| *byte == 4) && third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn little_never_waits_in_much_memory() {
        let mut buffers = Buffers::default();
        drop(buffers.copy(&[1; 60_000]));
        let (small, tiny) = (buffers.copy(&[2; 1400]), buffers.copy(&[3; 40]));
        assert!(small.capacity() <= 1400 + 175 && tiny.capacity() <= 64);
        (0..1000).for_each(|_| drop(buffers.copy(&[4; 9000])));
        assert!(buffers.bytes <= Buffers::BYTES_MAX && buffers.filled.len() <= 14);
    }
}
