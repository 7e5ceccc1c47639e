//! Unauthenticated connections: what a flood of them costs those who are there, and those who want to come.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, Limits, SessionError, SessionEvent, SessionHandle, StreamHandle, TransportCode, WriteError};
use kwik_sim::byzantine::{Dialer, Flood};
use kwik_sim::{Disturbance, Fleet, FleetBuilder, Link, NodeId, World, WorldConfig};
use kwik_tests::SERVER_NAME;

const SECOND: Duration = Duration::from_secs(1);
const DELAY: Duration = Duration::from_millis(10);

/// A server, and hosts around it that each have a network of their own.
struct Site {
    fleet: Fleet,
    hosts: u16,
}

impl Site {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(adjust: impl Fn(&mut Limits)) -> Self {
        let builder = FleetBuilder::new(WorldConfig::null_tls(1)).link(Link::with_delay(DELAY)).client(|_| ());
        Self { fleet: builder.servers(1, |_, node| adjust(&mut node.limits)).build(), hosts: 0 }
    }

    /// One more host, at 10.1.x.y, that floods. Returns how many of its handshakes were completed.
    fn flood(&mut self, dialer: Dialer, dials: usize, per_second: u32) -> Rc<Cell<usize>> {
        let [high, low] = self.hosts.to_be_bytes();
        let address = format!("10.1.{high}.{low}:7000").parse().expect("an address");
        let plan = (dials, SECOND / per_second);
        let flood = Flood::new(&self.fleet, u64::from(self.hosts), dialer, plan);
        let connected = flood.connected();
        let Fleet { world, servers, .. } = &mut self.fleet;
        let node = world.add_raw_node(address, Box::new(flood));
        world.set_link_both(node, servers[0], Link::with_delay(DELAY));
        self.hosts += 1;
        connected
    }

    fn client(&mut self, address: &str) -> NodeId {
        self.fleet.add_client(address, &Link::with_delay(DELAY))
    }

    /// How long an honest client takes to be welcomed.
    fn welcome(&mut self, address: &str) -> Option<Duration> {
        let client = self.client(address);
        let Fleet { world, pki, servers, .. } = &mut self.fleet;
        world.dial(client, servers[0], pki.client(), SERVER_NAME).expect("dialled");
        let begun = world.elapsed();
        let welcomed = |world: &mut World| world.saw(client, |event| *event == SessionEvent::Welcomed);
        world.run_until(Duration::from_secs(20), welcomed).then(|| world.elapsed() - begun)
    }
}

/// An established session: its client reads what the server writes without end, at 20 Mbit/s.
struct SteadyDownload {
    client: (NodeId, SessionHandle),
    server: (NodeId, SessionHandle),
    here: StreamHandle,
    there: StreamHandle,
    read: usize,
}

