//! The memory of an endpoint: who holds how much of it, and who may have more.
//!
//! A session is not asked to give back what its peer was promised. So what is left is dealt out with care: from the
//! first half on, sessions begin small; a quarter is kept for those that are yet to come, a sixteenth of all for
//! connections that have not authenticated; and no network takes more than it leaves to others.
//!
//! Workers of one port deal out one memory (`Pool`). Each lends a part of what is left, for all lend at the same time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map::Entry};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// What all peers together can make the endpoint hold now, in bytes. Of a worker: itself alone.
    pub memory_bytes: u64,
    /// The most that this may be, in bytes, of all workers together: [`Limits::endpoint_memory_max`](crate::Limits::endpoint_memory_max).
    pub memory_bytes_max: u64,
}

/// What all workers of a port hold together. Only numbers are shared, and nothing is ordered by them.
pub(super) struct Pool {
    max: u64,
    /// What a worker may have lent.
    loan_max: u64,
    /// What all the others may have lent at the same time.
    lent_max: u64,
    workers: u64,
    used: AtomicU64,
    /// All that was ever given back.
    freed: AtomicU64,
    sessions: AtomicUsize,
    /// What each network holds. It is locked while somebody comes or goes, so that two who come do not take the same room.
    networks: Mutex<Networks>,
}

type Networks = BTreeMap<Network, Arc<AtomicU64>>;

impl Pool {
    pub(super) fn new(max: u64, workers: u16) -> Self {
        let workers = u64::from(workers.max(1));
        let loan_max = if workers == 1 { u64::MAX } else { (max / 16 / workers).max(Memory::OPEN_BYTES) };
        let lent_max = loan_max.saturating_mul(workers - 1);
        let (used, freed, sessions) = (AtomicU64::new(0), AtomicU64::new(0), AtomicUsize::new(0));
        Self { max, loan_max, lent_max, workers, used, freed, sessions, networks: Mutex::default() }
    }

    fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn networks(&self) -> MutexGuard<'_, Networks> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a network that holds `own` may still take of the first `most` bytes: not more than it leaves.
    fn share(&self, most: u64, own: u64) -> u64 {
        most.saturating_sub(self.used()).saturating_sub(own) / 2
    }

    /// What there is for who is there: a sixteenth is kept for those who have not authenticated.
    fn most(&self) -> u64 {
        (self.max - self.max / 16).saturating_sub(self.lent_max)
    }
}

/// A sum in which `before` becomes `after`.
fn replace(sum: &AtomicU64, before: u64, after: u64) {
    let replaced = |sum: u64| Some(sum.saturating_sub(before).saturating_add(after));
    // It is never refused.
    let _ = sum.fetch_update(Relaxed, Relaxed, replaced);
}

/// Who holds how much at one endpoint.
pub(super) struct Memory {
    pool: Arc<Pool>,
    /// What is held here.
    used: u64,
    claims: BTreeMap<Key, Claim>,
    loan: Option<Loan>,
    /// Sessions that would have taken more.
    pub(super) starved: Queue<SessionHandle>,
    /// What had been given back in all when all starved sessions last got a turn.
    freed: u64,
    /// How many of them still get a turn for that, one after the other.
    to_feed: usize,
}

/// All there is to take was lent to this session, which held so much then.
struct Loan {
    session: SessionHandle,
    counted: u64,
}

#[derive(Debug)]
struct Claim {
    network: Network,
    /// What the whole network holds.
    of_network: Arc<AtomicU64>,
    bytes: u64,
}

impl Memory {
    /// What a session holds is counted in steps, so that few packets change it.
    const STEP: u64 = 16 * 1024;
    /// What a session may take at once to open streams, if there is no more for anything.
    const OPEN_BYTES: u64 = 64 * 1024;

