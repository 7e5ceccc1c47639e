//! What happened in a world, as text that is the same in every run of the same seed.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::disturbance::Disturbance;
use crate::node::NodeId;

/// What became of a datagram when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Delivery {
    /// It will arrive.
    Arrives,
    /// It will arrive, later than others sent after it.
    Late,
    /// It will arrive with wrong bits.
    Corrupted,
    /// A second copy of the one before.
    Duplicate,
    /// Lost at random.
    Lost,
    /// Lost in a burst.
    LostInBurst,
    /// Lost since the queue was full.
    QueueFull,
    /// Lost since it was larger than the link carries.
    TooBig,
    /// Lost since the link is down, partitioned or a black hole.
    Blocked,
    /// The socket refused to send it.
    SendError,
}

impl Delivery {
    /// Whether nothing of it arrives.
    #[must_use]
    pub fn is_loss(self) -> bool {
        !matches!(self, Self::Arrives | Self::Late | Self::Corrupted | Self::Duplicate)
    }

    /// Its name in a trace.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrives => "arrives",
            Self::Late => "late",
            Self::Corrupted => "corrupted",
            Self::Duplicate => "duplicate",
            Self::Lost => "lost",
            Self::LostInBurst => "lost-in-burst",
            Self::QueueFull => "queue-full",
            Self::TooBig => "too-big",
            Self::Blocked => "blocked",
            Self::SendError => "send-error",
        }
    }
}

/// One thing that happened at a node.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceKind {
    /// A datagram was sent.
    Sent {
        /// Where to.
        to: NodeId,
        /// UDP payload.
        bytes: usize,
        /// What became of it.
        delivery: Delivery,
    },
    /// A datagram arrived.
    Arrived {
        /// Where from.
        from: NodeId,
        /// UDP payload.
        bytes: usize,
    },
    /// A session notified its application.
    Session {
        /// The session's index at the node.
        session: u64,
        /// Of what.
        text: String,
    },
    /// The world did something to the node.
    Disturbance {
        /// What it did.
        disturbance: Box<Disturbance>,
    },
    /// Where a path of a client stands.
    Path {
        /// The session's index at the node.
        session: u64,
        /// The path.
        path: u32,
        /// The node at its far end; `None` if nobody is there any more.
        server: Option<NodeId>,
        /// Its state.
        state: String,
        /// Payload carried so far, both ways.
        bytes: u64,
        /// Its round trip.
        rtt: Duration,
    },
    /// A range of a stream arrived at a client for the first time, and this path brought it.
    Supplied {
        /// The session's index at the node.
        session: u64,
        /// The stream's id.
        stream: u64,
        /// First offset.
        start: u64,
        /// One past the last offset.
        end: u64,
        /// The path.
        path: u32,
    },
    /// Anything else worth a line.
    Note {
        /// The line.
        text: String,
    },
}

impl TraceKind {
    /// Whether this only tells what was so: there is none in a world that is not watched.
    #[must_use]
    pub fn is_observation(&self) -> bool {
        matches!(self, Self::Path { .. } | Self::Supplied { .. })
    }
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceEvent {
    /// When, since the world began.
    pub at: Duration,
    /// Counts the events of a world. An observation has the number of the event after it.
    pub seq: u64,
    /// Where.
    pub node: NodeId,
    /// What.
    pub kind: TraceKind,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Vec::new();
        self.write_line(&mut line);
        f.write_str(&String::from_utf8_lossy(&line))
    }
}

impl TraceEvent {
    /// Appends the line, without its end. Most lines are about datagrams, so this avoids the machinery of `fmt`, and text
    /// where bytes will do.
    fn write_line(&self, line: &mut Vec<u8>) {
        push_time(line, self.at);
        push_number(line, " #", self.seq);
        push_number(line, " n", self.node.0 as u64);
        match &self.kind {
            TraceKind::Sent { to, bytes, delivery } => {
                push_number(line, " sent n", to.0 as u64);
                push_number(line, " ", *bytes as u64);
                line.push(b' ');
                line.extend_from_slice(delivery.name().as_bytes());
            }
            TraceKind::Arrived { from, bytes } => {
                push_number(line, " arrived n", from.0 as u64);
                push_number(line, " ", *bytes as u64);
            }
            TraceKind::Session { session, text } => {
                push_number(line, " session ", *session);
                push_text(line, text);
            }
            TraceKind::Disturbance { disturbance } => {
                line.extend_from_slice(b" disturbance");
                push_text(line, &format!("{disturbance:?}"));
            }
            TraceKind::Path { session, path, server, state, bytes, rtt } => {
                push_number(line, " session ", *session);
                push_number(line, " path ", u64::from(*path));
                if let Some(server) = server {
                    push_number(line, " to n", server.0 as u64);
                }
                push_text(line, state);
                push_number(line, " bytes ", *bytes);
                line.extend_from_slice(b" rtt ");
                push_time(line, *rtt);
            }
            TraceKind::Supplied { session, stream, start, end, path } => {
                push_number(line, " session ", *session);
                push_number(line, " stream ", *stream);
                push_number(line, " supplied ", *start);
                push_number(line, "..", *end);
                push_number(line, " path ", u64::from(*path));
            }
            TraceKind::Note { text } => {
                line.extend_from_slice(b" note");
                push_text(line, text);
            }
        }
    }
}

