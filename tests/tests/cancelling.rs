//! Streams that are given up before they are done: honest programs that cancel live, and one who cancels without end
//! spends its own stream credit and nothing else. (D-02)

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, Limits, PathState, ReadError, SessionHandle, StreamHandle};
use kwik_sim::{Link, NodeId};
use kwik_tests::{Ends, Fleet, LONG, SERVER_NAME, pattern};

/// How long the answering end takes for an answer.
const THINKING: Duration = Duration::from_millis(5);
/// The moments at which programs act.
const TICK: Duration = Duration::from_millis(1);

/// Whose streams are given up: who opens them, and who gives them up by which frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    /// Both halves are dropped: what was written is finished, and the answer is stopped.
    Drop,
    /// The opener resets its half, and stops the answer.
    Reset,
}

/// Two programs on one session: one asks, the other answers after some time.
struct Rig {
    fleet: Fleet,
    ends: Ends,
    /// Whether the primary asks, on streams it opens.
    turned: bool,
    asked: Vec<Asked>,
    answering: Vec<(StreamHandle, Duration)>,
    accepted: u64,
    /// How long each answer took, from when it was wanted.
    took: Vec<Duration>,
}

struct Asked {
    stream: StreamHandle,
    wanted_at: Duration,
}

impl Rig {
    fn new(limits: &Limits) -> Self {
        let mut fleet = Fleet::with(2, |config| config.limits(limits.clone()));
        let config = fleet.pki.client().limits(limits.clone());
        let ends = fleet.connect_with(config);
        Self { fleet, ends, turned: false, asked: vec![], answering: vec![], accepted: 0, took: vec![] }
    }

    fn turned(limits: &Limits) -> Self {
        Self { turned: true, ..Self::new(limits) }
    }

    fn asking(&self) -> (NodeId, SessionHandle) {
        let ends = [(self.fleet.client, self.ends.client), (self.fleet.servers[0], self.ends.primary)];
        ends[usize::from(self.turned)]
    }

    fn answering(&self) -> (NodeId, SessionHandle) {
        let ends = [(self.fleet.client, self.ends.client), (self.fleet.servers[0], self.ends.primary)];
        ends[usize::from(!self.turned)]
    }

    fn now(&self) -> Duration {
        self.fleet.world.elapsed()
    }

    /// Asks for something, if there is stream credit.
    fn ask(&mut self, wanted_at: Duration) -> Option<StreamHandle> {
        let (node, session) = self.asking();
        let mut session = self.fleet.world.session_mut(node, session)?;
        let stream = session.open_stream(Dir::Bi).ok()?;
        session.stream_mut(stream).write(b"please").expect("taken");
        session.stream_mut(stream).finish().expect("open");
        self.asked.push(Asked { stream, wanted_at });
        Some(stream)
    }

    fn ask_all(&mut self) -> usize {
        let now = self.now();
        std::iter::from_fn(|| self.ask(now)).count()
    }

    fn cancel(&mut self, stream: StreamHandle, how: Cancel) {
        self.asked.retain(|asked| asked.stream != stream);
        let (node, session) = self.asking();
        let Some(mut session) = self.fleet.world.session_mut(node, session) else { return };
        let mut stream = session.stream_mut(stream);
        if how == Cancel::Reset {
            let _ = stream.reset(1);
        }
        stream.release_send();
        stream.release_recv();
    }

    fn cancel_all(&mut self, how: Cancel) -> usize {
        let streams: Vec<_> = self.asked.iter().map(|asked| asked.stream).collect();
        streams.iter().for_each(|stream| self.cancel(*stream, how));
        streams.len()
    }

    /// One moment of both programs.
    fn tick(&mut self) {
        self.fleet.world.run_for(TICK);
        self.answer();
        self.read();
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now() + span;
        while self.now() < end {
            self.tick();
        }
    }

    fn answer(&mut self) {
        let now = self.now();
        let (node, session) = self.answering();
        let Some(mut session) = self.fleet.world.session_mut(node, session) else { return };
        while let Some(stream) = session.accept_stream(Dir::Bi) {
            self.accepted += 1;
            self.answering.push((stream, now + THINKING));
        }
        self.answering.retain(|(handle, due)| {
            let mut stream = session.stream_mut(*handle);
            let reset = loop {
                match stream.read(usize::MAX) {
                    Ok(_) => {}
                    Err(error) => break matches!(error, ReadError::Reset(_)),
                }
            };
            let given_up = reset || stream.view().stop_code().is_some();
            if !given_up && now < *due {
                return true;
            }
            if !given_up {
                let _ = stream.write(&pattern(0..100));
            }
            stream.release_send();
            stream.release_recv();
            false
        });
    }

