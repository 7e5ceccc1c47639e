//! One world from its beginning until nothing is left in it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use kwik_core::{Limits, PathTarget};

use super::disturbances::second_address;
use super::habits::Habit;
use super::options::{ByzantinePeers, InvalidPath, Options, Tight};
use crate::apps::{ClientApp, ClientPlan, ServerApp, ServerPlan, SessionPlan};
use crate::byzantine::{Byzantine, Dialer, Flood, PeerRole, Report};
use crate::checks::{Coverage, FlowModel, SharedModel, Watch};
use crate::disturbance::{Disturbance, RestartState};
use crate::fleet::{Fleet, FleetBuilder};
use crate::link::Link;
use crate::node::NodeId;
use crate::world::{World, WorldConfig};

/// What became of a world.
#[derive(Debug, Clone)]
pub struct WorldOutcome {
    /// Its seed.
    pub seed: u64,
    /// What must not have been; empty if all is well.
    pub violations: Vec<String>,
    /// Over everything that happened.
    pub hash: u64,
    /// How many things happened.
    pub events: u64,
    /// How much virtual time passed.
    pub elapsed: Duration,
    /// How long everything took once the disturbances were over.
    pub recovery: Duration,
    /// The last things that happened.
    pub tail: Vec<String>,
    /// What was reached.
    pub coverage: Coverage,
}

/// The number of a server that is not there.
const INVALID_SERVER: usize = 99;

/// How long closed sessions may linger: silent peers are forgotten after the idle timeout, and closed connections after
/// three probe timeouts, which a pause of some seconds makes long.
const LINGER: Duration = Duration::from_secs(600);

/// A world in the making, and who is who in it.
struct SwarmWorld {
    fleet: Fleet,
    model: SharedModel,
    clients: Vec<NodeId>,
    byzantines: Vec<NodeId>,
    reports: Vec<Rc<RefCell<Report>>>,
    limits: Limits,
}

/// Runs a world. `keep` of its last events are kept, and the state of its paths is among them every `sample`; `look` is
/// given the world at the end.
pub fn run(
    options: &Options,
    keep: usize,
    sample: Option<Duration>,
    look: impl FnOnce(&World, &WorldOutcome),
) -> WorldOutcome {
    let mut swarm = SwarmWorld::new(options, sample);
    swarm.fleet.world.trace_mut().keep(keep);
    let mut recovery = Duration::ZERO;
    let caught = catch_unwind(AssertUnwindSafe(|| recovery = swarm.play(options)));
    let SwarmWorld { fleet: Fleet { world, .. }, model, .. } = &swarm;
    // A panic may have come in the middle of a change to the model.
    let mut violations: Vec<String> = caught.err().map(|panic| panic_text(&*panic)).into_iter().collect();
    let mut coverage = Coverage::default();
    if let Ok(model) = model.try_borrow() {
        violations.extend(model.violations().iter().cloned());
        coverage = model.coverage.clone();
    }
    options.disturbances.kinds.iter().for_each(|kind| coverage.disturbance(kind));
    if let Some(byzantine) = &options.byzantine {
        swarm.cover_byzantine(byzantine, &mut coverage);
    }
    if let Some(habit) = options.habit {
        coverage.disturbance(&format!("habit: {habit:?}"));
        if coverage.work.contains_key("session done") {
            habit.result().into_iter().for_each(|result| coverage.work(result));
        }
    }
    if let Some(invalid_path) = options.invalid_path {
        coverage.disturbance(&format!("invalid path: {invalid_path:?}"));
    }
    let outcome = WorldOutcome {
        seed: options.seed,
        violations,
        hash: world.trace().hash(),
        events: world.trace().len(),
        elapsed: world.elapsed(),
        recovery,
        tail: world.trace().events().map(ToString::to_string).collect(),
        coverage,
    };
    look(world, &outcome);
    outcome
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("of another kind");
    format!("a panic: {text}")
}

impl SwarmWorld {
    fn new(options: &Options, sample: Option<Duration>) -> Self {
        let mut config = WorldConfig::new(options.seed);
        (config.tls, config.sample_paths) = (options.tls, sample);
        let model =
            FlowModel::shared(!options.disturbances.disturbances.is_empty(), options.disturbances.sessions_may_fail);
        if options.tight == Tight::Sessions {
            model.borrow_mut().expect_refusals();
        }
        let (limits, client_limits) = (options.limits(), options.client_limits());
        let mut builder = FleetBuilder::new(config).link(Link::default()).servers(options.servers, |_, node| {
            node.transport.congestion = options.congestion;
            node.set_limits(&limits);
        });
        for (number, client) in options.clients.iter().enumerate() {
            builder = builder.client(|node| {
                node.addresses.extend((client.addresses > 1).then(|| second_address(number)));
                node.transport.congestion = options.congestion;
                node.set_limits(&client_limits);
            });
        }
        let fleet = builder.build();
        let clients = fleet.world.nodes().skip(options.servers).collect();
        let mut swarm = Self { fleet, model, clients, byzantines: Vec::new(), reports: Vec::new(), limits };
        swarm.lay_links(options);
        swarm.add_byzantine(options);
        if options.habit == Some(Habit::Flooded) {
            swarm.add_flood(options);
        }
        swarm.set_apps(options);
        for (at, disturbance) in &options.disturbances.disturbances {
            swarm.fleet.world.at(*at, disturbance.clone());
        }
        swarm
    }

