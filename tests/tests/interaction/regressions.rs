//! What random operations found, each with the fewest that show it.

use kwik_sim::byzantine::{Behaviour, PeerRole};

use crate::op::{Op, Setup, StreamPlace, Who};
use crate::play;

const COLD: Setup = Setup { seed: 0, servers: 2, warm: false, byzantine: None };

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

const WARM: Setup = Setup { seed: 0, servers: 3, warm: true, byzantine: None };

/// A server that keeps no rules sent frames without bytes far behind its part: they contradicted the end that the primary
/// told, and that cost the session.
#[test]
fn regression_frames_without_bytes_cost_no_session() {
    let behaviours = Behaviour::all(PeerRole::Secondary);
    let byzantine = behaviours.iter().position(|behaviour| behaviour.name == "an empty frame outside the grant");
    assert!(byzantine.is_some(), "there is no such behaviour any more");
    let setup = Setup { byzantine, ..WARM };
    let ops = [
        Op::DelegateRange { slot: 0, path: 2, place: StreamPlace::Gap, len: 1 },
        Op::Run { ms: 21 },
        Op::Run { ms: 0 },
    ];
    play(&setup, &ops);
}
