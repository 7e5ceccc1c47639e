//! The memory of an endpoint: who holds how much of it, and who may have more.
//!
//! A session is not asked to give back what its peer was promised. So what is left is dealt out with care: from the
//! first half on, sessions begin small; a quarter is kept for those that are yet to come, a sixteenth of all for
//! connections that have not authenticated; and no network takes more than it leaves to others.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::admission::Network;
use super::{Endpoint, Key, Queue};
use crate::id::SessionHandle;
use crate::limits::Limits;
use crate::path::Path;
use crate::session::Session;
use crate::stream::Room;

/// An endpoint as measured at this end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Sessions, those that are closing too.
    pub sessions: usize,
    /// Connections that have not authenticated.
    pub unauthenticated: usize,
    /// Turns that sessions and unauthenticated connections had since the endpoint began. An endpoint that is only
    /// polled gives none.
    pub turns: u64,
    /// What all peers together can make the endpoint hold now, in bytes.
    pub memory_bytes: u64,
    /// The most that this may be, in bytes: [`Limits::endpoint_memory_max`](crate::Limits::endpoint_memory_max).
    pub memory_bytes_max: u64,
}

/// Who holds how much.
pub(super) struct Memory {
    max: u64,
    used: u64,
    claims: BTreeMap<Key, Claim>,
    networks: BTreeMap<Network, u64>,
    loan: Option<Loan>,
    /// Sessions that would have taken more.
    pub(super) starved: Queue<SessionHandle>,
    /// What was given back since all starved sessions last got a turn, in bytes.
    freed: u64,
    /// How many of them still get a turn for that, one after the other.
    to_feed: usize,
}

/// All there is to take was lent to this session, which held so much then.
struct Loan {
    session: SessionHandle,
    counted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    network: Network,
    bytes: u64,
}

impl Memory {
    /// What a session holds is counted in steps, so that few packets change it.
    const STEP: u64 = 16 * 1024;
    /// What a session may take at once to open streams, if there is no more for anything.
    const OPEN_BYTES: u64 = 64 * 1024;

    pub(super) fn new(max: u64) -> Self {
        let (claims, networks) = (BTreeMap::new(), BTreeMap::new());
        Self { max, used: 0, claims, networks, loan: None, starved: Queue::new(), freed: 0, to_feed: 0 }
    }

    /// How many unauthenticated connections may have a place. As many again may be on their way out.
    pub(super) fn unauthenticated_max(max: u64) -> usize {
        usize::try_from(max / 32 / Path::UNAUTHENTICATED_BYTES).unwrap_or(usize::MAX)
    }

    /// What a session of this network may take to begin with all that its limits say.
    fn room_to_begin(&self, network: Network) -> u64 {
        self.share(self.max / 2, network)
    }

    /// What a session of this network may take to grow.
    pub(super) fn room_to_grow(&self, network: Network) -> u64 {
        self.share(self.max - self.max / 4, network)
    }

    /// What a session of this network may take, and what for. Windows of paths are kept for as long as a path lives: if
    /// they took all, no stream could be opened any more. A stream may be opened of what is kept for new sessions.
    pub(super) fn room(&self, network: Network) -> Room {
        let own = self.networks.get(&network).copied().unwrap_or_default();
        let fits = self.used.saturating_add(Self::OPEN_BYTES) <= self.max - self.max / 16;
        let may_open = fits && own.saturating_add(Self::OPEN_BYTES) <= self.max / 2;
        Room {
            grow: self.room_to_grow(network),
            windows: self.share(self.max - self.max / 4 - self.max / 8, network),
            open: if may_open { Self::OPEN_BYTES } else { 0 },
        }
    }

    /// Whether one of this network may come that costs so much.
    pub(super) fn has_room_for(&self, network: Network, bytes: u64) -> bool {
        bytes <= self.share(self.max - self.max / 16, network)
    }

    /// Whether one more unauthenticated connection may come. How many a network may have, `admission` says.
    pub(super) fn has_room_for_unauthenticated(&self) -> bool {
        self.used.saturating_add(Path::UNAUTHENTICATED_BYTES) <= self.max
    }

    /// What a network may still take of the first `most` bytes: not more than it leaves.
    fn share(&self, most: u64, network: Network) -> u64 {
        let own = self.networks.get(&network).copied().unwrap_or_default();
        most.saturating_sub(self.used).saturating_sub(own) / 2
    }

