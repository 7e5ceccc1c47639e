//! What the applications of a world have a habit of, beyond what every world has: honest ones must live with it.

use std::time::Duration;

use kwik_core::Limits;
use kwik_core::limits::Extreme;

use super::options::{ClientOptions, many_requests};
use crate::apps::{GiveUp, Header, ReadStyle, Request};
use crate::rng::SimRng;

/// Something that the programs of a world do, or are configured to, all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Readers take a part of what comes and then nothing for up to a minute.
    Pauses,
    /// Most of what is asked for is given up before it is there, by the dozen at once.
    Cancels,
    /// More than a thousand streams at once.
    Crowd,
    /// A host that never authenticates dials the first server without end.
    Flooded,
    /// Limits at their extremes.
    Extreme,
}

/// Limits that may be anything within their bounds without making an application fail: no time that the network needs, and
/// no number of sessions.
const FREE: &[&str] = &[
    "streams_bidi_max",
    "streams_uni_max",
    "reassembly_budget_bytes",
    "grants_session_max",
    "grants_path_max",
    "grant_spans_session",
    "command_bytes_max",
    "raw_packets_max",
    "raw_queue_bytes_max",
    "forged_signatures_burst",
    "forged_signatures_per_second",
    "control_queue_bytes_max",
    "no_op_frames_per_second",
    "endpoint_memory_max",
    "incoming_before_retry",
    "incoming_network_before_retry",
    "paths_max",
    "dials_parallel_max",
    "dials_per_minute_max",
    "stream_window_initial_bytes",
    "stream_window_bytes",
    "bandwidth_delay_bytes_max",
    "send_buffer_stream_bytes",
    "send_buffer_session_bytes",
    "streams_per_carrier",
    "carriers_max",
    "carrier_bytes_max",
    "accept_queue_streams",
    "stream_credit_refill",
    "reassembly_spans_stream",
    "reassembly_spans_session",
    "control_queue_frames_max",
    "no_op_frames_burst",
    "quic_receive_window_bytes",
    "quic_stream_receive_window_bytes",
];

impl Habit {
    pub(super) const ALL: [Self; 5] = [Self::Pauses, Self::Cancels, Self::Crowd, Self::Flooded, Self::Extreme];

    /// The habit of a world, if it has one. Some are rare, since they take long.
    pub(super) fn draw(seed: u64) -> Option<Self> {
        let rng = &mut SimRng::new(seed, &[0x4841]);
        let habit = if rng.below(4) == 0 { rng.pick(&Self::ALL).copied() } else { None };
        let one_in = match habit? {
            Self::Crowd => 4,
            Self::Flooded => 2,
            Self::Pauses | Self::Cancels | Self::Extreme => 1,
        };
        habit.filter(|_| rng.below(one_in) == 0)
    }

    /// What came of it, if a session was done in such a world. The applications note that of the others themselves.
    pub(super) fn result(self) -> Option<&'static str> {
        match self {
            Self::Flooded => Some("session done beside a flood"),
            Self::Extreme => Some("session done at extreme limits"),
            Self::Pauses | Self::Cancels | Self::Crowd => None,
        }
    }

    /// Has the clients follow the habit.
    pub(super) fn apply(self, seed: u64, clients: &mut [ClientOptions]) {
        let rng = &mut SimRng::new(seed, &[0x4842]);
        let sessions = clients.iter_mut().flat_map(|client| &mut client.sessions);
        match self {
            Self::Pauses => {
                sessions.flat_map(|session| &mut session.requests).take(4).for_each(|request| pause(rng, request))
            }
            Self::Cancels => sessions.for_each(|session| {
                let request = session.requests.first().cloned();
                session.requests.extend(request.into_iter().cycle().take(30));
                for request in session.requests.iter_mut().skip(1) {
                    cancel(rng, request);
                }
                session.parallel = 50;
                session.give_up = match rng.below(3) {
                    0 => None,
                    1 => Some(GiveUp::Every(Duration::from_millis(20 + rng.below(800)))),
                    _ => Some(GiveUp::AtAnAnswer),
                };
            }),
            Self::Crowd => sessions.take(1).for_each(|session| {
                session.requests = (0..25).flat_map(|_| many_requests(rng)).collect();
                session.parallel = session.requests.len();
            }),
            Self::Flooded | Self::Extreme => {}
        }
    }

    /// The limits of every node.
    pub(super) fn limits(self, seed: u64, mut limits: Limits) -> Limits {
        match self {
            Self::Crowd => {
                (limits.streams_bidi_max, limits.streams_uni_max) = (2048, 2048);
                limits.reassembly_budget_bytes = limits.reassembly_budget_bytes.max(4 * 2048 * 16 * 1024);
            }
            Self::Extreme => {
                let rng = &mut SimRng::new(seed, &[0x4843]);
                for _ in 0..1 + rng.below(FREE.len() as u64) {
                    let name = rng.pick(FREE).copied().unwrap_or_default();
                    let extreme = [Extreme::Least, Extreme::Small, Extreme::Huge, Extreme::Most][rng.index(4)];
                    let mut changed = limits.clone();
                    let field = changed.fields_mut().into_iter().find(|(known, _)| *known == name);
                    field.into_iter().for_each(|(_, field)| field.set(extreme));
                    // Some are out of bounds, and some contradict those drawn before.
                    if changed.check().is_ok() {
                        limits = changed;
                    }
                }
            }
            Self::Pauses | Self::Cancels | Self::Flooded => {}
        }
        limits
    }
}

/// Reads up to a quarter of a megabyte, and nothing for a long time.
fn pause(rng: &mut SimRng, request: &mut Request) {
    (request.up, request.down) = (request.up.max(Header::LEN as u64), 100_000 + rng.below(1_500_000));
    let after = (request.down / 3).max(1) + rng.below(200_000);
    let span = Duration::from_secs(1 + rng.below(60));
    request.read = ReadStyle { pause: Some((after, span)), stop: None, ..request.read };
    (request.reset_answer, request.reset_upload) = (None, None);
}

/// Wants the answer no more when a part of it came, or nothing; or does not finish its question.
fn cancel(rng: &mut SimRng, request: &mut Request) {
    match rng.below(4) {
        0 => {}
        1 => request.reset_upload = Some(1 + rng.below(request.up)),
        _ => (request.read.stop, request.pushes) = (Some((rng.below(request.down + 1), 7)), 0),
    }
}
