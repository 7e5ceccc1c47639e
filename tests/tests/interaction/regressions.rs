//! What random operations found, each with the fewest that show it.

use kwik_core::Side;

use crate::op::{Op, Place, Setup, Who};
use crate::play;

const COLD: Setup = Setup { seed: 0, servers: 2, warm: false, liar: None };

/// A server that could send no more to an address that proved nothing, and slept, wanted to run again and again at the
/// moment at which it woke.
#[test]
fn regression_server_that_woke_late_in_a_handshake_wants_one_turn() {
    let ops = [
        Op::Run { ms: 30 },
        Op::AddPath { server: 0 },
        Op::Run { ms: 20 },
        Op::Crash { who: Who::Server(0) },
        Op::Run { ms: 1998 },
    ];
    play(&COLD, &ops);
}

const WARM: Setup = Setup { seed: 0, servers: 3, warm: true, liar: None };

/// A server that keeps no rules sent frames without bytes far behind its part: they contradicted the end that the primary
/// told, and that cost the session.
#[test]
fn regression_frames_without_bytes_cost_no_session() {
    let setup = Setup { liar: Some(537), ..WARM };
    let ops =
        [Op::DelegateRange { slot: 0, path: 2, place: Place::Gap, len: 1 }, Op::Run { ms: 21 }, Op::Run { ms: 0 }];
    play(&setup, &ops);
}

/// A server that keeps the rules wrote the middle of its part and gave it up; its bytes were slower than its word.
#[test]
fn regression_bytes_overtaken_by_the_end_of_their_part_cost_nothing() {
    let ops = [
        Op::DelegateRange { slot: 0, path: 0, place: Place::Gap, len: 100_000 },
        Op::Run { ms: 30 },
        Op::AcceptPart { path: 0 },
        Op::Link { server: 1, delay_ms: 10, loss_percent: 0, kbit: Some(200) },
        Op::WritePartAt { path: 0, part: 0, skip: 50_000, len: 40_000 },
        Op::Run { ms: 5 },
        Op::ResetPart { path: 0, part: 0, code: 1 },
        Op::Run { ms: 700 },
        Op::Finish { end: Side::Server, slot: 0 },
        Op::Run { ms: 5000 },
    ];
    play(&WARM, &ops);
}