    fn lay_links(&mut self, options: &Options) {
        for (client, links) in self.clients.iter().zip(&options.links) {
            for (server, link) in self.fleet.servers.iter().zip(links) {
                self.fleet.world.set_link_both(*client, *server, link.clone());
            }
        }
    }

    fn add_byzantine(&mut self, options: &Options) {
        let Some(byzantine) = &options.byzantine else { return };
        if matches!(byzantine.behaviour.role, PeerRole::Client | PeerRole::Joiner) {
            let node = Byzantine::client(&self.fleet, byzantine.seed, byzantine.behaviour);
            self.model.borrow_mut().distrust_a_client();
            self.reports.push(node.report());
            let address = ([10, 0, 2, small(options.clients.len()) + 1], 5000).into();
            self.byzantines.push(self.fleet.world.add_raw_node(address, Box::new(node)));
            return;
        }
        let (own, other) = (options.servers, options.servers + 1);
        let partner = if byzantine.accomplice.is_some() { other } else { 0 };
        let server = |number, behaviour| Byzantine::server(&self.fleet, small(number), byzantine.seed, behaviour);
        let partner = self.fleet.target(partner);
        let node = server(own, byzantine.behaviour).partner(partner);
        let accomplice = byzantine.accomplice.map(|behaviour| server(other, behaviour).together_with(&node));
        for (number, node) in std::iter::once((own, node)).chain(accomplice.map(|node| (other, node))) {
            self.model.borrow_mut().distrust(self.fleet.target(number).identity);
            self.reports.push(node.report());
            self.byzantines.push(self.fleet.add_raw_server(number, Box::new(node)));
        }
    }

    /// What the byzantine nodes came to do, and what they met.
    fn cover_byzantine(&self, byzantine: &ByzantinePeers, coverage: &mut Coverage) {
        let reports: Vec<_> = self.reports.iter().map(|report| report.borrow()).collect();
        if reports.iter().all(|report| report.has_acted) {
            coverage.disturbance(&byzantine.kind());
        }
        let closed = reports.iter().flat_map(|report| &report.closed);
        closed.filter_map(|(_, code)| *code).for_each(|code| coverage.code(code));
    }

    /// A host that never authenticates, and dials the first server again and again.
    fn add_flood(&mut self, options: &Options) {
        let dialer = [Dialer::Silent, Dialer::Forger, Dialer::Spoofed][usize::from(options.seed.to_le_bytes()[0] % 3)];
        let flood = Flood::new(&self.fleet, options.seed, dialer, (400, Duration::from_millis(2)));
        self.fleet.world.add_raw_node(([10, 1, 0, 1], 7000).into(), Box::new(flood));
    }

    fn set_apps(&mut self, options: &Options) {
        let has = |role: PeerRole| options.byzantine.as_ref().is_some_and(|byzantine| byzantine.behaviour.role == role);
        let all = options.servers + if has(PeerRole::Secondary) { self.byzantines.len() } else { 0 };
        for (number, node) in self.fleet.servers.iter().enumerate() {
            let others = (0..all)
                .filter(|other| *other != number)
                .map(|other| self.fleet.target(other))
                .chain(self.invalid_path(options))
                .collect();
            let plan = ServerPlan { others, ..options.plan.clone() };
            let app = ServerApp::new(plan, options.seed ^ number as u64, self.model.clone());
            self.fleet.world.set_app(*node, Box::new(app));
        }
        let servers: Vec<_> = (0..=options.servers).map(|number| self.fleet.server_address(number)).collect();
        for (number, (node, client)) in self.clients.iter().zip(&options.clients).enumerate() {
            let mut sessions = client.sessions.clone();
            if has(PeerRole::Primary)
                && let Some(session) = sessions.first().cloned()
            {
                sessions.push(SessionPlan {
                    primary: options.servers,
                    patience: Some(Duration::from_secs(5)),
                    ..session
                });
            }
            let config = self.fleet.pki.client().limits(options.client_limits());
            let plan = ClientPlan { number: u16::from(small(number)), config, sessions, servers: servers.clone() };
            self.fleet.world.set_app(*node, Box::new(ClientApp::new(plan, self.model.clone())));
        }
    }