    /// Somebody of this network holds so much.
    pub(super) fn enter(&mut self, key: Key, network: Network, bytes: u64) {
        self.claims.insert(key, Claim { network, bytes: 0 });
        self.set(key, bytes);
    }

    /// Somebody holds so much now. Returns whether that is less than before, or more.
    pub(super) fn set(&mut self, key: Key, bytes: u64) -> Option<Ordering> {
        let claim = self.claims.get_mut(&key).filter(|claim| claim.bytes != bytes)?;
        let before = std::mem::replace(&mut claim.bytes, bytes);
        let of_network = self.networks.entry(claim.network).or_default();
        *of_network = (*of_network - before).saturating_add(bytes);
        self.used = (self.used - before).saturating_add(bytes);
        self.freed = self.freed.saturating_add(before.saturating_sub(bytes));
        Some(bytes.cmp(&before))
    }

    /// Somebody is gone.
    pub(super) fn leave(&mut self, key: Key) {
        self.set(key, 0);
        let Some(Claim { network, .. }) = self.claims.remove(&key) else { return };
        if self.networks.get(&network) == Some(&0) {
            self.networks.remove(&network);
        }
    }

    /// What a session counts for.
    fn counted(session: &Session) -> u64 {
        session.claim().checked_next_multiple_of(Self::STEP).unwrap_or(u64::MAX)
    }

    fn network(&self, key: Key) -> Option<Network> {
        self.claims.get(&key).map(|claim| claim.network)
    }
}

impl Endpoint {
    /// Starved sessions that get a turn at once when there is memory again.
    const FED_AT_ONCE: usize = 4;

    /// How much memory peers can make the endpoint hold, and how many there are. As of the last drain.
    #[must_use]
    pub fn stats(&self) -> EndpointStats {
        EndpointStats {
            sessions: self.sessions.len(),
            unauthenticated: self.incoming.len(),
            turns: self.turns,
            memory_bytes: self.memory.used,
            memory_bytes_max: self.memory.max,
        }
    }

    /// The limits that a session of this network can have: its own, or the least there are. `None` if there is no room.
    pub(super) fn afford(&self, network: Network, limits: &Limits, has_streams: bool) -> Option<Limits> {
        if Session::usual_bytes(limits, has_streams) <= self.memory.room_to_begin(network) {
            return Some(limits.clone());
        }
        let least = limits.least();
        let fits = self.memory.has_room_for(network, Session::least_bytes(&least, has_streams));
        fits.then_some(least)
    }

    /// A session begins, and what it costs counts.
    pub(super) fn enter_session(&mut self, handle: SessionHandle, network: Network) {
        self.call_in();
        let detail = self.config.event_detail;
        if let Some(session) = self.sessions.get_mut(&handle) {
            session.begin_log(detail);
            self.memory.enter(Key::Session(handle), network, Memory::counted(session));
        }
    }

    /// Whether a session may have one more path.
    pub(super) fn has_room_for_path(&self, handle: SessionHandle) -> bool {
        let network = self.memory.network(Key::Session(handle));
        network.is_some_and(|network| self.memory.has_room_for(network, Path::LEAST_BYTES))
    }

    pub(super) fn is_lent_to(&self, handle: SessionHandle) -> bool {
        self.memory.loan.as_ref().is_some_and(|loan| loan.session == handle)
    }

    /// Lends a session all that it may take. The session that had the loan before cannot take any more. Returns whether
    /// the application is to hear that there is more than there was.
    pub(super) fn lend(&mut self, handle: SessionHandle) -> bool {
        if self.is_lent_to(handle) {
            return false;
        }
        // One loan at a time: two sessions could take the same room twice.
        self.call_in();
        let network = self.memory.network(Key::Session(handle));
        if let (Some(session), Some(network)) = (self.sessions.get_mut(&handle), network) {
            let is_news = session.set_room(self.memory.room(network));
            let counted = self.memory.claims.get(&Key::Session(handle)).map_or(0, |claim| claim.bytes);
            self.memory.loan = Some(Loan { session: handle, counted });
            return is_news;
        }
        false
    }

