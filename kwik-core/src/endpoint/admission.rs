//! Who may come in: the places of connections that have not authenticated, what is done for them, and the tickets that
//! were used (PROTOCOL.md §4).
//!
//! Everything that costs something is counted by the network a connection comes from, so that one network cannot use up
//! what there is for all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::allowance::Allowance;
use crate::auth::{PublicIdentity, Ticket, UnixTime};
use crate::config::ServerConfig;
use crate::error::TransportCode;
use crate::id::{PathId, SessionId};
use crate::limits::Limits;

/// What a server accepts sessions with.
pub(super) struct ListenConfig {
    pub(super) server: ServerConfig,
    pub(super) quic: quinn_proto::ServerConfig,
}

/// The addresses that one owner is taken to have: one of IPv4, or 2^72 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    V4([u8; 4]),
    V6([u8; 7]),
}

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g])
            }
        }
    }
}

/// The place of a connection that has not authenticated. The least place is the first to be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The address was validated.
    validated: bool,
    /// Larger for those that came, or ended, later. No two are equal.
    order: u64,
    pub(super) connection: usize,
    worker: u16,
}

/// What becomes of somebody who begins a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AdmissionVerdict {
    Accept,
    /// The address must be validated first with a Retry, for which nothing is kept here.
    Retry,
    /// Not now. QUIC asks again.
    Ignore,
}

/// What an endpoint accepts, and the door to it, which all workers of a port share.
pub(super) struct Admission {
    pub(super) listener: Option<Arc<ListenConfig>>,
    entrance: Arc<Entrance>,
    worker: u16,
}

/// The one door of all workers.
pub(super) struct Entrance {
    door: Mutex<Door>,
    /// The workers for which notices wait.
    noticed: Vec<AtomicBool>,
}

impl Entrance {
    pub(super) fn new(now: Instant, limits: &Limits, workers: u16) -> Self {
        let noticed = (0..workers).map(|_| AtomicBool::new(false)).collect();
        Self { door: Mutex::new(Door::new(now, limits)), noticed }
    }
}

impl Admission {
    /// The part of one worker.
    pub(super) fn new(entrance: Arc<Entrance>, worker: u16) -> Self {
        Self { listener: None, entrance, worker }
    }

    pub(super) fn door(&self) -> MutexGuard<'_, Door> {
        // A panic while it was open left it as it is between two calls, or with one place too many.
        self.entrance.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a connection a place. If it is that of another, that connection must go: it is returned if it is one of this
    /// worker, or its worker gets a notice.
    pub(super) fn enter(
        &self,
        now: Instant,
        network: Network,
        (connection, validated): (usize, bool),
        limits: &Limits,
    ) -> (Place, Option<usize>) {
        let mut door = self.door();
        let victim = door.evict(network, limits);
        if let Some((of, victim)) = victim {
            door.leave(of, victim);
        }
        let place = door.enter(now, network, (self.worker, connection, validated), limits);
        let own = victim.and_then(|(_, victim)| self.own_or_notice(&mut door, victim));
        (place, own)
    }

    /// A connection ended here: it has no place any more, but its memory until it drained. If too many drain, the first
    /// of them is to be forgotten: it is returned if it is a connection of this worker, or its worker gets a notice.
    pub(super) fn close(&self, network: Network, place: &mut Place, limits: &Limits) -> Option<usize> {
        let mut door = self.door();
        let first = door.close(network, place, limits)?;
        door.closing.remove(&first);
        self.own_or_notice(&mut door, first)
    }

    /// A connection of this worker; the worker of another one gets a notice.
    fn own_or_notice(&self, door: &mut Door, place: Place) -> Option<usize> {
        if place.worker == self.worker {
            return Some(place.connection);
        }
        door.notices.entry(place.worker).or_default().push(place);
        if let Some(noticed) = self.entrance.noticed.get(usize::from(place.worker)) {
            noticed.store(true, Ordering::Release);
        }
        None
    }

    /// The places of connections of this worker that must go, since other workers need what they have.
    pub(super) fn take_notices(&self) -> Vec<Place> {
        let noticed = self.entrance.noticed.get(usize::from(self.worker));
        // To look is all that is done in nearly every turn.
        if noticed.is_none_or(|noticed| !noticed.load(Ordering::Acquire)) {
            return Vec::new();
        }
        let mut door = self.door();
        noticed.inspect(|noticed| noticed.store(false, Ordering::Relaxed));
        door.notices.remove(&self.worker).unwrap_or_default()
    }
}

