//! Datagrams with several packets (RFC 9000 §12.2).

/// The packets with a long header, then the one with a short header that may follow them; each may be absent.
///
/// QUIC counts the memory that stream data keeps by the length of the packet it came in. That is true of a packet in
/// memory of its own, and only those with a short header bring stream data here.
pub(super) fn split(datagram: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(rest) = datagram.get(at..).filter(|rest| !rest.is_empty()) {
        if rest[0] & LONG == 0 {
            break;
        }
        let Some(len) = long_packet_len(rest) else { return (datagram, &[]) };
        // A length beyond the datagram is for QUIC to refuse.
        at = at.saturating_add(len).min(datagram.len());
    }
    datagram.split_at(at)
}

/// The bit that marks a long header.
const LONG: u8 = 0x80;

/// The length of the packet that `bytes` begin with. `None` if it ends with the datagram, or makes no sense.
fn long_packet_len(bytes: &[u8]) -> Option<usize> {
    const INITIAL: u8 = 0;
    const RETRY: u8 = 3;
    let (first, rest) = bytes.split_first()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let kind = first >> 4 & 3;
    // Version Negotiation and Retry have no length field and end with the datagram (RFC 9000 §17.2).
    if *version == [0; 4] || kind == RETRY {
        return None;
    }
    let rest = skip_id(skip_id(rest)?)?;
    let rest = if kind == INITIAL {
        let (token, rest) = varint(rest)?;
        rest.get(token..)?
    } else {
        rest
    };
    let (payload, rest) = varint(rest)?;
    (bytes.len() - rest.len()).checked_add(payload)
}

fn skip_id(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first()?;
    rest.get(usize::from(*len)..)
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let len = 1 << (bytes.first()? >> 6);
    let (head, rest) = bytes.split_at_checked(len)?;
    let value = head.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let value = value & (u64::MAX >> (64 - 8 * len + 2));
    Some((usize::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Initial (kind 0) or Handshake (kind 2) packet with so many bytes behind its length field.
    fn long(kind: u8, payload: u8) -> Vec<u8> {
        let mut packet = vec![0xc0 | kind << 4, 0, 0, 0, 1, 2, 9, 9, 1, 9];
        if kind == 0 {
            packet.extend([2, 7, 7]);
        }
        packet.extend([0x40, payload]);
        packet.extend(vec![5; payload.into()]);
        packet
    }

    #[test]
    fn packet_with_short_header_is_split_off_wherever_it_is() {
        let short = [0x41; 30];
        for head in [vec![], long(0, 40), long(2, 0), [long(0, 63), long(2, 64)].concat()] {
            let datagram = [&head[..], &short].concat();
            assert_eq!(split(&datagram), (&head[..], &short[..]));
            assert_eq!(split(&head), (&head[..], &[][..]));
        }
    }

    #[test]
    fn what_cannot_be_measured_stays_whole() {
        let mut negotiation = long(0, 10);
        negotiation[1..5].fill(0);
        for head in [negotiation, long(3, 10), vec![0xc0], vec![0xc0, 0, 0, 0, 1, 255]] {
            assert_eq!(split(&head), (&head[..], &[][..]));
        }
        let cut = &long(2, 50)[..40];
        assert_eq!(split(cut), (cut, &[][..]), "a length beyond the datagram");
        let mut huge = long(2, 0);
        huge.truncate(10);
        huge.extend([0xff; 8]);
        assert_eq!(split(&huge), (&huge[..], &[][..]));
    }
}
