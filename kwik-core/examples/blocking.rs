//! All the environment that the machine needs: a UDP socket, a clock, and one loop that blocks. A server and a client,
//! each on its own thread: the client sends a line, the server echoes it, both close.
//!
//! `cargo run -p kwik-core --example blocking`
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the machine has no clock, socket and thread; this is the environment that brings them"
)]

use std::io::{self, ErrorKind, Write};
use std::net::UdpSocket;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kwik_core::{
    ClientConfig, DatagramMeta, Dir, Endpoint, EndpointConfig, Identity, ReadError, ServerConfig, SessionEvent,
    SessionMut, StreamEvent, StreamMut,
};
use rand::{TryRngCore, rngs::OsRng};
use rustls::{RootCertStore, pki_types::PrivateKeyDer};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const LINE: &str = "hello over KWIK";
/// Neither side goes on for longer.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let server = std::thread::spawn(move || drive(server, &socket, echo));

    let mut client = endpoint()?;
    client.connect(Instant::now(), ClientConfig::with_roots(roots)?, address, "localhost")?;
    let mut answer = Vec::new();
    drive(client, &UdpSocket::bind("127.0.0.1:0")?, |session, event| ask(session, event, &mut answer))?;
    server.join().map_err(|_| "the server panicked")??;

    assert_eq!(str::from_utf8(&answer)?, LINE, "an echo is what was sent");
    Ok(writeln!(io::stdout(), "{LINE}\nOK")?)
}

/// The client says a line, takes the answer, and closes.
fn ask(session: &mut SessionMut<'_>, event: &SessionEvent, answer: &mut Vec<u8>) -> Result<()> {
    if let SessionEvent::Connected = event {
        let stream = session.open_stream(Dir::Bi)?;
        session.stream_mut(stream).write(LINE.as_bytes())?;
        session.stream_mut(stream).finish()?;
    } else if let SessionEvent::Stream(StreamEvent::Readable(stream)) = event
        && read(&mut session.stream_mut(*stream), answer)?
    {
        session.close(Instant::now(), 0, "done");
    }
    Ok(())
}

/// The server gives back what comes, as it comes. Lines fit in the send buffer; a longer answer would go on when a
/// `Writable` event says so.
fn echo(session: &mut SessionMut<'_>, event: &SessionEvent) -> Result<()> {
    if let SessionEvent::Stream(StreamEvent::Opened { dir }) = event {
        session.accept_stream(*dir);
    } else if let SessionEvent::Stream(StreamEvent::Readable(stream)) = event {
        let mut line = Vec::new();
        let mut stream = session.stream_mut(*stream);
        let is_whole = read(&mut stream, &mut line)?;
        stream.write(&line)?;
        if is_whole {
            stream.finish()?;
        }
    }
    Ok(())
}

/// Takes what there is of a stream. Returns whether that was the end of it.
fn read(stream: &mut StreamMut<'_>, into: &mut Vec<u8>) -> Result<bool> {
    loop {
        match stream.read(1024) {
            Ok(chunk) => into.extend_from_slice(&chunk.data),
            Err(ReadError::Finished) => return Ok(true),
            Err(ReadError::Blocked) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs an endpoint until a session has come and gone. `react` is the application; the end of a session wakes whatever
/// waits on its streams, which is nothing here.
fn drive(
    mut endpoint: Endpoint,
    socket: &UdpSocket,
    mut react: impl FnMut(&mut SessionMut<'_>, &SessionEvent) -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut out, mut datagram, mut is_over) = (Vec::new(), vec![0; 65_535], false);
    loop {
        while let Some(transmit) = endpoint.poll_transmit(Instant::now(), 1, &mut out) {
            socket.send_to(&out[..transmit.size], transmit.destination)?;
            out.clear();
        }
        if let Some((handle, event)) = endpoint.poll_event() {
            if let SessionEvent::Closed(_) = event {
                endpoint.release(Instant::now(), handle);
                is_over = true;
            } else if let Some(mut session) = endpoint.session_mut(handle).filter(|it| it.close_reason().is_none()) {
                react(&mut session, &event)?;
            }
            continue;
        }
        let now = Instant::now();
        if is_over && endpoint.is_idle() {
            return Ok(());
        } else if now >= end {
            return Err("the other side is not there".into());
        }
        let wait = endpoint.poll_timeout().map_or(end, |at| at.min(end)).saturating_duration_since(now);
        if wait.is_zero() {
            endpoint.handle_timeout(now);
            continue;
        }
        socket.set_read_timeout(Some(wait))?;
        match socket.recv_from(&mut datagram) {
            Ok((len, remote)) => {
                let meta = DatagramMeta { remote, local_ip: None, ecn: None };
                endpoint.handle_datagram(Instant::now(), meta, &datagram[..len]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
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