/// Decides which connections may come in.
pub(super) struct Door {
    sources: BTreeMap<Network, Source>,
    /// Connections with a place.
    waiting: usize,
    /// Connections that ended here and only drain, in the order in which they ended.
    closing: BTreeSet<Place>,
    handshakes: Allowance,
    verifications: Allowance,
    next_order: u64,
    /// How many sources there may be before those that want nothing are forgotten.
    sources_max: usize,
    /// Tickets that were used and might be used again, until they expire.
    used: BTreeMap<TicketUse, UnixTime>,
    /// Places that a worker took of another one, whose connections that one is still to end. No more than had places or
    /// drained.
    notices: BTreeMap<u16, Vec<Place>>,
}

/// What a ticket is good for once. Sessions are named by their primary: two may choose one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TicketUse {
    issuer: PublicIdentity,
    session: SessionId,
    path: PathId,
}

impl TicketUse {
    pub(super) fn of(claims: &Ticket) -> Self {
        Self { issuer: claims.issuer, session: claims.session, path: claims.path }
    }
}

/// A network that connections come from.
struct Source {
    places: BTreeSet<Place>,
    handshakes: Allowance,
    verifications: Allowance,
}

impl Door {
    /// Networks that are remembered without counting what they are worth.
    const SOURCES_MIN: usize = 1024;

    pub(super) fn new(now: Instant, limits: &Limits) -> Self {
        let each_second = |rate| Allowance::new(now, rate, rate);
        Self {
            sources: BTreeMap::new(),
            waiting: 0,
            closing: BTreeSet::new(),
            handshakes: each_second(limits.handshakes_per_second),
            verifications: each_second(limits.verifications_per_second),
            next_order: 0,
            sources_max: Self::SOURCES_MIN,
            used: BTreeMap::new(),
            notices: BTreeMap::new(),
        }
    }

    // ---- places

