//! What one side of a round is told to do, and what it tells back. Each is one line of JSON.

use std::net::SocketAddr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// The implementations that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Library {
    Kwik,
    Quinn,
    Noq,
}

impl Library {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kwik => "kwik",
            Self::Quinn => "quinn",
            Self::Noq => "noq",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// The server sends one stream in each session.
    Bulk,
    /// The client sends one stream in each session.
    Upload,
    /// One message back and forth on one stream.
    Rr,
    /// Streams with a small request and a small reply.
    Streams,
    /// A session for each download of 256 KiB.
    Dial,
    /// Sessions that do nothing.
    Idle,
    /// A message back and forth in one session, beside four that download.
    Mixed,
}

/// All that the two processes of a round need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) library: Library,
    pub(crate) workload: Workload,
    /// The same settings for all libraries instead of the defaults of each.
    pub(crate) is_equal: bool,
    /// Threads of the runtime. 1 is a runtime of the current thread.
    pub(crate) threads: usize,
    pub(crate) sessions: usize,
    /// Of each session.
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
    /// Payload of a message, a request and a reply.
    pub(crate) message_bytes: usize,
    pub(crate) concurrency: usize,
    /// How long sessions are left idle.
    pub(crate) idle_seconds: u64,
}

/// Where a server listens, and the certificate it shows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerAddress {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Vec<u8>,
}

/// The client has its sessions and waits to be told to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Before the first session.
    pub(crate) before: Usage,
    pub(crate) dial_seconds: f64,
}

/// What the client measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Payload that was carried.
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
    /// UDP datagrams in both directions; `None` if the library does not count them.
    pub(crate) datagrams: Option<u64>,
    /// Of one operation, where each is timed.
    pub(crate) latency: Option<Latency>,
    pub(crate) phases: Option<Phases>,
    pub(crate) begin: Usage,
    pub(crate) end: Usage,
}

/// The parts of a dial.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Phases {
    pub(crate) connect: Latency,
    pub(crate) transfer: Latency,
    pub(crate) close: Latency,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
}

/// The beginning of a stream says what the server is to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send so many bytes and finish.
    Download(u64),
    /// Read to the end and tell how many bytes came.
    Upload,
    /// Send back every message of so many bytes.
    Echo(u64),
}

impl Request {
    pub(crate) const BYTES: usize = 9;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let (kind, number) = match self {
            Self::Download(bytes) => (0, bytes),
            Self::Upload => (1, 0),
            Self::Echo(bytes) => (2, bytes),
        };
        let mut to = [kind; Self::BYTES];
        to[1..].copy_from_slice(&number.to_be_bytes());
        to
    }

    pub(crate) fn from_bytes(from: [u8; Self::BYTES]) -> Option<Self> {
        let [kind, number @ ..] = from;
        let number = u64::from_be_bytes(number);
        match kind {
            0 => Some(Self::Download(number)),
            1 => Some(Self::Upload),
            2 => Some(Self::Echo(number)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for request in [Request::Download(u64::MAX), Request::Upload, Request::Echo(1024)] {
            assert_eq!(Request::from_bytes(request.to_bytes()), Some(request));
        }
        assert_eq!(Request::from_bytes([3; Request::BYTES]), None);
    }
}