    /// Counts what was taken of what was lent, and lends anew.
    pub(super) fn settle(&mut self) {
        let Some(Loan { session: handle, counted: before }) = &mut self.memory.loan else { return };
        let handle = *handle;
        let Some(session) = self.sessions.get_mut(&handle) else { return };
        if session.wants_memory() {
            self.memory.starved.push(handle);
        }
        let counted = Memory::counted(session);
        if std::mem::replace(before, counted) == counted {
            return;
        }
        let key = Key::Session(handle);
        let Some(change) = self.memory.set(key, counted) else { return };
        if let Some(network) = self.memory.network(key) {
            session.set_room(self.memory.room(network));
        }
        if change == Ordering::Less {
            self.feed();
        }
    }

    /// As [`Self::settle`], and nothing is lent any more.
    pub(super) fn call_in(&mut self) {
        self.settle();
        self.memory.loan = None;
    }

    /// A connection comes that has not authenticated, and what it costs counts.
    pub(super) fn enter_unauthenticated(&mut self, connection: usize, network: Network) {
        self.call_in();
        self.memory.enter(Key::Incoming(connection), network, Path::UNAUTHENTICATED_BYTES);
    }

    /// Somebody is gone.
    pub(super) fn give_back(&mut self, key: Key) {
        self.call_in();
        self.memory.leave(key);
        self.feed();
    }

    /// There is more memory than there was: some who wanted more get a turn. If it is enough for something, so do all
    /// the others in turns, since those before them may leave it.
    fn feed(&mut self) {
        if self.memory.freed >= Memory::OPEN_BYTES {
            self.memory.freed = 0;
            self.memory.to_feed = self.memory.starved.len();
        }
        for _ in 0..Self::FED_AT_ONCE {
            self.feed_one();
        }
    }

    /// A session had its turn: the next that waits for memory has one.
    pub(super) fn feed_next(&mut self) {
        if self.memory.to_feed > 0 {
            self.feed_one();
        }
    }

    fn feed_one(&mut self) {
        while let Some(handle) = self.memory.starved.pop() {
            self.memory.to_feed = self.memory.to_feed.saturating_sub(1);
            if self.sessions.get(&handle).is_some_and(|session| session.wants_memory()) {
                self.work.push(Key::Session(handle));
                return;
            }
        }
        self.memory.to_feed = 0;
    }
}