    /// Judges somebody who begins a handshake. One whose address is not proved is let in where there is plenty, and
    /// takes nothing from anybody: the address may be another's.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        network: Network,
        validated: bool,
        limits: &Limits,
    ) -> AdmissionVerdict {
        let (all, own) = (self.waiting, self.places_of(network));
        let is_crowded = all >= limits.incoming_before_retry.min(limits.unauthenticated_max)
            || own >= limits.incoming_network_before_retry.min(limits.unauthenticated_network_max);
        if is_crowded && !validated {
            return AdmissionVerdict::Retry;
        }
        // Nothing is taken from the network's allowance if there is none for all networks together.
        if self.source(now, network, limits).handshakes.has(now) && self.handshakes.take(now) {
            self.source(now, network, limits).handshakes.take(now);
            return AdmissionVerdict::Accept;
        }
        AdmissionVerdict::Ignore
    }

    /// Who must go when one more of this network comes: if there is no room, the one that is worth least of the network
    /// that has most.
    fn evict(&self, network: Network, limits: &Limits) -> Option<(Network, Place)> {
        let own = self.places_of(network);
        if own < limits.unauthenticated_network_max && self.waiting < limits.unauthenticated_max {
            return None;
        }
        let first = |source: &Source| source.places.first().map(|place| Reverse(*place));
        // Among equals, the network whose first place is worth least.
        let most = self.sources.iter().max_by_key(|(_, source)| (source.places.len(), first(source)));
        // A network that is at its own bound, or would have most itself, takes a place of its own.
        let most = most.filter(|(_, most)| own < limits.unauthenticated_network_max && own < most.places.len());
        let (of, source) = most.or_else(|| self.sources.get_key_value(&network))?;
        source.places.first().map(|place| (*of, *place))
    }

    /// Gives a connection of a worker a place.
    fn enter(
        &mut self,
        now: Instant,
        network: Network,
        (worker, connection, validated): (u16, usize, bool),
        limits: &Limits,
    ) -> Place {
        let place = Place { validated, order: self.next_order(), connection, worker };
        self.source(now, network, limits).places.insert(place);
        self.waiting += 1;
        place
    }

    /// The address of a connection was proved.
    pub(super) fn validate(&mut self, network: Network, place: &mut Place) {
        let Some(source) = self.sources.get_mut(&network) else { return };
        if source.places.remove(place) {
            place.validated = true;
            source.places.insert(*place);
        }
    }

    /// A connection ended here: it drains. If too many do, the first of them is returned.
    fn close(&mut self, network: Network, place: &mut Place, limits: &Limits) -> Option<Place> {
        self.leave(network, *place);
        // In the order in which they ended, whoever proved an address.
        *place = Place { validated: false, order: self.next_order(), ..*place };
        self.closing.insert(*place);
        let first = *self.closing.first()?;
        (self.closing.len() > limits.unauthenticated_max).then_some(first)
    }

    /// A connection has authenticated, or is gone.
    pub(super) fn leave(&mut self, network: Network, place: Place) {
        if self.sources.get_mut(&network).is_some_and(|source| source.places.remove(&place)) {
            self.waiting -= 1;
        }
        self.closing.remove(&place);
    }

    // ---- what is done before a client has authenticated

    /// Whether signatures of a client of this network may be verified now.
    pub(super) fn admit_verification(&mut self, now: Instant, network: Network, limits: &Limits) -> bool {
        let may = self.source(now, network, limits).verifications.has(now) && self.verifications.take(now);
        may && self.source(now, network, limits).verifications.take(now)
    }

    /// Whether a ticket could be used now.
    pub(super) fn check_ticket(
        &mut self,
        ticket: TicketUse,
        now: UnixTime,
        limits: &Limits,
    ) -> Result<(), TransportCode> {
        if self.used.contains_key(&ticket) {
            return Err(TransportCode::SUPERSEDED);
        }
        if self.used.len() >= limits.tickets_remembered_max {
            // Expired ones are looked for only when there is no room, since that visits all.
            self.used.retain(|_, until| *until >= now);
        }
        if self.used.len() >= limits.tickets_remembered_max {
            return Err(TransportCode::SERVER_BUSY);
        }
        Ok(())
    }

    /// Notes that a ticket is used, until it could not be used any more. Each is good for one connection: since it was
    /// checked, another worker may have taken it.
    pub(super) fn redeem_ticket(
        &mut self,
        ticket: TicketUse,
        until: UnixTime,
        now: UnixTime,
        limits: &Limits,
    ) -> Result<(), TransportCode> {
        self.check_ticket(ticket, now, limits)?;
        self.used.insert(ticket, until);
        Ok(())
    }

    fn next_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    fn places_of(&self, network: Network) -> usize {
        self.sources.get(&network).map_or(0, |source| source.places.len())
    }

    fn source(&mut self, now: Instant, network: Network, limits: &Limits) -> &mut Source {
        if self.sources.len() >= self.sources_max && !self.sources.contains_key(&network) {
            self.sources.retain(|_, source| !source.is_forgettable(now));
            // A network that stays has a place, or used its allowance lately. Both come out of what there is for all,
            // so the number of those networks is bounded.
            self.sources_max = Self::SOURCES_MIN.max(2 * self.sources.len());
        }
        self.sources.entry(network).or_insert_with(|| {
            let each_second = |rate| Allowance::new(now, rate, rate);
            Source {
                places: BTreeSet::new(),
                handshakes: each_second(limits.handshakes_network_per_second),
                verifications: each_second(limits.verifications_network_per_second),
            }
        })
    }
}

