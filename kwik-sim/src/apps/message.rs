//! What the applications say to each other before the bytes that only fill streams.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::content::bytes_at;

/// What every stream begins with, except the answering half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The session as the client numbered it.
    pub token: u64,
    /// Bytes of the stream, this header included.
    pub size: u64,
    /// Bytes wanted in return; on a stream of one direction, 0.
    pub answer: u64,
    /// After how many bytes the answer is to be reset, if it is.
    pub reset_after: Option<u64>,
    /// How many streams of one direction are wanted in return.
    pub pushes: u32,
    /// How many bytes each of those carries, its header included.
    pub push_size: u64,
}

impl Header {
    /// Length on the wire, in bytes.
    pub const LEN: usize = 44;

    /// The header as it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::LEN);
        out.put_u64(self.token);
        out.put_u64(self.size);
        out.put_u64(self.answer);
        out.put_u64(self.reset_after.unwrap_or(u64::MAX));
        out.put_u32(self.pushes);
        out.put_u64(self.push_size);
        out.freeze()
    }

    /// Reads a header of [`Header::LEN`] bytes.
    #[must_use]
    pub fn decode(mut data: &[u8]) -> Option<Self> {
        if data.len() != Self::LEN {
            return None;
        }
        Some(Self {
            token: data.get_u64(),
            size: data.get_u64(),
            answer: data.get_u64(),
            reset_after: Some(data.get_u64()).filter(|after| *after != u64::MAX),
            pushes: data.get_u32(),
            push_size: data.get_u64(),
        })
    }
}

/// What a primary asks of a secondary with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GrantRequest {
    pub(crate) token: u64,
    pub(crate) stream: u64,
}

impl GrantRequest {
    const LEN: usize = 16;

    /// The request, filled up with `padding` bytes.
    pub(crate) fn encode(self, padding: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::LEN + padding);
        out.put_u64(self.token);
        out.put_u64(self.stream);
        out.extend_from_slice(&bytes_at(self.token ^ self.stream, 0..padding as u64));
        out.freeze()
    }

    /// Reads a request; `None` if a byte of it is not what it should be.
    pub(crate) fn decode(mut data: &[u8]) -> Option<Self> {
        if data.len() < Self::LEN {
            return None;
        }
        let request = Self { token: data.get_u64(), stream: data.get_u64() };
        let padding = bytes_at(request.token ^ request.stream, 0..data.len() as u64);
        (padding == data).then_some(request)
    }
}

/// What servers send to each other through the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawMessage {
    pub(crate) token: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) number: u64,
    pub(crate) is_reply: bool,
}

impl RawMessage {
    const LEN: usize = 25;

    pub(crate) fn encode(self, padding: usize) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::LEN + padding);
        out.put_u64(self.token);
        out.put_u32(self.from);
        out.put_u32(self.to);
        out.put_u64(self.number);
        out.put_u8(u8::from(self.is_reply));
        out.extend_from_slice(&bytes_at(self.token ^ self.number, 0..padding as u64));
        out.freeze()
    }

    pub(crate) fn decode(mut data: &[u8]) -> Option<Self> {
        if data.len() < Self::LEN {
            return None;
        }
        let message = Self {
            token: data.get_u64(),
            from: data.get_u32(),
            to: data.get_u32(),
            number: data.get_u64(),
            is_reply: data.get_u8() != 0,
        };
        let padding = bytes_at(message.token ^ message.number, 0..data.len() as u64);
        (padding == data).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let header = Header { token: 1, size: 2, answer: 3, reset_after: Some(4), pushes: 5, push_size: 6 };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let header = Header { reset_after: None, ..header };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let request = GrantRequest { token: 7, stream: 8 };
        assert_eq!(GrantRequest::decode(&request.encode(100)), Some(request));
        let message = RawMessage { token: 7, from: 0, to: 3, number: 9, is_reply: true };
        assert_eq!(RawMessage::decode(&message.encode(50)), Some(message));
    }

    #[test]
    fn changed_padding_is_noticed() {
        let mut data = GrantRequest { token: 7, stream: 8 }.encode(10).to_vec();
        data[20] ^= 1;
        assert_eq!(GrantRequest::decode(&data), None);
    }
}
