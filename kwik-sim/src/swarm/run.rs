//! One world from its beginning until nothing is left in it.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use kwik_core::{Limits, PathTarget};

use super::faults::second_address;
use super::habits::Habit;
use super::options::{ClientOptions, Liar, Options, Stranger, Tight};
use crate::apps::{ClientApp, ClientPlan, ServerApp, ServerPlan, Visit};
use crate::byzantine::{Byzantine, Dialer, Flood, Part, Report};
use crate::checks::{Coverage, Model, SharedModel, Watch};
use crate::faults::{Fault, Memory};
use crate::node::{NodeConfig, NodeId};
use crate::pki::Pki;
use crate::world::{World, WorldConfig};

/// What became of a world.
#[derive(Debug, Clone)]
pub struct Outcome {
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
    /// How long everything took once the faults were over.
    pub recovery: Duration,
    /// The last things that happened.
    pub tail: Vec<String>,
    /// What was reached.
    pub coverage: Coverage,
}

/// The name in every certificate.
const NAME: &str = "server.test";

/// The number of a server that is not there.
const STRANGER: u8 = 99;

/// How long closed sessions may linger: silent peers are forgotten after the idle timeout, and closed connections after
/// three probe timeouts, which a pause of some seconds makes long.
const LINGER: Duration = Duration::from_secs(600);

/// A world in the making, and who is who in it.
struct Stage {
    world: World,
    model: SharedModel,
    clients: Vec<NodeId>,
    servers: Vec<NodeId>,
    liars: Vec<NodeId>,
    reports: Vec<Rc<RefCell<Report>>>,
    limits: Limits,
}

