//! One server, as the client knows it: its connection, what it fetches there, and what that brought of late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quinn_proto::{Connection, Dir, ReadError, StreamId, VarInt};

use super::object::Object;
use super::serve::request;

/// A source.
pub(super) struct Source {
    /// The number of its connection.
    pub(super) number: usize,
    state: State,
    under_way: Vec<Fetch>,
    /// When bytes came from it, or it was asked for something while it had nothing to bring, whichever was last.
    busy_since: Instant,
    /// How many STREAM frames came from it. They tell of bytes that wait for lost ones before them, and cannot be read yet.
    frames: u64,
    /// Whether it ever brought a byte.
    pub(super) is_known: bool,
    /// What it brought in the last second.
    recent: VecDeque<(Instant, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Dialled,
    Usable,
    /// It brought nothing for too long, when so many bytes had come from it.
    Silent(u64),
    Lost,
}

/// A piece that a source fetches.
struct Fetch {
    piece: usize,
    stream: StreamId,
    /// How many bytes of it came.
    came: u64,
}

/// What became of a fetch.
enum Outcome {
    GoesOn,
    Whole,
    Failed,
}

impl Source {
    /// A source with something to bring stalls if nothing comes for so long. Its rate is that of the same time.
    const SPAN: Duration = Duration::from_secs(1);

    pub(super) fn new(number: usize, now: Instant) -> Self {
        Self {
            number,
            state: State::Dialled,
            under_way: Vec::new(),
            busy_since: now,
            frames: 0,
            is_known: false,
            recent: VecDeque::new(),
        }
    }

    /// Whether it may be asked for pieces.
    pub(super) fn is_usable(&self) -> bool {
        self.state == State::Usable
    }

    /// How many pieces it fetches.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// When it will have brought nothing for too long; `None` if it has nothing to bring.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        let is_busy = self.is_usable() && !self.under_way.is_empty();
        is_busy.then(|| self.busy_since + Self::SPAN)
    }

    /// What it brought in the last second, in bytes.
    pub(super) fn rate(&mut self, now: Instant) -> u64 {
        while self.recent.front().is_some_and(|(at, _)| *at + Self::SPAN <= now) {
            self.recent.pop_front();
        }
        self.recent.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The handshake is done.
    pub(super) fn on_connected(&mut self) {
        self.state = State::Usable;
    }

    /// The connection is over, and so is what it fetched.
    pub(super) fn on_lost(&mut self, object: &mut Object) {
        self.state = State::Lost;
        self.under_way.drain(..).for_each(|fetch| object.end(fetch.piece));
    }

    /// Asks for a piece on a stream of its own. Returns whether QUIC allowed one.
    pub(super) fn begin(&mut self, now: Instant, quic: &mut Connection, object: &mut Object, piece: usize) -> bool {
        let Some(stream) = quic.streams().open(Dir::Bi) else { return false };
        let request = request(&object.range(piece));
        let mut send = quic.send_stream(stream);
        let written = send.write(&request);
        assert_eq!(written.ok(), Some(request.len()), "a window has room for a request");
        let _ = send.finish();
        if self.under_way.is_empty() {
            self.busy_since = now;
        }
        object.begin(piece);
        self.under_way.push(Fetch { piece, stream, came: 0 });
        true
    }

    /// Reads what came, and gives the pieces that are whole with it.
    pub(super) fn read(&mut self, now: Instant, quic: &mut Connection, object: &mut Object) -> Vec<usize> {
        let (mut whole, mut brought) = (Vec::new(), 0);
        self.under_way.retain_mut(|fetch| {
            let before = fetch.came;
            let outcome = fetch.read(now, quic, object);
            brought += fetch.came - before;
            if let Outcome::GoesOn = outcome {
                return true;
            }
            object.end(fetch.piece);
            if let Outcome::Whole = outcome {
                whole.push(fetch.piece);
            }
            false
        });
        let frames = quic.stats().frame_rx.stream;
        if frames > self.frames {
            self.frames = frames;
            self.busy_since = now;
        }
        if brought > 0 {
            self.is_known = true;
            // Forgets what is too old.
            self.rate(now);
            self.recent.push_back((now, brought));
        }
        whole
    }

    /// Stops a piece, if it fetches it.
    pub(super) fn stop(&mut self, quic: &mut Connection, object: &mut Object, piece: usize) {
        self.stop_those(quic, object, |fetch| fetch.piece == piece);
    }

    /// It stalled: stops all its pieces, and asks for none until something comes from it.
    pub(super) fn leave(&mut self, quic: &mut Connection, object: &mut Object) {
        self.stop_those(quic, object, |_| true);
        self.state = State::Silent(quic.stats().udp_rx.bytes);
    }

    /// Takes it up again if it stalled and something came from it since. Of stopped streams nothing is ever read, so the
    /// connection's own count tells.
    pub(super) fn take_up(&mut self, quic: &Connection) {
        if let State::Silent(bytes) = self.state
            && quic.stats().udp_rx.bytes > bytes
        {
            self.state = State::Usable;
        }
    }

    fn stop_those(&mut self, quic: &mut Connection, object: &mut Object, wanted: impl Fn(&Fetch) -> bool) {
        self.under_way.retain(|fetch| {
            let is_wanted = wanted(fetch);
            if is_wanted {
                let _ = quic.recv_stream(fetch.stream).stop(VarInt::from_u32(0));
                object.end(fetch.piece);
            }
            !is_wanted
        });
    }
}

impl Fetch {
    fn read(&mut self, now: Instant, quic: &mut Connection, object: &mut Object) -> Outcome {
        let mut recv = quic.recv_stream(self.stream);
        let Ok(mut chunks) = recv.read(true) else { return Outcome::Failed };
        let outcome = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    object.on_bytes(now, self.piece, self.came, &chunk.bytes);
                    self.came += chunk.bytes.len() as u64;
                }
                Ok(None) => break Outcome::Whole,
                Err(ReadError::Blocked) => break Outcome::GoesOn,
                Err(ReadError::Reset(_)) => break Outcome::Failed,
            }
        };
        let _ = chunks.finalize();
        outcome
    }
}