    fn read(&mut self) {
        let now = self.now();
        let (node, session) = self.asking();
        let Some(mut session) = self.fleet.world.session_mut(node, session) else { return };
        self.asked.retain(|asked| {
            let mut stream = session.stream_mut(asked.stream);
            loop {
                match stream.read(usize::MAX) {
                    Ok(_) => {}
                    Err(ReadError::Finished) => break,
                    Err(_) => return true,
                }
            }
            stream.release_send();
            stream.release_recv();
            self.took.push(now - asked.wanted_at);
            false
        });
    }

    fn assert_open(&mut self) {
        for (node, session) in [self.asking(), self.answering()] {
            let now = self.now();
            let reason = self.fleet.world.session(node, session).map(|session| session.close_reason().cloned());
            assert_eq!(reason, Some(None), "at {now:?}");
        }
    }

    /// The longest that 99 of 100 answers took.
    fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort();
        took[took.len() * 99 / 100]
    }
}

fn with_streams(streams: u64) -> Limits {
    let mut limits = Limits::default();
    limits.streams_bidi_max = streams;
    limits.streams_uni_max = 128;
    limits.reassembly_budget_bytes = 128 << 20;
    limits
}

#[test]
fn every_stream_dropped_at_once_is_no_fault() {
    for (streams, turned) in [(128, false), (300, false), (300, true), (2000, false)] {
        let limits = with_streams(streams);
        let mut rig = if turned { Rig::turned(&limits) } else { Rig::new(&limits) };
        // A page with every stream open is left for the next one, ten times within a second.
        for page in 0..10 {
            rig.ask_all();
            // Before the server heard of it, while it thinks, when the answers are about to arrive.
            rig.run_for(Duration::from_millis([5, 12, 23][page % 3]));
            let given_up = rig.cancel_all(if page % 2 == 0 { Cancel::Drop } else { Cancel::Reset });
            assert!(page > 0 || given_up as u64 == streams, "{given_up} of {streams} were open");
            rig.run_for(Duration::from_millis(77));
            rig.assert_open();
        }
        // The last page is read.
        rig.took.clear();
        let begun = rig.now();
        while rig.took.len() < 200 {
            rig.ask(begun);
            rig.tick();
            assert!(rig.now() < begun + LONG, "{} answers came", rig.took.len());
        }
        rig.assert_open();
        let took = rig.now() - begun;
        assert!(took < Duration::from_secs(2), "{streams} streams: the last page took {took:?}");
    }
}

/// What a program's good requests take beside `cancels` a second that are given up.
fn thousand_a_second(cancels: u32, turned: bool, how: Cancel) -> (usize, Duration) {
    let limits = Limits::default();
    let mut rig = if turned { Rig::turned(&limits) } else { Rig::new(&limits) };
    let (mut wanted, mut given_up) = (Vec::new(), 0);
    let end = rig.now() + Duration::from_secs(5);
    let mut tick = 0;
    while rig.now() < end {
        let now = rig.now();
        wanted.push(now);
        if cancels > 0
            && tick % (1000 / cancels) == 0
            && let Some(stream) = rig.ask(now)
        {
            rig.tick();
            rig.cancel(stream, how);
            given_up += 1;
        } else {
            rig.tick();
        }
        while let Some(at) = wanted.first().copied() {
            if rig.ask(at).is_none() {
                break;
            }
            wanted.remove(0);
        }
        tick += 1;
    }
    rig.run_for(Duration::from_secs(1));
    rig.assert_open();
    assert!(cancels == 0 || given_up >= 450, "{given_up} were given up");
    (rig.took.len(), rig.p99())
}

#[test]
fn hundred_cancels_a_second_among_a_thousand_good_requests_are_hardly_noticed() {
    for (turned, how) in [(false, Cancel::Drop), (false, Cancel::Reset), (true, Cancel::Drop)] {
        let (all, usual) = thousand_a_second(0, turned, how);
        let (answered, beside) = thousand_a_second(100, turned, how);
        assert!(answered >= 4400 && all >= 4900, "{answered} and {all} answers");
        assert!(beside <= usual + Duration::from_millis(5), "{beside:?}, and {usual:?} without");
    }
}