    /// A path that cannot be, if the world has one.
    fn invalid_path(&self, options: &Options) -> Option<PathTarget> {
        let invalid_path = options.invalid_path?;
        let (real, nowhere) = (self.fleet.target(options.servers - 1), self.fleet.target(INVALID_SERVER));
        let identity = nowhere.identity;
        self.model.borrow_mut().expect_invalid_path(identity);
        Some(match invalid_path {
            InvalidPath::Nowhere => nowhere,
            InvalidPath::OtherIdentity => PathTarget { identity, ..real },
            InvalidPath::OtherName => PathTarget { server_name: "other.test".to_owned(), identity, ..real },
            InvalidPath::Forbidden => PathTarget { address: ([127, 0, 0, 1], 4433).into(), identity, ..real },
        })
    }

    /// The disturbances, the recovery, the end. Returns how long the recovery took.
    fn play(&mut self, options: &Options) -> Duration {
        let mut watch = Watch::new(&mut self.fleet.world, self.model.clone(), self.limits.clone());
        let end = options.disturbances.end;
        if self.fleet.world.run_until(end, |world| !watch.look(world)) {
            return Duration::ZERO;
        }
        self.heal();
        let healed = self.fleet.world.elapsed();
        let clients = self.clients.clone();
        let mut failed = false;
        let done = self.fleet.world.run_until(options.patience(), |world| {
            failed = !watch.look(world);
            failed || clients.iter().all(|client| world.is_app_done(*client))
        });
        let recovery = self.fleet.world.elapsed() - healed;
        if failed {
            return recovery;
        }
        if !done {
            let open = self.model.borrow().open_flows();
            let clients: Vec<_> = clients.iter().filter(|client| !self.fleet.world.is_app_done(**client)).collect();
            self.violate(format!(
                "{clients:?} are not done {:?} after all was well again; open are {open:#?}",
                options.patience()
            ));
            return recovery;
        }
        for byzantine in self.byzantines.clone() {
            self.fleet.world.crash(byzantine);
        }
        let honest: Vec<NodeId> = self.clients.iter().chain(&self.fleet.servers).copied().collect();
        let quiet = self.fleet.world.run_until(LINGER, |world| {
            failed = !watch.look(world);
            failed || honest.iter().all(|node| world.is_app_done(*node) && world.endpoint(*node).is_idle())
        });
        if failed {
            return recovery;
        }
        self.check_quiet(&honest, quiet);
        watch.audit_now(&self.fleet.world);
        recovery
    }

    fn heal(&mut self) {
        self.fleet.world.inject(Disturbance::HealAll);
        for node in self.fleet.world.nodes().collect::<Vec<_>>() {
            if self.fleet.world.is_crashed(node) {
                self.fleet.world.inject(Disturbance::Restart { node, state: RestartState::Kept });
            }
        }
    }

    /// Nothing is left: no stream, no session, no connection, no timer.
    fn check_quiet(&mut self, honest: &[NodeId], quiet: bool) {
        for node in honest {
            let done = self.fleet.world.is_app_done(*node);
            let sessions = self.fleet.world.sessions(*node);
            let left: Vec<_> =
                sessions.into_iter().filter(|session| self.fleet.world.session(*node, *session).is_some()).collect();
            self.fleet.world.run_for(Duration::ZERO);
            let endpoint = self.fleet.world.endpoint(*node);
            let (idle, timeout) = (endpoint.is_idle(), endpoint.poll_timeout());
            if !quiet || !idle || !left.is_empty() || timeout.is_some() {
                self.violate(format!(
                    "{node} is not at rest: application done {done}, connections gone {idle}, sessions {left:?}, a \
                     timer: {}",
                    timeout.is_some()
                ));
            }
        }
        self.model.borrow_mut().check_settled();
    }

    fn violate(&self, what: String) {
        self.model.borrow_mut().violate(what);
    }
}

fn small(number: usize) -> u8 {
    u8::try_from(number).expect("few nodes")
}

#[cfg(test)]
mod tests {
    use kwik_core::{ProtocolEventKind, SessionError, TransportCode};

    use super::*;

    #[test]
    fn honest_world_in_which_an_operator_sees_an_error_fails() {
        let options = (0..).map(Options::from_seed).find(|options| options.byzantine.is_none()).unwrap();
        let fault = |code| ProtocolEventKind::Fault { code, detail: String::new() };
        let error = SessionError::Transport { code: TransportCode::INTERNAL, detail: String::new() };
        for (kind, fails) in [
            (fault(TransportCode::INTERNAL), true),
            (ProtocolEventKind::SessionEnded { error }, true),
            (fault(TransportCode::CONTROL_FLOOD), false),
        ] {
            let mut swarm = SwarmWorld::new(&options, None);
            swarm.fleet.world.run_for(Duration::from_secs(5));
            let server = swarm.fleet.servers[0];
            let mut event = swarm.fleet.world.take_protocol_events(server).remove(0);
            event.kind = kind;
            swarm.fleet.world.nodes[server.0].note(event);
            swarm.play(&options);
            assert_eq!(swarm.model.borrow().violations().is_empty(), !fails, "{:?}", swarm.model.borrow().violations());
        }
    }
}
