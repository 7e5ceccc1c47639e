//! A node that says what bytes make of it: for fuzzing, where the bytes are sought and not drawn.

use bytes::Bytes;
use kwik_core::__test_exports::inside::Input;
use kwik_core::__test_exports::{
    AddPath, Close, Grant, GrantEnd, GrantOpen, GrantStatus, GrantStatusFrame, Lease, MaxStreamData, MaxStreams,
    OpenStream, PacketAck, PathStatus, Raw, RawForward, RawStatus, RemovePath, ResetStream, Revoke, StopSending,
    WirePathState, sign_grant, sign_raw,
};
use kwik_core::{Dir, Epoch, ErrorCode, GrantId, PathId, StreamId, StreamOffset, TransportCode};

use super::behaviour::{Behaviour, Cost, PeerRole, When};
use super::peer::{PeerContext, frame, stream_frame};

/// How much of a script one thing to say is made of, at most.
const WORD: usize = 24;
/// Things said at a time.
const WORDS: usize = 8;

impl Behaviour {
    /// To say what the node's script has, from that moment on.
    #[must_use]
    pub fn scripted(role: PeerRole, when: When) -> Self {
        Self { name: "what its script says", role, when, cost: Cost::Anything, act }
    }
}

fn act(peer: &mut PeerContext<'_>) -> bool {
    for _ in 0..WORDS {
        let word = peer.script.take(WORD);
        if word.is_empty() {
            return false;
        }
        say(peer, &mut Input::new(&word));
    }
    true
}

fn say(peer: &mut PeerContext<'_>, input: &mut Input<'_>) {
    match input.byte() % 8 {
        0 => {
            let kind = input.number();
            let body = input.take(usize::MAX).to_vec();
            peer.control(&frame(kind, &body));
        }
        1 => peer.control(input.take(usize::MAX)),
        2 => peer.carry(input.take(usize::MAX)),
        3 => {
            let stream = stream(peer, input);
            let (offset, len) = (input.number(), input.below(2000));
            peer.data(stream, offset, len, input.byte().is_multiple_of(4));
        }
        4 => {
            let frames =
                [stream_frame(stream(peer, input), input.number(), input.take(8), false), carried(peer, input)];
            peer.packet(&frames.concat());
        }
        5 => peer.acknowledge(),
        _ => control(peer, input),
    }
}

fn stream(peer: &PeerContext<'_>, input: &mut Input<'_>) -> StreamId {
    let dir = if input.byte().is_multiple_of(2) { Dir::Bi } else { Dir::Uni };
    match input.byte() % 4 {
        0 => peer.own_stream(dir, input.number() % (1 << 60)),
        1 => peer.peer_stream(dir, input.number() % (1 << 60)),
        _ => peer.place().map_or(StreamId(0), |(stream, _)| stream),
    }
}

fn code(input: &mut Input<'_>) -> ErrorCode {
    ErrorCode::from_wire(TransportCode::NO_ERROR.0.saturating_add(input.number()) % (1 << 62))
}

/// Something for the data plane that is no bytes of a stream.
fn carried(peer: &mut PeerContext<'_>, input: &mut Input<'_>) -> Vec<u8> {
    let (path, sequence) = (PathId(u32::from(input.byte() % 3)), input.number() % (1 << 62));
    let (session, to) = (peer.session(), peer.state.path);
    if input.byte().is_multiple_of(2) {
        let (grant, stream, start) = (GrantId(input.number() % (1 << 62)), stream(peer, input), input.below(1 << 16));
        let len = 1 + input.below(4096);
        let signed = sign_grant(peer.key, (session, to, sequence), (grant, stream, start..start + len), Bytes::new());
        let (epoch, start, limit) = (Epoch(1), StreamOffset(start), StreamOffset(1 << 20));
        return GrantOpen { grant, epoch, stream, start, len, limit, signed }.encode().to_vec();
    }
    let signed = sign_raw(peer.key, (session, path, to, sequence), Bytes::from_static(b"raw"));
    RawForward { from: path, forwarded_ticket: Bytes::new(), signed }.encode().to_vec()
}

/// A well-formed frame of any kind.
fn control(peer: &mut PeerContext<'_>, input: &mut Input<'_>) {
    let kind = input.byte() % 17;
    let small = |input: &mut Input<'_>| input.number() % (1 << 62);
    let path = PathId(u32::from(input.byte() % 4));
    let (grant, epoch) = (GrantId(u64::from(input.byte())), Epoch(small(input)));
    let stream = stream(peer, input);
    let (session, own) = (peer.session(), peer.state.path);
    match kind {
        0 => peer.say(OpenStream { stream, priority: i32::from(input.byte()), limit: StreamOffset(small(input)) }),
        1 => peer.say(ResetStream { stream, code: code(input), final_size: StreamOffset(small(input)) }),
        2 => peer.say(StopSending { stream, code: code(input), conflict: None }),
        3 => peer.say(MaxStreamData { stream, limit: StreamOffset(small(input)) }),
        4 => peer.say(MaxStreams { dir: Dir::Bi, max: input.number() % (1 << 60) }),
        5 => {
            let start = input.below(1 << 12);
            let end = start + 1 + input.below(64);
            peer.say(PacketAck { ranges: std::iter::once(start..end).collect() });
        }
        6 => peer.say(Revoke { grant, epoch }),
        7 => {
            let status = match input.byte() % 3 {
                0 => GrantStatus::Progress { delivered: small(input) },
                1 => GrantStatus::Delivered,
                _ => {
                    let start = input.below(1 << 14);
                    let missing = std::iter::once(start..start + 1 + input.below(1 << 14)).collect();
                    GrantStatus::Lost { code: code(input), missing }
                }
            };
            peer.say(GrantStatusFrame { grant, status });
        }
        8 => peer.say(GrantEnd { grant, end: StreamOffset(small(input)), code: code(input) }),
        9 => {
            let (to, sequence) = (path, small(input));
            let signed = sign_raw(peer.key, (session, own, to, sequence), Bytes::from_static(b"raw"));
            peer.say(Raw { to, signed });
        }
        10 => peer.say(RawStatus { from: path, to: own, sequence: small(input), code: code(input) }),
        11 => {
            let state =
                [WirePathState::Active, WirePathState::Suspect, WirePathState::Dead][usize::from(input.byte() % 3)];
            let (rtt, rate, bytes) = (std::time::Duration::from_millis(5), small(input), small(input));
            peer.say(PathStatus { path, state, code: code(input), rtt, rtt_min: rtt, rate, bytes });
        }
        12 => peer.say(RemovePath { path, epoch, code: code(input) }),
        13 => {
            let secondary = peer.key.public();
            let Some(ticket) = peer.ticket(path, secondary, "server.test") else { return };
            let address = std::net::SocketAddr::from(([10, 0, 2, input.byte()], 4433));
            let identity = *secondary.as_bytes();
            peer.say(AddPath { path, epoch, address, server_name: "server.test".to_owned(), identity, ticket });
        }
        14 => {
            let (start, len, sequence) = (input.below(1 << 16), 1 + input.below(1 << 14), small(input));
            let signed =
                sign_grant(peer.key, (session, path, sequence), (grant, stream, start..start + len), Bytes::new());
            peer.say(Grant { grant, epoch, path, stream, start: StreamOffset(start), len, signed });
        }
        15 => peer.say(Lease { path, issued_at_ms: small(input), signature: [input.byte(); 64] }),
        _ => peer.say(Close { code: code(input), reason: "over".to_owned() }),
    }
}
