//! Lines so thin that a control plane takes minutes.

use bytes::Bytes;
use kwik_core::limits::REQUEST_BYTES_MAX;
use kwik_core::{Dir, SessionEvent};
use kwik_sim::{Disturbance, Link};
use kwik_tests::Fleet;

use super::{millis, secs};

/// 10 kbit/s, with 750 ms there and back.
fn thin() -> Link {
    Link { rate: Some(10_000), queue_bytes: 16 * 1472, ..Link::with_delay(millis(375)) }
}

// [P-5.15]
#[test]
fn much_on_the_control_plane_of_a_thin_line_with_holes_takes_its_time_and_no_more() {
    let mut fleet = Fleet::new(2);
    let ends = fleet.connect();
    let (path, secondary) = fleet.join(ends, 1);
    let (_, there) = fleet.open(ends, Dir::Bi);
    let (client, primary, other) = (fleet.client, fleet.servers[0], fleet.servers[1]);
    fleet.world.set_link_both(client, primary, thin());
    let mut session = fleet.world.session_mut(primary, ends.primary).unwrap();
    let request = Bytes::from(vec![0; REQUEST_BYTES_MAX]);
    let granted = (0..).take_while(|_| session.stream_mut(there).delegate(path, 10, request.clone()).is_ok()).count();
    // Two seconds of every seven nothing gets through.
    for round in 0..300 {
        let (left, right) = (vec![client], vec![primary]);
        let begin = fleet.world.elapsed() + secs(5 + 7 * round);
        fleet.world.at(begin, Disturbance::Partition { left, right });
        fleet.world.at(begin + secs(2), Disturbance::Heal { a: client, b: primary });
    }
    let mut accepted = 0;
    fleet.world.run_until(secs(2_000), |world| {
        if let Some(mut session) = world.session_mut(other, secondary) {
            accepted += std::iter::from_fn(|| session.accept_stream(Dir::Bi)).count();
        }
        accepted == granted || world.saw(client, |event| matches!(event, SessionEvent::Closed(_)))
    });
    assert_eq!(accepted, granted, "{:?}", fleet.world.session(client, ends.client).unwrap().close_reason());
}