impl Source {
    fn is_forgettable(&mut self, now: Instant) -> bool {
        self.places.is_empty() && self.handshakes.is_whole(now) && self.verifications.is_whole(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_support::instant;

    const LEFT: Network = Network::V4([10, 0, 0, 1]);
    const RIGHT: Network = Network::V4([10, 0, 0, 2]);

    /// An admission, and the connections in it.
    struct Scene {
        now: Instant,
        limits: Limits,
        admission: Admission,
        inside: BTreeMap<usize, (Network, Place)>,
        next: usize,
    }

    impl Scene {
        fn new(adjust: impl FnOnce(&mut Limits)) -> Self {
            let mut limits = Limits::default();
            adjust(&mut limits);
            let now = instant();
            Self {
                now,
                admission: Admission::new(Arc::new(Entrance::new(now, &limits, 1)), 0),
                limits,
                inside: BTreeMap::new(),
                next: 0,
            }
        }

        /// Somebody comes; returns the verdict and who had to go for it.
        fn come(&mut self, network: Network, validated: bool) -> (AdmissionVerdict, Option<usize>) {
            let admission = self.admission.door().judge(self.now, network, validated, &self.limits);
            if admission != AdmissionVerdict::Accept {
                return (admission, None);
            }
            let newcomer = (self.next, validated);
            let (place, victim) = self.admission.enter(self.now, network, newcomer, &self.limits);
            if let Some((network, mut place)) = victim.and_then(|victim| self.inside.remove(&victim)) {
                self.admission.close(network, &mut place, &self.limits);
            }
            self.inside.insert(self.next, (network, place));
            self.next += 1;
            (admission, victim)
        }

        fn of(&self, network: Network) -> usize {
            self.inside.values().filter(|(of, _)| *of == network).count()
        }
    }

    fn network(number: u32) -> Network {
        Network::V4(number.to_be_bytes())
    }

    #[test]
    fn network_is_an_address_of_ipv4_or_56_bits_of_ipv6() {
        let of = |address: &str| Network::of(address.parse().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"), "one address in two spellings");
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
        assert_eq!(of("2001:db8:1:2300::1"), of("2001:db8:1:23ff:ffff::2"));
        assert_ne!(of("2001:db8:1:2300::1"), of("2001:db8:1:2400::1"));
    }

    #[test]
    fn newcomer_takes_the_place_of_the_first_of_the_network_that_has_most() {
        let mut scene = Scene::new(|limits| limits.unauthenticated_max = 6);
        for from in [RIGHT, LEFT, LEFT, LEFT, LEFT, RIGHT] {
            assert_eq!(scene.come(from, true), (AdmissionVerdict::Accept, None));
        }
        assert_eq!(scene.come(network(1), true).1, Some(1), "the first of the left");
        assert_eq!(scene.come(RIGHT, true).1, Some(2));
        assert_eq!((scene.of(LEFT), scene.of(RIGHT)), (2, 3));
        assert_eq!(scene.come(RIGHT, true).1, Some(0), "whoever would have most takes from its own");
        assert_eq!(scene.come(network(2), true).1, Some(5));
        assert_eq!(scene.inside.len(), 6);
    }

    #[test]
    fn network_that_has_all_it_may_takes_from_itself() {
        let mut scene = Scene::new(|limits| limits.unauthenticated_network_max = 2);
        for from in [LEFT, LEFT, RIGHT, RIGHT, RIGHT] {
            scene.come(from, true);
        }
        assert_eq!(scene.come(LEFT, true).1, Some(0));
        assert_eq!((scene.of(LEFT), scene.of(RIGHT)), (2, 2));
    }

    #[test]
    fn address_that_proved_nothing_takes_nothing_from_anybody() {
        let mut scene = Scene::new(|limits| (limits.unauthenticated_max, limits.incoming_before_retry) = (6, 4));
        for number in 0..4 {
            assert_eq!(scene.come(network(number), false), (AdmissionVerdict::Accept, None));
        }
        for number in 0..100 {
            assert_eq!(scene.come(network(number), false), (AdmissionVerdict::Retry, None));
        }
        for _ in 0..2 {
            assert_eq!(scene.come(LEFT, true), (AdmissionVerdict::Accept, None));
        }
        assert_eq!(scene.come(RIGHT, true).1, Some(4), "the left has most");
        scene.limits.unauthenticated_max = 5;
        let (_, proved) = scene.inside.get_mut(&0).unwrap();
        scene.admission.door().validate(network(0), proved);
        assert_eq!(scene.come(network(9), true).1, Some(1), "the first of those that proved nothing");

        let mut scene = Scene::new(|limits| limits.incoming_network_before_retry = 3);
        assert_eq!((0..50).filter(|_| scene.come(LEFT, false).0 == AdmissionVerdict::Accept).count(), 3);
        assert_eq!(scene.come(RIGHT, false), (AdmissionVerdict::Accept, None));
    }

    #[test]
    fn network_has_its_handshakes_and_verifications_and_leaves_the_rest_to_others() {
        let mut scene = Scene::new(|limits| {
            (limits.handshakes_per_second, limits.handshakes_network_per_second) = (10, 4);
            (limits.verifications_per_second, limits.verifications_network_per_second) = (10, 4);
        });
        for (from, admitted) in [(LEFT, 4), (RIGHT, 4), (network(1), 2), (network(2), 0)] {
            assert_eq!((0..100).filter(|_| scene.come(from, true).0 == AdmissionVerdict::Accept).count(), admitted);
            let verify = |scene: &mut Scene| scene.admission.door().admit_verification(scene.now, from, &scene.limits);
            assert_eq!((0..100).filter(|_| verify(&mut scene)).count(), admitted);
        }
        scene.now += Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| scene.come(LEFT, true).0 == AdmissionVerdict::Accept).count(), 4);
    }

    /// Between the check and the verified signature, another worker may take the ticket.
    #[test]
    fn ticket_is_redeemed_once_however_often_it_was_checked() {
        let limits = Limits::default();
        let entrance = Arc::new(Entrance::new(instant(), &limits, 2));
        let workers = [0, 1].map(|worker| Admission::new(Arc::clone(&entrance), worker));
        let issuer = crate::auth::Identity::from_seed([1; 32]).public();
        let ticket = TicketUse { issuer, session: SessionId([1; 16]), path: PathId(1) };
        let now = UnixTime::new(Duration::from_secs(1_800_000_000));
        for worker in &workers {
            worker.door().check_ticket(ticket, now, &limits).unwrap();
        }
        let redeem = |worker: &Admission| worker.door().redeem_ticket(ticket, now, now, &limits);
        assert_eq!(workers.each_ref().map(redeem), [Ok(()), Err(TransportCode::SUPERSEDED)]);
    }

    /// A stranger at another worker goes as well, once its worker hears of that.
    #[test]
    fn newcomer_takes_the_place_of_a_stranger_at_another_worker() {
        let limits = Limits { unauthenticated_max: 2, ..Limits::default() };
        let (now, entrance) = (instant(), Arc::new(Entrance::new(instant(), &limits, 2)));
        let [flooded, quiet] = [0, 1].map(|worker| Admission::new(Arc::clone(&entrance), worker));
        let first = flooded.enter(now, LEFT, (7, true), &limits);
        let (mut second, none) = flooded.enter(now, LEFT, (8, true), &limits);
        assert_eq!((first.1, none, quiet.take_notices()), (None, None, vec![]));
        assert_eq!(quiet.enter(now, RIGHT, (7, true), &limits).1, None, "it is no connection of this worker");
        assert_eq!(quiet.door().waiting, 2);
        assert_eq!((quiet.take_notices(), flooded.take_notices()), (vec![], vec![first.0]));
        assert_eq!(flooded.take_notices(), []);

        // Of those that drain, the first are forgotten wherever they are.
        let before = second;
        assert_eq!(flooded.close(LEFT, &mut second, &limits), None);
        assert_ne!(before, second, "a notice for what it was means nothing any more");
        for connection in 0..2 {
            let (mut place, _) = quiet.enter(now, network(9), (connection, true), &limits);
            assert_eq!(quiet.close(network(9), &mut place, &limits), None);
        }
        assert_eq!(flooded.take_notices(), [second]);
        assert_eq!(quiet.door().closing.len(), 2);
    }

    #[test]
    fn networks_that_want_nothing_are_forgotten() {
        let mut scene = Scene::new(|limits| limits.incoming_before_retry = 0);
        for number in 0..100_000 {
            scene.now += Duration::from_micros(10);
            scene.come(network(number), false);
            assert!(
                scene.admission.door().sources.len() <= Door::SOURCES_MIN,
                "{}",
                scene.admission.door().sources.len()
            );
        }
        for number in 0..100_000 {
            scene.now += Duration::from_micros(10);
            scene.come(network(number), true);
            let inside = std::mem::take(&mut scene.inside);
            inside.into_values().for_each(|(network, place)| scene.admission.door().leave(network, place));
        }
        assert!(
            scene.admission.door().sources.len() <= 2 * Door::SOURCES_MIN,
            "{}",
            scene.admission.door().sources.len()
        );
        assert_eq!(scene.admission.door().waiting, 0);
    }

    #[test]
    fn what_drains_is_forgotten_beyond_a_number() {
        let mut scene = Scene::new(|limits| limits.unauthenticated_max = 3);
        let mut forgotten = Vec::new();
        for number in 0..10 {
            scene.come(network(number), true);
            let (connection, (network, mut place)) = scene.inside.pop_first().unwrap();
            if let Some(first) = scene.admission.close(network, &mut place, &scene.limits) {
                scene.admission.door().closing.retain(|place| place.connection != first);
                forgotten.push(first);
            }
            assert_eq!(connection, place.connection);
        }
        assert_eq!(forgotten, [0, 1, 2, 3, 4, 5, 6]);
    }
}