#[cfg(any(test, feature = "__test_exports"))]
impl Endpoint {
    /// Panics if what is counted of the endpoint's memory is not what its parts hold. To be asked after a drain.
    #[doc(hidden)]
    pub fn assert_memory(&self) {
        self.sessions.values().for_each(|session| session.assert_claim());
        let unauthenticated =
            self.incoming.keys().map(|connection| (Key::Incoming(*connection), Path::UNAUTHENTICATED_BYTES));
        let sessions = self.sessions.iter().map(|(handle, session)| (Key::Session(*handle), Memory::counted(session)));
        let (held, counted): (BTreeMap<_, _>, _) = (unauthenticated.chain(sessions).collect(), &self.memory.claims);
        assert!(held.iter().eq(counted.iter().map(|(key, claim)| (key, &claim.bytes))), "{held:?} and {counted:?}");
        assert_eq!(self.memory.used, held.values().sum::<u64>(), "the sum");
        assert_eq!(self.memory.used, self.memory.networks.values().sum::<u64>(), "the sum of all networks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64 << 20;

    fn network(number: u8) -> Network {
        Network::V4([10, 0, 0, number])
    }

    fn session(number: u64) -> Key {
        Key::Session(SessionHandle(number))
    }

    #[test]
    fn nobody_takes_more_than_is_left_to_others_and_some_is_kept_for_newcomers() {
        let mut memory = Memory::new(MAX);
        for (number, network_number) in (0..6).zip([1, 1, 1, 2, 3, 4]) {
            memory.enter(session(number), network(network_number), 0);
        }
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for round in 0..200 {
            let number = round % 6;
            let network = memory.network(session(number)).unwrap();
            let bytes = held.entry(number).or_default();
            *bytes += memory.room_to_grow(network);
            memory.set(session(number), *bytes);
            assert!(memory.used <= MAX / 4 * 3);
        }
        let of = |numbers: std::ops::Range<u64>| numbers.map(|number| held[&number]).sum::<u64>();
        assert!(of(0..3) <= MAX / 8 * 3 && of(0..3) > MAX / 4, "half of what may be taken: {}", of(0..3));
        assert!(held[&3] > 0 && held[&3] < of(0..3), "the second network gets some: {held:?}");
        assert!(memory.has_room_for(network(9), MAX / 16), "a newcomer");
        assert!(!memory.has_room_for(network(1), MAX / 16), "but not of who has much");
        assert!(memory.has_room_for_unauthenticated());
    }

    /// A client with many paths could not open a stream any more, for ever.
    #[test]
    fn regression_windows_of_paths_took_what_streams_need() {
        for networks in [1, 3, 20_u64] {
            let mut memory = Memory::new(MAX);
            let mut held: BTreeMap<u64, u64> = BTreeMap::new();
            (0..networks).for_each(|at| memory.enter(session(at), network(small(at)), 0));
            for round in 0..networks * 100 {
                let at = round % networks;
                let bytes = held.entry(at).or_default();
                *bytes += memory.room(network(small(at))).windows;
                memory.set(session(at), *bytes);
            }
            let least = (0..networks).map(|at| memory.room(network(small(at))).open).min();
            assert_eq!(least, Some(Memory::OPEN_BYTES), "{networks} networks");
        }
    }

    #[test]
    fn what_is_given_back_leaves_nothing() {
        let mut memory = Memory::new(MAX);
        for number in 0..1000 {
            memory.enter(session(number), network(1), 10);
            memory.enter(Key::Incoming(index(number)), network(2), 20);
            assert_eq!(memory.set(session(number), 30), Some(Ordering::Greater));
            assert_eq!(memory.set(session(number), 30), None);
            assert_eq!(memory.set(session(number), 29), Some(Ordering::Less));
        }
        assert_eq!((memory.used, memory.networks.len()), (49_000, 2));
        assert_eq!(memory.room_to_grow(network(1)), (MAX / 4 * 3 - 49_000 - 29_000) / 2);
        for number in 0..1000 {
            memory.leave(session(number));
            memory.leave(session(number));
            memory.leave(Key::Incoming(index(number)));
        }
        assert_eq!((memory.used, memory.networks.len(), memory.claims.len()), (0, 0, 0));
    }

    fn small(number: u64) -> u8 {
        u8::try_from(number).unwrap()
    }

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    #[test]
    fn places_of_unauthenticated_connections_take_a_sixteenth_with_those_on_their_way_out() {
        assert_eq!(2 * Memory::unauthenticated_max(MAX) as u64 * Path::UNAUTHENTICATED_BYTES, MAX / 16);
        assert!(
            Memory::unauthenticated_max(Limits::default().endpoint_memory_max) >= Limits::default().unauthenticated_max
        );
        let mut memory = Memory::new(MAX);
        memory.enter(session(0), network(1), MAX - Path::UNAUTHENTICATED_BYTES);
        assert!(memory.has_room_for_unauthenticated());
        memory.set(session(0), MAX - Path::UNAUTHENTICATED_BYTES + 1);
        assert!(!memory.has_room_for_unauthenticated());
        memory.set(session(0), u64::MAX);
        assert_eq!((memory.room_to_grow(network(2)), memory.has_room_for(network(2), 1)), (0, false));
    }

    #[test]
    fn thousands_of_sessions_have_room_by_default() {
        let limits = Limits::default();
        let (usual, least) = (Session::usual_bytes(&limits, true), Session::least_bytes(&limits.least(), true));
        let mut memory = Memory::new(limits.endpoint_memory_max);
        let (mut whole, mut small) = (0_u64, 0_u64);
        loop {
            let network = Network::V4((whole + small).to_be_bytes()[4..].try_into().unwrap());
            let bytes = if usual <= memory.room_to_begin(network) { usual } else { least };
            if !memory.has_room_for(network, bytes) {
                break;
            }
            *(if bytes == usual { &mut whole } else { &mut small }) += 1;
            memory.enter(session(whole + small), network, bytes);
        }
        assert_eq!((whole, small), (332, 2560));
    }

    #[test]
    fn session_costs_no_more_at_first_than_was_asked_for() {
        let limits = Limits::default();
        let (usual, least) = (Session::usual_bytes(&limits, true), Session::least_bytes(&limits.least(), true));
        assert_eq!((usual >> 10, least >> 10), (4096 + 2048 + 16 + 128, 512 + 16 + 192), "KiB");
    }
}