fn push_time(line: &mut Vec<u8>, time: Duration) {
    push_number(line, "", time.as_secs());
    let mut nanos = time.subsec_nanos();
    let mut digits = *b".000000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit = last_digit(nanos.into());
        nanos /= 10;
    }
    line.extend_from_slice(&digits);
}

fn push_number(line: &mut Vec<u8>, before: &str, mut number: u64) {
    line.extend_from_slice(before.as_bytes());
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = last_digit(number);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[start..]);
}

fn last_digit(number: u64) -> u8 {
    b"0123456789"[(number % 10) as usize]
}

/// One event is one line, whatever a peer put into a reason.
fn push_text(line: &mut Vec<u8>, text: &str) {
    line.push(b' ');
    let begin = line.len();
    line.extend_from_slice(text.as_bytes());
    if text.contains(char::is_control) {
        line.truncate(begin);
        let clean: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        line.extend_from_slice(clean.as_bytes());
    }
}

/// The events of a world: all that happened goes into a hash, and the last events are kept on demand. What is only looked
/// at is no part of the hash, so that a run has the same one however closely it was watched.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    count: u64,
    keep: usize,
    events: VecDeque<TraceEvent>,
    line: Vec<u8>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hash: 0x4B57_494B, count: 0, keep: 0, events: VecDeque::new(), line: Vec::new() }
    }
}

impl Trace {
    /// Keeps the last `events` events from now on; a world begins with keeping none.
    pub fn keep(&mut self, events: usize) {
        self.keep = events;
        while self.events.len() > events {
            self.events.pop_front();
        }
    }

    /// Adds an event.
    pub fn push(&mut self, at: Duration, node: NodeId, kind: TraceKind) {
        let event = TraceEvent { at, seq: self.count, node, kind };
        if !event.kind.is_observation() {
            self.count += 1;
            self.line.clear();
            event.write_line(&mut self.line);
            self.hash = mix_line(self.hash, &self.line);
        }
        if self.keep > 0 {
            if self.events.len() >= self.keep {
                self.events.pop_front();
            }
            self.events.push_back(event);
        }
    }

    /// A hash over the lines of all events so far, kept or not, but for observations.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were, kept or not, but for observations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether nothing happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The events that are kept, the oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &TraceEvent> {
        self.events.iter()
    }
}

/// Eight bytes at a time; the length goes in with the rest, so that no two texts share their words.
fn mix_line(hash: u64, line: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut hash = mix(hash, line.len() as u64);
    let (words, rest) = line.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash = mix(hash, u64::from_le_bytes(last));
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(bytes: usize) -> TraceKind {
        TraceKind::Sent { to: NodeId(2), bytes, delivery: Delivery::Arrives }
    }

    #[test]
    fn lines_are_stable() {
        let mut trace = Trace::default();
        trace.keep(10);
        trace.push(Duration::from_micros(1_020_300), NodeId(1), sent(1200));
        trace.push(Duration::ZERO, NodeId(0), TraceKind::Note { text: "two\nlines".into() });
        let path = TraceKind::Path {
            session: 3,
            path: 1,
            server: Some(NodeId(2)),
            state: "Active".into(),
            bytes: u64::MAX,
            rtt: Duration::from_millis(40),
        };
        trace.push(Duration::ZERO, NodeId(0), path);
        let supplied = TraceKind::Supplied { session: 0, stream: 4, start: 10, end: 20, path: 2 };
        trace.push(Duration::ZERO, NodeId(0), supplied);
        let lines: Vec<_> = trace.events().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "1.020300000 #0 n1 sent n2 1200 arrives",
                "0.000000000 #1 n0 note two lines",
                "0.000000000 #2 n0 session 3 path 1 to n2 Active bytes 18446744073709551615 rtt 0.040000000",
                "0.000000000 #2 n0 session 0 stream 4 supplied 10..20 path 2",
            ]
        );
    }

    #[test]
    fn hash_depends_on_every_event_and_not_on_what_is_kept() {
        let run = |keep, last| {
            let mut trace = Trace::default();
            trace.keep(keep);
            for bytes in [1, 2, last] {
                trace.push(Duration::ZERO, NodeId(1), sent(bytes));
            }
            (trace.hash(), trace.events().count())
        };
        assert_eq!(run(0, 3).0, run(2, 3).0);
        assert_eq!(run(2, 3).1, 2);
        assert_eq!(run(0, 3).1, 0);
        assert_ne!(run(0, 3).0, run(0, 4).0);
    }
}