/// A second session of the rig's server, whose client opens streams and gives them up, and does nothing else.
struct Attack {
    how: Cancel,
    client: (NodeId, SessionHandle),
    server: (NodeId, SessionHandle),
    given_up: u64,
}

impl Attack {
    fn new(rig: &mut Rig, how: Cancel) -> Self {
        let fleet = &mut rig.fleet;
        let (server, config) = (fleet.servers[0], fleet.pki.client());
        let client = fleet.add_client("10.0.3.1:5000", &Link::with_delay(Duration::from_millis(1)));
        let session = fleet.world.dial(client, server, config, SERVER_NAME).expect("dialled");
        let at_server = fleet.await_incoming(0);
        Self { how, client: (client, session), server: (server, at_server), given_up: 0 }
    }

    fn act(&mut self, rig: &mut Rig) {
        let mut session = rig.fleet.world.session_mut(self.client.0, self.client.1).expect("a session");
        for dir in Dir::ALL {
            while let Ok(stream) = session.open_stream(dir) {
                self.given_up += 1;
                let mut stream = session.stream_mut(stream);
                if self.how == Cancel::Reset {
                    stream.reset(1).expect("open");
                }
                stream.release_send();
                stream.release_recv();
            }
        }
        let mut session = rig.fleet.world.session_mut(self.server.0, self.server.1).expect("a session");
        for dir in Dir::ALL {
            while let Some(stream) = session.accept_stream(dir) {
                session.stream_mut(stream).release_send();
                session.stream_mut(stream).release_recv();
            }
        }
    }
}

/// Good requests, and how long 99 of 100 took, beside an attack if there is one; and what the attack came to each second.
fn beside_an_attack(how: Option<Cancel>, seconds: u64) -> (Duration, u64) {
    let mut rig = Rig::new(&Limits::default());
    let mut attack = how.map(|how| Attack::new(&mut rig, how));
    let begun = rig.now();
    while rig.now() < begun + Duration::from_secs(seconds) {
        let now = rig.now();
        rig.ask(now).expect("the good session has its streams");
        if let Some(attack) = &mut attack {
            attack.act(&mut rig);
        }
        rig.tick();
    }
    rig.run_for(Duration::from_millis(100));
    rig.assert_open();
    assert_eq!(rig.took.len() as u64, 1000 * seconds, "good requests that were answered");
    (rig.p99(), attack.map_or(0, |attack| attack.given_up))
}

#[test]
fn who_opens_streams_only_to_give_them_up_spends_its_own_credit_and_disturbs_nobody() {
    let seconds = 4;
    let (usual, _) = beside_an_attack(None, seconds);
    let (beside, given_up) = beside_an_attack(Some(Cancel::Reset), seconds);
    // Of each direction: the credit it had, as many at once, and as many again each second.
    assert!((2 * 128 * 3..=2 * 128 * (2 + seconds)).contains(&given_up), "{given_up} streams were given up");
    assert!(beside <= usual + TICK, "{beside:?}, and {usual:?} without");
}

#[test]
fn parts_of_streams_that_are_given_up_cost_no_path() {
    let limits = with_streams(300);
    let mut fleet = Fleet::with(2, |config| config.limits(limits.clone()));
    let config = fleet.pki.client().limits(limits);
    let ends = fleet.connect_with(config);
    let (path, secondary) = fleet.join(ends, 1);
    for _ in 0..2 {
        let streams: Vec<_> = (0..250).map(|_| fleet.open(ends, Dir::Bi)).collect();
        let (client, primary) = (fleet.client, fleet.servers[0]);
        for (_, there) in &streams {
            let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
            session.stream_mut(*there).delegate(path, 1000, Bytes::new()).unwrap();
        }
        for _ in 0..250 {
            fleet.accept(1, secondary, Dir::Bi);
        }
        for (here, there) in streams {
            for (node, session, stream) in [(client, ends.client, here), (primary, ends.primary, there)] {
                let mut session = fleet.world.session_mut(node, session).unwrap();
                session.stream_mut(stream).release_send();
                session.stream_mut(stream).release_recv();
            }
        }
        fleet.world.run_for(Duration::from_secs(2));
        let session = fleet.world.session_mut(primary, ends.primary).unwrap();
        assert_eq!(session.path(path).unwrap().state, PathState::Active);
    }
}
