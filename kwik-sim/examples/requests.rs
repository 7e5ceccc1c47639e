//! How much a small request costs: 10,000 streams of 1 KiB each way, 50 at a time, between a client and one server, without
//! TLS. Meant to be run under a counter of instructions.

use std::process::ExitCode;
use std::time::Duration;

use kwik_core::{Dir, ReadError, SessionEvent, SessionHandle, StreamEvent, StreamHandle};
use kwik_sim::{App, Context, Fleet, FleetBuilder, Link, SERVER_NAME, TlsMode, WorldConfig};

const STREAMS: usize = 10_000;
const AT_ONCE: usize = 50;
const SIZE: usize = 1024;

/// Opens the next stream when an answer is whole.
struct Client {
    session: SessionHandle,
    opened: usize,
    answered: usize,
}

impl Client {
    fn open(&mut self, cx: &mut Context<'_>) {
        let Some(mut session) = cx.session_mut(self.session) else { return };
        while self.opened < STREAMS && self.opened - self.answered < AT_ONCE {
            let Ok(stream) = session.open_stream(Dir::Bi) else { return };
            let mut stream = session.stream_mut(stream);
            stream.write(&[1; SIZE]).expect("a new stream has room");
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
        self.answered == STREAMS
    }
}

/// Answers every request when it is whole.
struct Server;

impl App for Server {
    fn on_start(&mut self, _: &mut Context<'_>) {}

    fn on_event(&mut self, cx: &mut Context<'_>, session: SessionHandle, event: SessionEvent) {
        match event {
            SessionEvent::Stream(StreamEvent::Opened { dir }) => {
                while let Some(stream) = cx.session_mut(session).and_then(|mut session| session.accept_stream(dir)) {
                    answer(cx, session, stream);
                }
            }
            SessionEvent::Stream(StreamEvent::Readable(stream)) => answer(cx, session, stream),
            _ => {}
        }
    }
}

fn answer(cx: &mut Context<'_>, session: SessionHandle, stream: StreamHandle) {
    if is_read(cx, session, stream)
        && let Some(mut session) = cx.session_mut(session)
    {
        let mut stream = session.stream_mut(stream);
        stream.write(&[2; SIZE]).expect("a new stream has room");
        stream.finish().expect("it is open");
        stream.release_send();
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

#[expect(clippy::print_stdout, reason = "a measurement")]
fn main() -> ExitCode {
    let mut config = WorldConfig::new(1);
    config.tls = TlsMode::Null;
    let link = Link::with_rate(1_000_000_000, Duration::from_millis(5));
    let Fleet { mut world, pki, client, servers, .. } =
        FleetBuilder::new(config).link(link).client(|_| ()).servers(1, |_, _| ()).build();
    let session = world.dial(client, servers[0], pki.client(), SERVER_NAME).expect("it can dial");
    world.set_app(servers[0], Box::new(Server));
    world.set_app(client, Box::new(Client { session, opened: 0, answered: 0 }));
    let finished = world.run_until(Duration::from_secs(600), |world| world.is_app_done(client));
    println!("{STREAMS} requests in {:.3} simulated seconds", world.elapsed().as_secs_f64());
    if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
