//! What either end of the home path may do to the streams of the other.

use kwik_core::__test_exports::{MaxStreamData, MaxStreams, OpenStream, ResetStream, StopSending};
use kwik_core::{Dir, ErrorCode, StreamOffset, TransportCode};

use super::behaviour::{Cost, FLOOD, Row, VIOLATION, When};

const CODE: ErrorCode = ErrorCode::Application(1);
const BEYOND: Cost = Cost::Code(TransportCode::STREAM_LIMIT);
const FINAL_SIZE: Cost = Cost::Code(TransportCode::FINAL_SIZE);

pub(super) const ROWS: &[Row] = &[
    ("a stream beyond the limit", When::Placed, BEYOND, |stage| {
        let stream = stage.own_stream(Dir::Bi, 128);
        stage.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
        false
    }),
    ("data of a stream beyond the limit", When::Placed, BEYOND, |stage| {
        let stream = stage.own_stream(Dir::Uni, (1 << 60) - 1);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("a stream of the peer's opened", When::Placed, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Bi, 0);
        stage.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
        false
    }),
    ("a stream reset that was never opened", When::Placed, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Bi, 90);
        stage.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) });
        false
    }),
    ("a stream stopped that was never opened", When::Placed, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Uni, 90);
        stage.say(StopSending { stream, code: CODE, conflict: None });
        false
    }),
    ("credit for a stream that was never opened", When::Placed, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Bi, 90);
        stage.say(MaxStreamData { stream, limit: StreamOffset(1 << 20) });
        false
    }),
    ("credit for a stream that only it writes", When::Placed, VIOLATION, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.say(MaxStreamData { stream, limit: StreamOffset(1 << 20) });
        false
    }),
    ("data on a stream that only the peer writes", When::Placed, VIOLATION, |stage| {
        let stream = stage.peer_stream(Dir::Uni, 0);
        stage.data(stream, 0, 1, false);
        false
    }),
    ("data a byte beyond the credit", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.data(stream, 16 << 20, 1, false);
        false
    }),
    ("an end beyond the credit", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.data(stream, (1 << 62) - 1, 0, true);
        false
    }),
    ("two ends of one stream", When::Placed, FINAL_SIZE, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.data(stream, 9, 1, true);
        stage.data(stream, 8, 1, true);
        false
    }),
    ("an end below what was sent", When::Placed, FINAL_SIZE, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.data(stream, 100, 1, false);
        stage.data(stream, 5, 1, true);
        false
    }),
    ("data beyond the end", When::Placed, FINAL_SIZE, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.data(stream, 5, 1, true);
        stage.data(stream, 6, 1, false);
        false
    }),
    ("a reset that takes back what was sent", When::Placed, FINAL_SIZE, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        if stage.tick == 0 {
            stage.data(stream, 100, 1, false);
        } else if stage.tick == 40 {
            stage.say(ResetStream { stream, code: CODE, final_size: StreamOffset(3) });
        }
        stage.tick < 40
    }),
    ("different bytes for one place", When::Placed, Cost::Stream(TransportCode::RANGE_CONFLICT), |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        stage.packet(&super::stage::stream_frame(stream, 10, b"yes", false));
        stage.packet(&super::stage::stream_frame(stream, 10, b"no!", false));
        false
    }),
    ("the same bytes for ever", When::Placed, Cost::Code(TransportCode::FLOW_CONTROL), |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        (0..16).for_each(|_| stage.data(stream, 0, 16 * 1024, false));
        stage.tick < 200
    }),
    ("useless frames and repeated bytes in turns", When::Placed, FLOOD, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        for _ in 0..100 {
            stage.data(stream, 0, 0, false);
            stage.data(stream, 0, 1, false);
        }
        stage.tick < 100
    }),
    ("every other byte", When::Placed, Cost::Code(TransportCode::REASSEMBLY_LIMIT), |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        let first = 1 + u64::from(stage.tick) * 400;
        (first..first + 400).step_by(2).for_each(|at| stage.data(stream, at, 1, false));
        stage.tick < 20
    }),
    ("bytes of many streams, the first always missing", When::Placed, Cost::Nothing, |stage| {
        (0..128).for_each(|index| {
            let stream = stage.own_stream(Dir::Uni, index);
            stage.data(stream, 1, 16 * 1024 - 1, false);
        });
        false
    }),
    ("the same credit again and again", When::Placed, FLOOD, |stage| {
        let Some((stream, _)) = stage.place() else { return false };
        (0..100).for_each(|_| stage.say(MaxStreamData { stream, limit: StreamOffset(5) }));
        stage.tick < 100
    }),
    ("the same limit of streams again and again", When::Placed, FLOOD, |stage| {
        (0..100).for_each(|_| stage.say(MaxStreams { dir: Dir::Bi, max: 16 }));
        stage.tick < 100
    }),
    ("all the credit there is", When::Placed, Cost::Nothing, |stage| {
        let Some((stream, _)) = stage.place() else { return false };
        stage.say(MaxStreamData { stream, limit: StreamOffset((1 << 62) - 1) });
        stage.say(MaxStreams { dir: Dir::Uni, max: 1 << 60 });
        false
    }),
    ("one stream opened again and again", When::Placed, FLOOD, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        (0..100).for_each(|_| stage.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) }));
        stage.tick < 100
    }),
    ("one stream reset again and again", When::Placed, FLOOD, |stage| {
        let stream = stage.own_stream(Dir::Uni, 0);
        (0..100).for_each(|_| stage.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) }));
        stage.tick < 100
    }),
    ("one stream stopped again and again", When::Placed, FLOOD, |stage| {
        let Some((stream, _)) = stage.place() else { return false };
        (0..100).for_each(|_| stage.say(StopSending { stream, code: CODE, conflict: None }));
        stage.tick < 100
    }),
    ("streams opened and reset", When::Placed, Cost::Nothing, |stage| {
        // As many as the peer allows; its application lets go of them, so that it allows more, a little later.
        let last = stage.scene.streams_uni;
        for index in stage.scene.opened_uni..last {
            let stream = stage.own_stream(Dir::Uni, index);
            stage.say(OpenStream { stream, priority: 0, limit: StreamOffset(0) });
            stage.say(ResetStream { stream, code: CODE, final_size: StreamOffset(0) });
        }
        stage.scene.opened_uni = last;
        stage.tick < 1000
    }),
];