    /// The part of one worker.
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        let claims = BTreeMap::new();
        Self { pool, used: 0, claims, loan: None, starved: Queue::new(), freed: 0, to_feed: 0 }
    }

    /// How many unauthenticated connections may have a place. As many again may be on their way out.
    pub(super) fn unauthenticated_max(max: u64) -> usize {
        usize::try_from(max / 32 / Path::UNAUTHENTICATED_BYTES).unwrap_or(usize::MAX)
    }

    /// How many sessions there are at all workers.
    pub(super) fn sessions(&self) -> usize {
        self.pool.sessions.load(Relaxed)
    }

    /// What a session may take, and what for. Windows of paths are kept for as long as a path lives: if they took all, no
    /// stream could be opened any more. A stream may be opened of what is kept for new sessions.
    fn room(&self, key: Key) -> Option<Room> {
        let pool = &self.pool;
        let own = self.claims.get(&key)?.of_network.load(Relaxed);
        let fits = pool.used().saturating_add(Self::OPEN_BYTES) <= pool.most();
        let may_open = fits && own.saturating_add(Self::OPEN_BYTES) <= pool.max / 2;
        Some(Room {
            grow: pool.share(pool.max - pool.max / 4, own).min(pool.loan_max),
            windows: pool.share(pool.max - pool.max / 4 - pool.max / 8, own),
            open: if may_open { Self::OPEN_BYTES } else { 0 },
        })
    }

    /// What a session of this network may take to begin with all that its limits say, and with the least.
    fn rooms_to_begin(&self, networks: &Networks, network: Network) -> (u64, u64) {
        let own = networks.get(&network).map_or(0, |sum| sum.load(Relaxed));
        (self.pool.share(self.pool.max / 2, own), self.pool.share(self.pool.most(), own))
    }

    /// Whether one of this network may come that costs so much.
    fn has_room_for(&self, network: Network, bytes: u64) -> bool {
        bytes <= self.rooms_to_begin(&self.pool.networks(), network).1
    }

    /// Whether one more unauthenticated connection may come, at each worker. How many a network may have, `admission` says.
    pub(super) fn has_room_for_unauthenticated(&self) -> bool {
        let bytes = Path::UNAUTHENTICATED_BYTES.saturating_mul(self.pool.workers);
        self.pool.used().saturating_add(bytes).saturating_add(self.pool.lent_max) <= self.pool.max
    }

    /// The limits that a session with this network can have: its own, or the least there are. `None` if there is no room.
    /// What that costs counts from now on, before a newcomer at another worker takes the room.
    pub(super) fn afford(&mut self, key: Key, network: Network, limits: &Limits, has_streams: bool) -> Option<Limits> {
        let pool = Arc::clone(&self.pool);
        let mut networks = pool.networks();
        let (whole, least) = self.rooms_to_begin(&networks, network);
        let (mut granted, mut bytes) = (limits.clone(), Session::usual_bytes(limits, has_streams));
        if bytes > whole {
            granted = limits.least();
            bytes = Session::least_bytes(&granted, has_streams);
            if bytes > least {
                return None;
            }
        }
        self.enter_of(&mut networks, key, network, bytes);
        Some(granted)
    }

    /// Somebody of this network holds so much.
    fn enter(&mut self, key: Key, network: Network, bytes: u64) {
        let pool = Arc::clone(&self.pool);
        self.enter_of(&mut pool.networks(), key, network, bytes);
    }

    fn enter_of(&mut self, networks: &mut Networks, key: Key, network: Network, bytes: u64) {
        if let Entry::Vacant(vacant) = self.claims.entry(key) {
            let of_network = Arc::clone(networks.entry(network).or_default());
            vacant.insert(Claim { network, of_network, bytes: 0 });
            if matches!(key, Key::Session(_)) {
                self.pool.sessions.fetch_add(1, Relaxed);
            }
        }
        self.set(key, bytes);
    }

    /// A connection becomes a session, and holds what it held, unless there are `max` sessions.
    fn promote(&mut self, connection: usize, session: SessionHandle, max: usize) -> bool {
        let one_more = |sessions: usize| (sessions < max).then_some(sessions + 1);
        if self.pool.sessions.fetch_update(Relaxed, Relaxed, one_more).is_err() {
            return false;
        }
        if let Some(claim) = self.claims.remove(&Key::Incoming(connection)) {
            self.claims.insert(Key::Session(session), claim);
        }
        true
    }

    /// Somebody holds so much now. Returns whether that is less than before, or more.
    fn set(&mut self, key: Key, bytes: u64) -> Option<Ordering> {
        let claim = self.claims.get_mut(&key).filter(|claim| claim.bytes != bytes)?;
        let before = std::mem::replace(&mut claim.bytes, bytes);
        replace(&claim.of_network, before, bytes);
        replace(&self.pool.used, before, bytes);
        self.used = (self.used - before).saturating_add(bytes);
        Some(bytes.cmp(&before))
    }

    /// Somebody gives back what they do not hold any more.
    fn give_back(&mut self, key: Key, bytes: u64) -> Option<Ordering> {
        let before = self.claims.get(&key)?.bytes;
        self.pool.freed.fetch_add(before.saturating_sub(bytes), Relaxed);
        self.set(key, bytes)
    }

    /// Somebody is gone.
    pub(super) fn leave(&mut self, key: Key) {
        self.give_back(key, 0);
        let Some(Claim { network, of_network, .. }) = self.claims.remove(&key) else { return };
        if matches!(key, Key::Session(_)) {
            self.pool.sessions.fetch_sub(1, Relaxed);
        }
        let mut networks = self.pool.networks();
        drop(of_network);
        // Nobody else of this network is there, at any worker: a claim is begun and ended under the lock only.
        if networks.get(&network).is_some_and(|sum| Arc::strong_count(sum) == 1) {
            networks.remove(&network);
        }
    }

    /// What a session counts for.
    fn counted(session: &Session) -> u64 {
        session.claim().checked_next_multiple_of(Self::STEP).unwrap_or(u64::MAX)
    }

    /// How many starved sessions get a turn: all, if enough for something was given back since they had one, here or at
    /// another worker.
    fn count_to_feed(&mut self) -> usize {
        let freed = self.pool.freed.load(Relaxed);
        if freed.wrapping_sub(self.freed) >= Self::OPEN_BYTES {
            self.freed = freed;
            self.to_feed = self.starved.len();
        }
        self.to_feed
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
            memory_bytes_max: self.memory.pool.max,
        }
    }

    /// A connection that was refused becomes no session: it costs again what it did before.
    pub(super) fn count_as_unauthenticated(&mut self, connection: usize) {
        self.memory.set(Key::Incoming(connection), Path::UNAUTHENTICATED_BYTES);
    }

    /// A connection becomes a session, unless there are as many as there may be.
    pub(super) fn promote(&mut self, connection: usize, session: SessionHandle) -> bool {
        self.memory.promote(connection, session, self.config.limits.sessions_max)
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
        let claim = self.memory.claims.get(&Key::Session(handle));
        claim.is_some_and(|claim| self.memory.has_room_for(claim.network, Path::LEAST_BYTES))
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
        let room = self.memory.room(Key::Session(handle));
        if let (Some(session), Some(room)) = (self.sessions.get_mut(&handle), room) {
            let is_news = session.set_room(room);
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
        let Some(change) = self.memory.give_back(key, counted) else { return };
        if let Some(room) = self.memory.room(key) {
            session.set_room(room);
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
        self.memory.count_to_feed();
        for _ in 0..Self::FED_AT_ONCE {
            self.feed_one();
        }
    }

    /// A session had its turn: the next that waits for memory has one.
    pub(super) fn feed_next(&mut self) {
        if self.memory.count_to_feed() > 0 {
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
        let pool = &self.memory.pool;
        assert!(self.memory.used <= pool.used() && self.sessions.len() <= self.memory.sessions(), "of all workers");
        let of_networks: u64 = pool.networks().values().map(|sum| sum.load(Relaxed)).sum();
        // Another worker may be at work.
        assert!(pool.workers > 1 || (self.memory.used, of_networks) == (pool.used(), pool.used()), "the sums");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64 << 20;

    fn alone(max: u64) -> Memory {
        Memory::new(Arc::new(Pool::new(max, 1)))
    }

    fn room(memory: &Memory, number: u64) -> Room {
        memory.room(session(number)).unwrap()
    }

    fn network(number: u8) -> Network {
        Network::V4([10, 0, 0, number])
    }

    fn session(number: u64) -> Key {
        Key::Session(SessionHandle(number))
    }

    #[test]
    fn nobody_takes_more_than_is_left_to_others_and_some_is_kept_for_newcomers() {
        let mut memory = alone(MAX);
        for (number, network_number) in (0..6).zip([1, 1, 1, 2, 3, 4]) {
            memory.enter(session(number), network(network_number), 0);
        }
        let mut held: BTreeMap<u64, u64> = BTreeMap::new();
        for round in 0..200 {
            let number = round % 6;
            let bytes = held.entry(number).or_default();
            *bytes += room(&memory, number).grow;
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
            let mut memory = alone(MAX);
            let mut held: BTreeMap<u64, u64> = BTreeMap::new();
            (0..networks).for_each(|at| memory.enter(session(at), network(small(at)), 0));
            for round in 0..networks * 100 {
                let at = round % networks;
                let bytes = held.entry(at).or_default();
                *bytes += room(&memory, at).windows;
                memory.set(session(at), *bytes);
            }
            let least = (0..networks).map(|at| room(&memory, at).open).min();
            assert_eq!(least, Some(Memory::OPEN_BYTES), "{networks} networks");
        }
    }

    #[test]
    fn what_is_given_back_leaves_nothing() {
        let mut memory = alone(MAX);
        for number in 0..1000 {
            memory.enter(session(number), network(1), 10);
            memory.enter(Key::Incoming(index(number)), network(2), 20);
            assert_eq!(memory.set(session(number), 30), Some(Ordering::Greater));
            assert_eq!(memory.set(session(number), 30), None);
            assert_eq!(memory.set(session(number), 29), Some(Ordering::Less));
        }
        assert_eq!((memory.used, memory.pool.used(), memory.pool.networks().len()), (49_000, 49_000, 2));
        assert_eq!(memory.sessions(), 1000);
        assert_eq!(room(&memory, 0).grow, (MAX / 4 * 3 - 49_000 - 29_000) / 2);
        for number in 0..1000 {
            memory.leave(session(number));
            memory.leave(session(number));
            memory.leave(Key::Incoming(index(number)));
        }
        assert_eq!((memory.used, memory.pool.used(), memory.sessions()), (0, 0, 0));
        assert_eq!((memory.pool.networks().len(), memory.claims.len()), (0, 0));
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
        let mut memory = alone(MAX);
        memory.enter(session(0), network(1), MAX - Path::UNAUTHENTICATED_BYTES);
        assert!(memory.has_room_for_unauthenticated());
        memory.set(session(0), MAX - Path::UNAUTHENTICATED_BYTES + 1);
        assert!(!memory.has_room_for_unauthenticated());
        memory.set(session(0), u64::MAX);
        assert_eq!((room(&memory, 0).grow, memory.has_room_for(network(2), 1)), (0, false));
    }

    #[test]
    fn thousands_of_sessions_have_room_by_default() {
        let limits = Limits::default();
        let (usual, least) = (Session::usual_bytes(&limits, true), Session::least_bytes(&limits.least(), true));
        let mut memory = alone(limits.endpoint_memory_max);
        let (mut whole, mut small) = (0_u64, 0_u64);
        loop {
            let network = Network::V4((whole + small).to_be_bytes()[4..].try_into().unwrap());
            let key = session(whole + small);
            let Some(granted) = memory.afford(key, network, &limits, true) else { break };
            let is_whole = granted.streams_bidi_max == limits.streams_bidi_max;
            *(if is_whole { &mut whole } else { &mut small }) += 1;
            assert_eq!(memory.claims[&key].bytes, if is_whole { usual } else { least });
        }
        assert_eq!((whole, small), (332, 2560));
    }

    /// Every worker lends while there is room for all, others take what there is, and what was lent is taken last.
    #[test]
    fn workers_that_lend_at_once_keep_to_the_memory_of_all() {
        for workers in [2, 8, 256_u16] {
            let pool = Arc::new(Pool::new(MAX, workers));
            let mut memories: Vec<_> = (0..workers).map(|_| Memory::new(Arc::clone(&pool))).collect();
            for (number, memory) in (0..=255).zip(&mut memories) {
                memory.enter(session(0), network(number), 0);
            }
            let loan = |memory: &Memory| room(memory, 0).grow.max(room(memory, 0).open);
            let lent: Vec<_> = memories.iter().map(loan).collect();
            let last = memories.last_mut().unwrap();
            for _ in 0..10_000 {
                let more = last.claims[&session(0)].bytes + loan(last);
                last.set(session(0), more);
            }
            assert!(pool.used() <= MAX / 4 * 3);
            for newcomer in 1..100 {
                let network = Network::V4([10, 1, 0, small(newcomer)]);
                last.enter(session(newcomer), network, pool.share(pool.most(), 0));
            }
            for stranger in 0..2 * Memory::unauthenticated_max(MAX) {
                if last.has_room_for_unauthenticated() {
                    last.enter(Key::Incoming(stranger), network(1), Path::UNAUTHENTICATED_BYTES);
                }
            }
            let others = usize::from(workers) - 1;
            for (memory, lent) in memories.iter_mut().zip(lent).take(others) {
                memory.set(session(0), lent);
            }
            assert!(pool.used() <= MAX, "{workers} workers: {} of {MAX}", pool.used());
            assert!(pool.used() >= MAX / 8 * 7, "{workers} workers: {} of {MAX}", pool.used());
        }
    }

    #[test]
    fn newcomers_at_different_workers_do_not_take_the_same_room() {
        let pool = Arc::new(Pool::new(MAX, 2));
        let mut memories = [0, 1].map(|_| Memory::new(Arc::clone(&pool)));
        let limits = Limits::default();
        let mut came = 0;
        for connection in 0..1000 {
            let (memory, network) = (&mut memories[connection % 2], network(small(connection as u64 % 250)));
            memory.enter(Key::Incoming(connection), network, 0);
            came += u64::from(memory.afford(Key::Incoming(connection), network, &limits, true).is_some());
            assert!(pool.used() <= pool.most());
        }
        assert!(came > 20, "{came} could begin");
    }

    #[test]
    fn sessions_are_counted_over_all_workers() {
        let pool = Arc::new(Pool::new(MAX, 2));
        let mut memories = [0, 1].map(|_| Memory::new(Arc::clone(&pool)));
        for connection in 0..4 {
            let memory = &mut memories[connection % 2];
            memory.enter(Key::Incoming(connection), network(1), 10);
            assert_eq!(memory.promote(connection, SessionHandle(connection as u64), 3), connection < 3);
        }
        assert_eq!((memories[0].sessions(), pool.used()), (3, 40));
        memories[1].leave(session(1));
        assert!(memories[1].promote(3, SessionHandle(3), 3));
        assert_eq!((memories[0].sessions(), pool.used(), memories[1].used), (3, 30, 10));
    }

    /// A session that waits at one worker hears of what another gave back.
    #[test]
    fn what_one_worker_gives_back_feeds_the_sessions_of_another() {
        let pool = Arc::new(Pool::new(MAX, 2));
        let mut memories = [0, 1].map(|_| Memory::new(Arc::clone(&pool)));
        memories[0].enter(session(0), network(1), 2 * Memory::OPEN_BYTES);
        memories[1].starved.push(SessionHandle(1));
        assert_eq!(memories[1].count_to_feed(), 0);
        memories[0].give_back(session(0), Memory::OPEN_BYTES + 1);
        assert_eq!(memories[1].count_to_feed(), 0, "too little for anything");
        memories[0].leave(session(0));
        assert_eq!(memories[1].count_to_feed(), 1);
    }

    #[test]
    fn session_costs_no_more_at_first_than_was_asked_for() {
        let limits = Limits::default();
        let (usual, least) = (Session::usual_bytes(&limits, true), Session::least_bytes(&limits.least(), true));
        assert_eq!((usual >> 10, least >> 10), (4096 + 2048 + 16 + 128, 512 + 16 + 192), "KiB");
    }
}
