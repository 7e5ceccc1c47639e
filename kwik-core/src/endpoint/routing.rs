//! Which of the workers that share a port a datagram belongs to (PROTOCOL.md §2).

use quinn_proto::ConnectionId;

/// Tells the workers of one port apart by the connection ids that they give themselves.
///
/// The worker's number is a keyed hash of the id, so that only who has the keys can tell that two ids name one worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    workers: u16,
    keys: [u32; 3],
}

impl Routing {
    /// Length of the connection ids that endpoints give themselves, in bytes.
    pub const CONNECTION_ID_BYTES: usize = 8;

    pub(super) fn new(workers: u16, [a, b, c]: [u32; 3]) -> Self {
        // To multiply with an odd number loses nothing.
        Self { workers: workers.max(1), keys: [a, b | 1, c | 1] }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> u16 {
        self.workers
    }

    /// The keys `a`, `b`, `c` of the hash, for those who compute it elsewhere, such as in the kernel. They are secret.
    ///
    /// With the id as two big-endian numbers `x` and `y` of 32 bits, and products of 32 bits: `h = (x ^ a) * b`, then
    /// `h = ((h ^ h >> 16) ^ y) * c`; the worker is `(h ^ h >> 15)` modulo the number of workers.
    #[must_use]
    pub fn keys(&self) -> [u32; 3] {
        self.keys
    }

    /// The worker, from 0, that a datagram belongs to. `None` if it is for whoever gets it: the client chose the id, and
    /// the system brings all datagrams from one address to the same worker.
    #[must_use]
    pub fn owner(&self, datagram: &[u8]) -> Option<u16> {
        let (first, rest) = datagram.split_first()?;
        let id = if first & 0x80 == 0 {
            rest
        } else {
            // Version, length of the id, id (RFC 8999 §5.1).
            let (len, id) = rest.get(4..)?.split_first()?;
            (usize::from(*len) == Self::CONNECTION_ID_BYTES).then_some(id)?
        };
        id.first_chunk().map(|id| self.named_by(*id))
    }

    /// The worker that an id names.
    fn named_by(&self, id: [u8; Self::CONNECTION_ID_BYTES]) -> u16 {
        let [a, b, c] = self.keys;
        let [x0, x1, x2, x3, y0, y1, y2, y3] = id;
        let (x, y) = (u32::from_be_bytes([x0, x1, x2, x3]), u32::from_be_bytes([y0, y1, y2, y3]));
        let hash = (x ^ a).wrapping_mul(b);
        let hash = (hash ^ hash >> 16 ^ y).wrapping_mul(c);
        let worker = (hash ^ hash >> 15) % u32::from(self.workers);
        u16::try_from(worker).unwrap_or_default()
    }

    /// Whether an id names this worker.
    pub(super) fn is_named(&self, worker: u16, id: &ConnectionId) -> bool {
        id.first_chunk().is_some_and(|id| self.named_by(*id) == worker)
    }
}

impl std::fmt::Debug for Routing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routing").field("workers", &self.workers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [u32; 3] = [0x9E37_79B9, 0x85EB_CA6B, 0xC2B2_AE35];

    fn id(number: u64) -> [u8; 8] {
        (number << 32 | number.wrapping_mul(0x9E37_79B9) & 0xffff_ffff).to_be_bytes()
    }

    fn long(kind: u8, id: &[u8]) -> Vec<u8> {
        let len = u8::try_from(id.len()).unwrap();
        [&[0xc0 | kind << 4, 0, 0, 0, 1, len], id, &[8; 40]].concat()
    }

    #[test]
    fn ids_of_servers_name_a_worker_in_every_header_and_those_of_clients_none() {
        let routing = Routing::new(4, KEYS);
        for number in 0..100 {
            let id = id(number);
            let owner = routing.named_by(id);
            assert!(owner < 4);
            assert_eq!(routing.owner(&[&[0x41], &id[..], &[7; 30]].concat()), Some(owner));
            for kind in 0..4 {
                assert_eq!(routing.owner(&long(kind, &id)), Some(owner));
                assert_eq!(routing.owner(&long(kind, &[id, id].concat())), None, "16 bytes, as clients draw them");
            }
        }
        for short in [&[][..], &[0x41], &[0x41, 1, 2, 3, 4, 5, 6, 7], &[0xc0, 0, 0, 0, 1], &long(0, &id(1))[..13]] {
            assert_eq!(routing.owner(short), None);
        }
    }

    #[test]
    fn ids_are_spread_evenly_and_differently_with_other_keys() {
        let (one, other) = (Routing::new(8, KEYS), Routing::new(8, [1, 2, 3]));
        let mut counts = [0_u32; 8];
        let mut equal = 0;
        for number in 0..8000 {
            let owner = one.named_by(id(number));
            counts[usize::from(owner)] += 1;
            equal += u32::from(owner == other.named_by(id(number)));
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert!((800..1200).contains(&equal), "{equal} of 8000 name the same with other keys");
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", Routing::new(4, KEYS)), "Routing { workers: 4, .. }");
    }
}
