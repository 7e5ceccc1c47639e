//! Many small requests from one client to one server, for measurements: a stream for each, so many of them at a time.

use std::time::Duration;

use kwik_core::{Dir, Limits, ReadError, SessionEvent, SessionHandle, StreamEvent, StreamHandle};

use crate::app::{App, Context};
use crate::fleet::{Fleet, FleetBuilder, SERVER_NAME};
use crate::link::Link;
use crate::world::WorldConfig;

/// A world with one client and one server that answers each request with as many bytes.
pub struct Requests {
    /// The nodes.
    pub fleet: Fleet,
}

/// What is asked for, and how.
#[derive(Debug, Clone, Copy)]
pub struct RequestPlan {
    /// Requests in all.
    pub count: usize,
    /// Requests that are not answered, at most.
    pub at_once: usize,
    /// Bytes of a request, and of its answer: at most what a new stream has room for.
    pub bytes: usize,
    /// Streams that the server lets be open at once.
    pub streams: u64,
}

impl Requests {
    /// A client that has dialled and makes requests over `link` as it can.
    ///
    /// # Panics
    /// If it cannot dial.
    #[must_use]
    pub fn new(config: WorldConfig, plan: RequestPlan, link: Link) -> Self {
        let mut limits = Limits::default();
        limits.streams_bidi_max = plan.streams;
        let mut fleet =
            FleetBuilder::new(config).link(link).client(|_| ()).servers(1, |_, node| node.set_limits(&limits)).build();
        let (client, server) = (fleet.client, fleet.servers[0]);
        let session = fleet.world.dial(client, server, fleet.pki.client(), SERVER_NAME).expect("it can dial");
        fleet.world.set_app(server, Box::new(Server { answer: vec![2; plan.bytes] }));
        fleet
            .world
            .set_app(client, Box::new(Client { session, plan, request: vec![1; plan.bytes], opened: 0, answered: 0 }));
        Self { fleet }
    }

    /// Runs until everything is answered, for at most `limit` of virtual time. Returns whether it is.
    pub fn run(&mut self, limit: Duration) -> bool {
        let client = self.fleet.client;
        self.fleet.world.run_until(limit, |world| world.is_app_done(client))
    }
}

/// Opens the next stream when an answer is whole.
struct Client {
    session: SessionHandle,
    plan: RequestPlan,
    request: Vec<u8>,
    opened: usize,
    answered: usize,
}

impl Client {
    fn open(&mut self, cx: &mut Context<'_>) {
        let Some(mut session) = cx.session_mut(self.session) else { return };
        let RequestPlan { count, at_once, .. } = self.plan;
        while self.opened < count && self.opened - self.answered < at_once {
            let Ok(stream) = session.open_stream(Dir::Bi) else { return };
            let mut stream = session.stream_mut(stream);
            stream.write(&self.request).expect("a new stream has room");
            stream.finish().expect("it is open");
            stream.release_send();
            self.opened += 1;
        }
    }
}

impl App for Client {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        if let SessionEvent::Stream(StreamEvent::Readable(stream)) = event
            && is_read(cx, session, stream)
        {
            self.answered += 1;
        }
        self.open(cx);
    }

    fn is_done(&self) -> bool {
        self.answered == self.plan.count
    }
}

/// Answers every request when it is whole.
struct Server {
    answer: Vec<u8>,
}

impl App for Server {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        match event {
            SessionEvent::Stream(StreamEvent::Opened { dir }) => {
                while let Some(stream) = cx.session_mut(session).and_then(|mut session| session.accept_stream(dir)) {
                    self.answer(cx, session, stream);
                }
            }
            SessionEvent::Stream(StreamEvent::Readable(stream)) => self.answer(cx, session, stream),
            _ => {}
        }
    }
}

impl Server {
    fn answer(&self, cx: &mut Context<'_>, session: SessionHandle, stream: StreamHandle) {
        if is_read(cx, session, stream)
            && let Some(mut session) = cx.session_mut(session)
        {
            let mut stream = session.stream_mut(stream);
            stream.write(&self.answer).expect("a new stream has room");
            stream.finish().expect("it is open");
            stream.release_send();
        }
    }
}

/// Reads what is there. Returns whether that was the end of the stream.
fn is_read(cx: &mut Context<'_>, session: SessionHandle, stream: StreamHandle) -> bool {
    let Some(mut session) = cx.session_mut(session) else { return false };
    let mut stream = session.stream_mut(stream);
    loop {
        match stream.read(usize::MAX) {
            Ok(_) => {}
            Err(ReadError::Finished) => {
                stream.release_recv();
                return true;
            }
            Err(_) => return false,
        }
    }
}