/// Runs a world. `keep` of its last events are kept, and the state of its paths is among them every `sample`; `look` is
/// given the world at the end.
pub fn run(options: &Options, keep: usize, sample: Option<Duration>, look: impl FnOnce(&World, &Outcome)) -> Outcome {
    let mut stage = Stage::new(options, sample);
    stage.world.trace_mut().keep(keep);
    let mut recovery = Duration::ZERO;
    let caught = catch_unwind(AssertUnwindSafe(|| recovery = stage.play(options)));
    let Stage { world, model, .. } = &stage;
    // A panic may have come in the middle of a change to the model.
    let mut violations: Vec<String> = caught.err().map(|panic| panic_text(&*panic)).into_iter().collect();
    let mut coverage = Coverage::default();
    if let Ok(model) = model.try_borrow() {
        violations.extend(model.violations().iter().cloned());
        coverage = model.coverage.clone();
    }
    options.faults.kinds.iter().for_each(|kind| coverage.fault(kind));
    if let Some(liar) = &options.liar {
        stage.cover_liars(liar, &mut coverage);
    }
    if let Some(habit) = options.habit {
        coverage.fault(&format!("habit: {habit:?}"));
        if coverage.work.contains_key("session done") {
            habit.result().into_iter().for_each(|result| coverage.work(result));
        }
    }
    if let Some(stranger) = options.stranger {
        coverage.fault(&format!("stranger: {stranger:?}"));
    }
    let outcome = Outcome {
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

impl Stage {
    fn new(options: &Options, sample: Option<Duration>) -> Self {
        let mut config = WorldConfig::new(options.seed);
        (config.tls, config.sample_paths) = (options.tls, sample);
        let mut world = World::with_config(config);
        let pki = world.pki(NAME);
        let model = Model::shared(!options.faults.faults.is_empty(), options.faults.sessions_may_fail);
        if options.tight == Tight::Sessions {
            model.borrow_mut().expect_refusals();
        }
        let limits = options.limits();
        let servers: Vec<NodeId> = (0..options.servers)
            .map(|number| {
                let mut node =
                    NodeConfig::server(server_address(number), pki.server(small(number)).limits(limits.clone()));
                node.congestion = options.congestion;
                node.limits = limits.clone();
                world.add_node(node).expect("the configuration is sound")
            })
            .collect();
        let clients: Vec<NodeId> = options
            .clients
            .iter()
            .enumerate()
            .map(|(number, client)| {
                let mut node = NodeConfig::client(client_address(number));
                node.addresses.extend((client.addresses > 1).then(|| second_address(number)));
                node.congestion = options.congestion;
                node.limits = options.client_limits();
                world.add_node(node).expect("the configuration is sound")
            })
            .collect();
        let mut stage = Self { world, model, clients, servers, liars: Vec::new(), reports: Vec::new(), limits };
        stage.lay_links(options);
        stage.add_liar(options, &pki);
        if options.habit == Some(Habit::Flooded) {
            stage.add_flood(options, &pki);
        }
        stage.set_apps(options, &pki);
        for (at, fault) in &options.faults.faults {
            stage.world.at(*at, fault.clone());
        }
        stage
    }

    fn lay_links(&mut self, options: &Options) {
        for (client, links) in self.clients.iter().zip(&options.links) {
            for (server, link) in self.servers.iter().zip(links) {
                self.world.set_link_both(*client, *server, link.clone());
            }
        }
    }

    fn add_liar(&mut self, options: &Options, pki: &Pki) {
        let Some(liar) = &options.liar else { return };
        if matches!(liar.behaviour.part, Part::Client | Part::Joiner) {
            let server = self.world.address(self.servers[0]);
            let node = Byzantine::client(&self.world, pki, server, liar.seed, liar.behaviour);
            self.model.borrow_mut().distrust_a_client();
            return self.add_raw(client_address(options.clients.len()), node);
        }
        let (own, other) = (options.servers, options.servers + 1);
        let partner = if liar.accomplice.is_some() { other } else { 0 };
        let server = |number, behaviour| Byzantine::server(&self.world, pki, small(number), liar.seed, behaviour);
        let node = server(own, liar.behaviour);
        let node = node.partner(server_address(partner), NAME, pki.public_identity(small(partner)));
        let accomplice = liar.accomplice.map(|behaviour| server(other, behaviour).together_with(&node));
        for (number, node) in std::iter::once((own, node)).chain(accomplice.map(|node| (other, node))) {
            self.model.borrow_mut().distrust(pki.public_identity(small(number)));
            self.add_raw(server_address(number), node);
        }
    }

    fn add_raw(&mut self, address: std::net::SocketAddr, node: Byzantine) {
        self.reports.push(node.report());
        self.liars.push(self.world.add_raw_node(address, Box::new(node)));
    }

    /// What the liars came to do, and what they met.
    fn cover_liars(&self, liar: &Liar, coverage: &mut Coverage) {
        let reports: Vec<_> = self.reports.iter().map(|report| report.borrow()).collect();
        if reports.iter().all(|report| report.has_acted) {
            coverage.fault(&liar.kind());
        }
        let closed = reports.iter().flat_map(|report| &report.closed);
        closed.filter_map(|(_, code)| *code).for_each(|code| coverage.code(code));
    }

    /// Strangers that dial the first server, all of one network.
    fn add_flood(&mut self, options: &Options, pki: &Pki) {
        let dialer = [Dialer::Silent, Dialer::Forger, Dialer::Spoofed][usize::from(options.seed.to_le_bytes()[0] % 3)];
        let (server, plan) = (self.world.address(self.servers[0]), (400, Duration::from_millis(2)));
        let flood = Flood::new(&self.world, pki, server, options.seed, dialer, plan);
        let address = std::net::SocketAddr::from(([10, 1, 0, 1], 7000));
        self.world.add_raw_node(address, Box::new(flood));
    }

    fn set_apps(&mut self, options: &Options, pki: &Pki) {
        let lies = |part: Part| options.liar.as_ref().is_some_and(|liar| liar.behaviour.part == part);
        let target = |number: usize| PathTarget {
            address: server_address(number),
            server_name: NAME.to_owned(),
            identity: pki.public_identity(small(number)),
        };
        let all = options.servers + if lies(Part::Secondary) { self.liars.len() } else { 0 };
        for (number, node) in self.servers.iter().enumerate() {
            let others =
                (0..all).filter(|other| *other != number).map(target).chain(self.stranger(options, pki)).collect();
            let plan = ServerPlan { others, ..options.plan.clone() };
            let app = ServerApp::new(plan, options.seed ^ number as u64, self.model.clone());
            self.world.set_app(*node, Box::new(app));
        }
        for (number, (node, client)) in self.clients.iter().zip(&options.clients).enumerate() {
            let mut visits = visits(client);
            if lies(Part::Primary)
                && let Some(visit) = visits.first().cloned()
            {
                let patience = Some(Duration::from_secs(5));
                visits.push(Visit { primary: server_address(options.servers), patience, ..visit });
            }
            let config = pki.client().limits(options.client_limits());
            let plan = ClientPlan { number: u16::from(small(number)), config, visits };
            self.world.set_app(*node, Box::new(ClientApp::new(plan, self.model.clone())));
        }
    }

    /// A path that cannot be, if the world has one.
    fn stranger(&self, options: &Options, pki: &Pki) -> Option<PathTarget> {
        let stranger = options.stranger?;
        let last = options.servers - 1;
        let real = PathTarget {
            address: server_address(last),
            server_name: NAME.to_owned(),
            identity: pki.public_identity(small(last)),
        };
        let other = pki.public_identity(STRANGER);
        self.model.borrow_mut().expect_stranger(other);
        Some(match stranger {
            Stranger::Nowhere => PathTarget { address: server_address(usize::from(STRANGER)), identity: other, ..real },
            Stranger::OtherIdentity => PathTarget { identity: other, ..real },
            Stranger::OtherName => PathTarget { server_name: "other.test".to_owned(), identity: other, ..real },
            Stranger::Forbidden => {
                PathTarget { address: std::net::SocketAddr::from(([127, 0, 0, 1], 4433)), identity: other, ..real }
            }
        })
    }

    /// The faults, the recovery, the end. Returns how long the recovery took.
    fn play(&mut self, options: &Options) -> Duration {
        let mut watch = Watch::new(&mut self.world, self.model.clone(), self.limits.clone());
        let end = options.faults.end;
        if self.world.run_until(end, |world| !watch.look(world)) {
            return Duration::ZERO;
        }
        self.heal();
        let healed = self.world.elapsed();
        let clients = self.clients.clone();
        let mut failed = false;
        let done = self.world.run_until(options.patience(), |world| {
            failed = !watch.look(world);
            failed || clients.iter().all(|client| world.is_app_done(*client))
        });
        let recovery = self.world.elapsed() - healed;
        if failed {
            return recovery;
        }
        if !done {
            let open = self.model.borrow().open_flows();
            let clients: Vec<_> = clients.iter().filter(|client| !self.world.is_app_done(**client)).collect();
            self.violate(format!(
                "{clients:?} are not done {:?} after all was well again; open are {open:#?}",
                options.patience()
            ));
            return recovery;
        }
        for liar in self.liars.clone() {
            self.world.crash(liar);
        }
        let honest: Vec<NodeId> = self.clients.iter().chain(&self.servers).copied().collect();
        let quiet = self.world.run_until(LINGER, |world| {
            failed = !watch.look(world);
            failed || honest.iter().all(|node| world.is_app_done(*node) && world.endpoint(*node).is_idle())
        });
        if failed {
            return recovery;
        }
        self.check_quiet(&honest, quiet);
        recovery
    }

    fn heal(&mut self) {
        self.world.inject(Fault::HealAll);
        for node in self.world.nodes().collect::<Vec<_>>() {
            if self.world.is_crashed(node) {
                self.world.inject(Fault::Restart { node, state: Memory::Kept });
            }
        }
    }

    /// Nothing is left: no stream, no session, no connection, no timer.
    fn check_quiet(&mut self, honest: &[NodeId], quiet: bool) {
        for node in honest {
            let done = self.world.is_app_done(*node);
            let sessions = self.world.sessions(*node);
            let left: Vec<_> =
                sessions.into_iter().filter(|session| self.world.session(*node, *session).is_some()).collect();
            self.world.run_for(Duration::ZERO);
            let defects = self.world.defects(*node).to_vec();
            if !defects.is_empty() {
                self.violate(format!("{node} ran into a defect of its own: {defects:?}"));
            }
            let endpoint = self.world.endpoint(*node);
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

fn visits(client: &ClientOptions) -> Vec<Visit> {
    let visit = |visit: &super::options::VisitOptions| Visit {
        primary: server_address(visit.primary),
        server_name: NAME.to_owned(),
        jobs: visit.jobs.clone(),
        parallel: visit.parallel,
        early: visit.early,
        begin_after: visit.begin_after,
        give_up: visit.give_up,
        patience: None,
    };
    client.visits.iter().map(visit).collect()
}

fn server_address(number: usize) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([10, 0, 1, small(number) + 1], 4433))
}

fn client_address(number: usize) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([10, 0, 2, small(number) + 1], 5000))
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX - 1)
}
