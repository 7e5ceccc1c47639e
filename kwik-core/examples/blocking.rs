//! The whole environment that a machine needs: a UDP socket, a clock, and one loop that blocks. No runtime.
//!
//! A server and a client, each on a thread of its own. The client sends a line, the server echoes it, both close.
//!
//! `cargo run -p kwik-core --example blocking`
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the machine has no clock, socket and thread; this is the environment that brings them"
)]

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kwik_core::{
    ClientConfig, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, ReadError, ServerConfig, Session,
    SessionEvent, StreamEvent, StreamHandle,
};
use rand::TryRngCore;
use rand::rngs::OsRng;
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Neither side goes on for longer.
const PATIENCE: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der())?;
    let chain = vec![certificate.cert.der().clone()];
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone())?;

    let mut server = endpoint()?;
    server.listen(Some(ServerConfig::new(Identity::from_seed(random()?), chain, key)?))?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    let server = thread::spawn(move || drive(server, &socket, echo));

    let mut client = endpoint()?;
    client.connect(Instant::now(), ClientConfig::with_roots(roots)?, address, "localhost")?;
    let mut answer = Vec::new();
    drive(client, &UdpSocket::bind("127.0.0.1:0")?, |session, event| ask(session, event, &mut answer))?;
    server.join().map_err(|_| "the server panicked")??;

    writeln!(io::stdout(), "{}: OK", String::from_utf8(answer)?)?;
    Ok(())
}

/// What the client does: says a line, takes the answer, closes.
fn ask(session: &mut Session<'_>, event: &SessionEvent, answer: &mut Vec<u8>) -> Result<()> {
    match event {
        SessionEvent::Connected => {
            let stream = session.open_stream(Dir::Bi)?;
            session.stream(stream).write(b"hello over KWIK")?;
            session.stream(stream).finish()?;
        }
        SessionEvent::Stream(StreamEvent::Readable(stream)) => {
            if read(session, *stream, answer)? {
                session.close(Instant::now(), 0, "done");
            }
        }
        _ => {}
    }
    Ok(())
}

/// What the server does: gives back what comes, as it comes. Lines are shorter than the send buffer, so that a write
/// takes all of it; else a `Writable` event would tell when to go on.
fn echo(session: &mut Session<'_>, event: &SessionEvent) -> Result<()> {
    match event {
        SessionEvent::Stream(StreamEvent::Opened { dir }) => {
            session.accept_stream(*dir);
        }
        SessionEvent::Stream(StreamEvent::Readable(stream)) => {
            let mut line = Vec::new();
            let is_whole = read(session, *stream, &mut line)?;
            session.stream(*stream).write(&line)?;
            if is_whole {
                session.stream(*stream).finish()?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Takes what there is of a stream. Returns whether that was the end of it.
fn read(session: &mut Session<'_>, stream: StreamHandle, into: &mut Vec<u8>) -> Result<bool> {
    loop {
        match session.stream(stream).read(1024) {
            Ok(chunk) => into.extend_from_slice(&chunk.data),
            Err(ReadError::Finished) => return Ok(true),
            Err(ReadError::Blocked | ReadError::SessionClosed) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs an endpoint until one session has come and gone. `react` is the application.
fn drive(
    mut endpoint: Endpoint,
    socket: &UdpSocket,
    mut react: impl FnMut(&mut Session<'_>, &SessionEvent) -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut out, mut datagram) = (Vec::new(), vec![0; 65_535]);
    let mut is_over = false;
    while !is_over || !endpoint.is_idle() {
        while let Some(transmit) = endpoint.poll_transmit(Instant::now(), 1, &mut out) {
            socket.send_to(&out[..transmit.size], transmit.destination)?;
            out.clear();
        }
        if let Some((handle, event)) = endpoint.poll_event() {
            if let Some(mut session) = endpoint.session(handle) {
                eprintln!("{:?} {:?} {event:?}", end-Instant::now(), socket.local_addr()); react(&mut session, &event)?;
            }
            if let SessionEvent::Closed(reason) = event {
                writeln!(io::stdout(), "{}: {reason}", socket.local_addr()?)?;
                endpoint.release(Instant::now(), handle);
                is_over = true;
            }
            continue;
        }
        let now = Instant::now();
        let wait = endpoint.poll_timeout().map_or(end, |at| at.min(end)).saturating_duration_since(now);
        if now >= end {
            return Err("the other side is not there".into());
        }
        if wait.is_zero() {
            endpoint.handle_timeout(now);
            continue;
        }
        socket.set_read_timeout(Some(wait))?;
        match socket.recv_from(&mut datagram) {
            Ok((len, remote)) => {
                let meta = DatagramMeta { remote, local_ip: None, ecn: None };
                endpoint.handle_datagram(Instant::now(), meta, datagram[..len].into());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn endpoint() -> Result<Endpoint> {
    let unix_now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Endpoint::new(EndpointConfig::new(random()?, unix_now), Instant::now())?)
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
