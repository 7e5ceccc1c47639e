//! A download from two servers: what most tests of the world run.

use std::time::Duration;

use bytes::Bytes;
use kwik_core::{Dir, PathTarget, ReadError, SessionEvent, SessionHandle, StreamHandle};
use kwik_sim::{NodeId, Pki, World, WorldConfig};

pub(crate) const NAME: &str = "server.test";

/// A client that reads one stream, of which the primary (server 0) writes the ends and the secondary (server 1) the
/// middle.
pub(crate) struct Download {
    pub(crate) world: World,
    pub(crate) pki: Pki,
    pub(crate) client: NodeId,
    pub(crate) servers: [NodeId; 2],
    pub(crate) read: Vec<u8>,
    pub(crate) finished: bool,
    dialled: SessionHandle,
    stream: StreamHandle,
    parts: [usize; 3],
    pub(crate) primary: Option<(SessionHandle, StreamHandle)>,
    /// Written by the primary so far, before and after the middle.
    wrote: [usize; 2],
    delegated: bool,
    parts_open: Vec<(SessionHandle, StreamHandle, usize)>,
    joined: Vec<SessionHandle>,
}

impl Download {
    pub(crate) fn new(config: WorldConfig, parts: [usize; 3]) -> Self {
        let mut world = World::with_config(config);
        let pki = world.pki(NAME);
        let client = world.add_client("10.0.0.1:5000".parse().expect("an address")).expect("it can be built");
        let primary =
            world.add_server("10.0.1.1:4433".parse().expect("an address"), pki.server(0)).expect("it can be built");
        let secondary =
            world.add_server("10.0.1.2:4433".parse().expect("an address"), pki.server(1)).expect("it can be built");
        let dialled = world.dial(client, primary, pki.client(), NAME).expect("it can be built");
        let mut session = world.session_mut(client, dialled).expect("just dialled");
        let stream = session.open_stream(Dir::Bi).expect("within limits");
        Self {
            world,
            pki,
            client,
            servers: [primary, secondary],
            read: Vec::new(),
            finished: false,
            dialled,
            stream,
            parts,
            primary: None,
            wrote: [0; 2],
            delegated: false,
            parts_open: Vec::new(),
            joined: Vec::new(),
        }
    }

    pub(crate) fn expected(&self) -> Vec<u8> {
        (0..self.parts.iter().sum()).map(byte_at).collect()
    }

    /// Runs for at most so long; returns whether the stream was read to its end.
    pub(crate) fn run(&mut self, limit: Duration) -> bool {
        // The world cannot be borrowed beside the state that acts on it.
        let mut world = std::mem::replace(&mut self.world, World::new(0));
        world.run_until(limit, |world| {
            self.act(world);
            self.finished
        });
        self.world = world;
        self.finished
    }

    fn act(&mut self, world: &mut World) {
        let [primary, secondary] = self.servers;
        while let Some((session, event)) = world.poll_event(primary) {
            if event == SessionEvent::Incoming && self.primary.is_none() {
                let target = PathTarget {
                    address: world.address(secondary),
                    server_name: NAME.to_owned(),
                    identity: self.pki.public_identity(1),
                };
                let now = world.now();
                let _ = world.session_mut(primary, session).expect("it just came").add_path(now, target);
            }
            if let Some(stream) = world.session_mut(primary, session).and_then(|mut view| view.accept_stream(Dir::Bi)) {
                self.primary = Some((session, stream));
            }
        }
        while let Some((session, event)) = world.poll_event(secondary) {
            if event == SessionEvent::Incoming {
                self.joined.push(session);
            }
        }
        self.serve(world);
        self.serve_part(world);
        while let Some(mut session) = world.session_mut(self.client, self.dialled) {
            match session.stream_mut(self.stream).read(usize::MAX) {
                Ok(chunk) => self.read.extend_from_slice(&chunk.data),
                Err(ReadError::Finished) => {
                    self.finished = true;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn serve(&mut self, world: &mut World) {
        let Some((session, stream)) = self.primary else { return };
        let Some(mut view) = world.session_mut(self.servers[0], session) else { return };
        let [before, middle, after] = self.parts;
        self.wrote[0] += write(&mut view.stream_mut(stream), self.wrote[0]..before);
        if self.wrote[0] < before {
            return;
        }
        if !self.delegated {
            let Some(path) = view.all_paths().last().map(|path| path.id).filter(|path| path.0 > 0) else { return };
            view.stream_mut(stream).delegate(path, middle as u64, Bytes::new()).expect("nobody wrote there");
            self.delegated = true;
        }
        let begin = before + middle + self.wrote[1];
        self.wrote[1] += write(&mut view.stream_mut(stream), begin..before + middle + after);
        if self.wrote[1] == after {
            let _ = view.stream_mut(stream).finish();
        }
    }

    fn serve_part(&mut self, world: &mut World) {
        for session in &self.joined {
            let Some(mut view) = world.session_mut(self.servers[1], *session) else { continue };
            while let Some(stream) = view.accept_stream(Dir::Bi) {
                self.parts_open.push((*session, stream, 0));
            }
        }
        for (session, stream, wrote) in &mut self.parts_open {
            let Some(mut view) = world.session_mut(self.servers[1], *session) else { continue };
            let mut view = view.stream_mut(*stream);
            let Some(grant) = view.view().grant() else { continue };
            let at = |offset: u64| usize::try_from(offset).expect("a short stream");
            let (start, end) = (at(grant.range.start), at(grant.range.end));
            *wrote += write(&mut view, start + *wrote..end);
        }
    }
}

fn write(stream: &mut kwik_core::StreamMut<'_>, range: std::ops::Range<usize>) -> usize {
    let mut written = 0;
    while written < range.len() {
        let data: Vec<u8> = (range.start + written..range.end).take(16 * 1024).map(byte_at).collect();
        match stream.write(&data) {
            Ok(taken) if taken > 0 => written += taken,
            _ => break,
        }
    }
    written
}

pub(crate) fn byte_at(offset: usize) -> u8 {
    (offset as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]
}
