//! What either end of the home path may do to the streams of the other.

use kwik_core::__test_exports::{MaxStreamData, MaxStreams, OpenStream, ResetStream, StopSending};
use kwik_core::{Dir, ErrorCode, StreamOffset, TransportCode};

use super::behaviour::{BehaviourRow, Cost, FLOOD, VIOLATION, When};

const CODE: ErrorCode = ErrorCode::Application(1);
const BEYOND: Cost = Cost::Code(TransportCode::STREAM_LIMIT);
const FINAL_SIZE: Cost = Cost::Code(TransportCode::FINAL_SIZE);

pub(super) const BEHAVIOURS: &[BehaviourRow] = &[
    ("a stream beyond the limit", When::Placed, BEYOND, |peer| {
        let stream = peer.own_stream(Dir::Bi, 128);
        peer.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
        false
    }),
    ("data of a stream beyond the limit", When::Placed, BEYOND, |peer| {
        let stream = peer.own_stream(Dir::Uni, (1 << 60) - 1);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("a stream of the peer's opened", When::Placed, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Bi, 0);
        peer.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
        false
    }),
    ("a stream reset that was never opened", When::Placed, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Bi, 90);
        peer.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) });
        false
    }),
    ("a stream stopped that was never opened", When::Placed, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Uni, 90);
        peer.say(StopSending { stream, code: CODE, conflict: None });
        false
    }),
    ("credit for a stream that was never opened", When::Placed, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Bi, 90);
        peer.say(MaxStreamData { stream, limit: StreamOffset(1 << 20) });
        false
    }),
    ("credit for a stream that only it writes", When::Placed, VIOLATION, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.say(MaxStreamData { stream, limit: StreamOffset(1 << 20) });
        false
    }),
    ("data on a stream that only the peer writes", When::Placed, VIOLATION, |peer| {
        let stream = peer.peer_stream(Dir::Uni, 0);
        peer.data(stream, 0, 1, false);
        false
    }),
    ("data a byte beyond the credit", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.data(stream, 16 << 20, 1, false);
        false
    }),
    ("an end beyond the credit", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.data(stream, (1 << 62) - 1, 0, true);
        false
    }),
    ("two ends of one stream", When::Placed, FINAL_SIZE, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.data(stream, 9, 1, true);
        peer.data(stream, 8, 1, true);
        false
    }),
    ("an end below what was sent", When::Placed, FINAL_SIZE, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.data(stream, 100, 1, false);
        peer.data(stream, 5, 1, true);
        false
    }),
    ("data beyond the end", When::Placed, FINAL_SIZE, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.data(stream, 5, 1, true);
        peer.data(stream, 6, 1, false);
        false
    }),
    ("a reset that takes back what was sent", When::Placed, FINAL_SIZE, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        if peer.tick == 0 {
            peer.data(stream, 100, 1, false);
        } else if peer.tick == 40 {
            peer.say(ResetStream { stream, code: CODE, final_size: StreamOffset(3) });
        }
        peer.tick < 40
    }),
    ("different bytes for one place", When::Placed, Cost::Stream(TransportCode::RANGE_CONFLICT), |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        peer.packet(&super::peer::stream_frame(stream, 10, b"yes", false));
        peer.packet(&super::peer::stream_frame(stream, 10, b"no!", false));
        false
    }),
    ("the same bytes for ever", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        (0..16).for_each(|_| peer.data(stream, 0, 16 * 1024, false));
        peer.tick < 200
    }),
    ("useless frames and repeated bytes in turns", When::Placed, FLOOD, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        for _ in 0..100 {
            peer.data(stream, 0, 0, false);
            peer.data(stream, 0, 1, false);
        }
        peer.tick < 100
    }),
    ("every other byte", When::Placed, Cost::Code(TransportCode::REASSEMBLY_LIMIT), |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        let first = 1 + u64::from(peer.tick) * 400;
        (first..first + 400).step_by(2).for_each(|at| peer.data(stream, at, 1, false));
        peer.tick < 20
    }),
    ("bytes of many streams, the first always missing", When::Placed, Cost::Nothing, |peer| {
        (0..128).for_each(|index| {
            let stream = peer.own_stream(Dir::Uni, index);
            peer.data(stream, 1, 16 * 1024 - 1, false);
        });
        false
    }),
    ("the same credit again and again", When::Placed, FLOOD, |peer| {
        let Some((stream, _)) = peer.place() else { return false };
        (0..100).for_each(|_| peer.say(MaxStreamData { stream, limit: StreamOffset(5) }));
        peer.tick < 100
    }),
    ("the same limit of streams again and again", When::Placed, FLOOD, |peer| {
        (0..100).for_each(|_| peer.say(MaxStreams { dir: Dir::Bi, max: 16 }));
        peer.tick < 100
    }),
    ("all the credit there is", When::Placed, Cost::Nothing, |peer| {
        let Some((stream, _)) = peer.place() else { return false };
        peer.say(MaxStreamData { stream, limit: StreamOffset((1 << 62) - 1) });
        peer.say(MaxStreams { dir: Dir::Uni, max: 1 << 60 });
        false
    }),
    ("one stream opened again and again", When::Placed, FLOOD, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        (0..100).for_each(|_| peer.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) }));
        peer.tick < 100
    }),
    ("one stream reset again and again", When::Placed, FLOOD, |peer| {
        let stream = peer.own_stream(Dir::Uni, 0);
        (0..100).for_each(|_| peer.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) }));
        peer.tick < 100
    }),
    ("one stream stopped again and again", When::Placed, FLOOD, |peer| {
        let Some((stream, _)) = peer.place() else { return false };
        (0..100).for_each(|_| peer.say(StopSending { stream, code: CODE, conflict: None }));
        peer.tick < 100
    }),
    ("streams opened and reset", When::Placed, Cost::Nothing, |peer| {
        // As many as the peer allows; its application lets go of them, so that it allows more, a little later.
        let last = peer.state.streams_uni;
        for index in peer.state.opened_uni..last {
            let stream = peer.own_stream(Dir::Uni, index);
            peer.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
            peer.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) });
        }
        peer.state.opened_uni = last;
        peer.tick < 1000
    }),
];