impl SteadyDownload {
    fn begin(site: &mut Site) -> Self {
        let fleet = &mut site.fleet;
        let client = fleet.add_client("10.2.0.1:5000", &Link::with_rate(20_000_000, DELAY));
        let server = fleet.servers[0];
        let session = fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).expect("dialled");
        let here = fleet.world.session_mut(client, session).expect("a session").open_stream(Dir::Bi).expect("opened");
        let at_server = fleet.await_incoming(0);
        let there = fleet.accept(0, at_server, Dir::Bi);
        Self { client: (client, session), server: (server, at_server), here, there, read: 0 }
    }

    fn run(&mut self, world: &mut World, span: Duration) {
        let block = Bytes::from(vec![7; 64 * 1024]);
        let end = world.elapsed() + span;
        while world.elapsed() < end {
            let mut session = world.session_mut(self.server.0, self.server.1).expect("the session lives");
            loop {
                match session.stream_mut(self.there).write_chunk(block.clone()) {
                    Ok(_) => {}
                    Err(WriteError::Blocked) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            world.run_for(Duration::from_millis(5));
            let mut session = world.session_mut(self.client.0, self.client.1).expect("the session lives");
            while let Ok(chunk) = session.stream_mut(self.here).read(usize::MAX) {
                self.read += chunk.data.len();
            }
        }
    }
}

/// A flood from one network held every place for five seconds, and nobody else came in.
// [P-4.13]
#[test]
fn newcomer_comes_in_at_once_while_one_network_floods() {
    for dialer in [Dialer::Silent, Dialer::Forger, Dialer::Spoofed] {
        let mut site = Site::new();
        site.flood(dialer, 1_100, 10_000);
        site.fleet.world.run_for(SECOND / 2);
        let took = site.welcome("10.2.0.2:5000").expect("welcomed");
        assert!(took < SECOND / 5, "{dialer:?}: {took:?}");

        let mut site = Site::new();
        let connected = site.flood(dialer, 5_000, 1_000);
        site.fleet.world.run_for(3 * SECOND);
        for host in 1..20 {
            let took = site.welcome(&format!("10.2.0.{host}:5000")).expect("welcomed");
            assert!(took < SECOND / 5, "{dialer:?}, host {host}: {took:?}");
        }
        let limits = Limits::default();
        let most = usize::try_from(limits.handshakes_network_per_second).unwrap() * 6;
        assert!(connected.get() <= most, "{dialer:?}: the flood got {} handshakes", connected.get());
    }
}

/// Its silent connections go, the first of them first.
// [P-4.13]
#[test]
fn newcomer_of_the_network_that_floods_comes_in_too() {
    let mut site = Site::new();
    site.flood(Dialer::Silent, 1_100, 10_000);
    site.fleet.world.run_for(2 * SECOND);
    let took = site.welcome("10.1.0.0:5000").expect("welcomed");
    assert!(took < SECOND / 5, "{took:?}");
}

// [P-4.13]
#[test]
fn newcomer_comes_in_while_many_networks_flood() {
    for dialer in [Dialer::Silent, Dialer::Spoofed] {
        let mut site = Site::new();
        (0..600).for_each(|_| {
            site.flood(dialer, 6, 1);
        });
        site.fleet.world.run_for(3 * SECOND);
        let took = site.welcome("10.2.0.2:5000").expect("welcomed");
        assert!(took < SECOND, "{dialer:?}: {took:?}");
    }
}

// [P-4.13]
#[test]
fn established_session_keeps_its_goodput_while_its_listener_is_flooded() {
    let goodput = |hosts: usize, dialer, per_second| {
        let mut site = Site::new();
        let mut download = SteadyDownload::begin(&mut site);
        (0..hosts).for_each(|_| {
            site.flood(dialer, 5_000, per_second);
        });
        download.run(&mut site.fleet.world, 2 * SECOND);
        download.read
    };
    let undisturbed = goodput(0, Dialer::Silent, 1);
    assert!(undisturbed > 4_000_000, "{undisturbed} bytes in two seconds");
    let one_network = [(Dialer::Silent, 1, 1_000), (Dialer::Forger, 1, 1_000), (Dialer::Spoofed, 1, 1_000)];
    for (dialer, hosts, per_second) in one_network.into_iter().chain([(Dialer::Silent, 40, 25)]) {
        let flooded = goodput(hosts, dialer, per_second);
        assert!(flooded * 10 >= undisturbed * 9, "{dialer:?} from {hosts}: {flooded} of {undisturbed} bytes");
    }
}

/// A server that asks every client for a proof of its address, and a patient client whose proof is lost for so long.
fn prove_late(lost: Duration) -> SessionEvent {
    let mut site = Site::with(|limits| limits.incoming_before_retry = 0);
    let (server, client) = (site.fleet.servers[0], site.client("10.2.0.1:5000"));
    let mut limits = Limits::default();
    limits.idle_timeout = 1_000 * SECOND;
    site.fleet.world.dial(client, server, site.fleet.pki.client().limits(limits), SERVER_NAME).expect("dialled");
    // The first packet was answered with a Retry, which has not arrived.
    site.fleet.world.run_for(DELAY * 3 / 2);
    site.fleet.world.inject(Disturbance::Blackhole { from: client, to: server });
    site.fleet.world.run_for(lost);
    site.fleet.world.inject(Disturbance::HealAll);
    let mut found = None;
    site.fleet.world.run_until(1_000 * SECOND, |world| {
        let is_end = |event: &SessionEvent| matches!(event, SessionEvent::Welcomed | SessionEvent::Closed(_));
        found = std::iter::from_fn(|| world.poll_event(client)).map(|(_, event)| event).find(is_end);
        found.is_some()
    });
    found.expect("the client hears whether it may come")
}

/// The client's packets were lost for longer than a token was good for; the session ended with PROTOCOL_VIOLATION.
/// (Swarm seed 4286.)
// [P-4.13]
#[test]
fn regression_client_that_took_long_to_prove_its_address_broke_a_rule() {
    for lost in [16, 60] {
        assert_eq!(prove_late(lost * SECOND), SessionEvent::Welcomed, "lost for {lost} s");
    }
    let ended = prove_late(130 * SECOND);
    let SessionEvent::Closed(SessionError::Transport { code, detail }) = ended else { panic!("{ended:?}") };
    assert_eq!((code, detail.contains("proof of address")), (TransportCode::UNREACHABLE, true), "{detail}");
}
