//! Distributions whose sources misbehave, come and go, or are refused, and whatever the application does beside them: as long
//! as one source delivers, every byte arrives once.

#[path = "sources/play.rs"]
mod play;
#[path = "sources/random.rs"]
mod random;

use std::time::Duration;

use kwik_core::{Adaptive, Distributor, Limits, PathId, ReadOrder};
use kwik_sim::{Disturbance, Link};
use play::{Conduct, Play};

const SMALL: u64 = 200_000;
const LARGE: u64 = 3_000_000;
const ALL: [Conduct; 4] = [Conduct::Mute, Conduct::Trickle, Conduct::Refuse, Conduct::Half];

fn link() -> Link {
    Link::with_rate(20_000_000, Duration::from_millis(10))
}

fn distributor(play: &Play, bytes: u64, order: ReadOrder) -> Distributor {
    Distributor::new(play.there, 0..bytes, Box::new(Adaptive::new(order)))
}

/// A download of which server 1 misbehaves, from the beginning or from its middle on; server 2 or the primary is honest.
/// Returns how long it took.
fn download(conduct: Conduct, bytes: u64, is_local: bool, order: ReadOrder, is_late: bool) -> Option<Duration> {
    let secondaries = if is_local { 1 } else { 2 };
    let mut play = Play::new(1, secondaries, bytes, &link(), &Limits::default());
    play.is_ordered = order == ReadOrder::Ordered;
    let now = play.fleet.world.now();
    let mut distributor = distributor(&play, bytes, order);
    play.paths.values().for_each(|path| distributor.add_source(now, *path));
    if is_local {
        distributor.add_source(now, PathId::PRIMARY);
    }
    play.distributors.push(distributor);
    let begin = play.fleet.world.elapsed();
    if is_late {
        play.run_for(Duration::from_millis(bytes / 8000));
    }
    play.conducts.insert(1, conduct);
    play.complete(Duration::from_secs(60)).then(|| play.fleet.world.elapsed() - begin)
}

#[test]
fn no_conduct_of_one_source_keeps_the_others_from_delivering_everything() {
    let mut stuck = Vec::new();
    for conduct in ALL {
        for bytes in [1, SMALL, LARGE] {
            for (is_local, order) in
                [(true, ReadOrder::Ordered), (false, ReadOrder::Ordered), (false, ReadOrder::Unordered)]
            {
                for is_late in [false, true] {
                    let took = download(conduct, bytes, is_local, order, is_late);
                    if took.is_none_or(|took| took > Duration::from_secs(15)) {
                        stuck.push(format!("{conduct:?} {bytes} local={is_local} {order:?} late={is_late}: {took:?}"));
                    }
                }
            }
        }
    }
    assert!(stuck.is_empty(), "{}", stuck.join("\n"));
}

#[test]
fn sources_that_deliver_nothing_do_not_pass_a_range_to_each_other_for_ever() {
    for conduct in [Conduct::Mute, Conduct::Trickle] {
        for secondaries in [3, 6] {
            let mut play = Play::new(1, secondaries, SMALL, &link(), &Limits::default());
            // The honest one is a little farther than the others.
            let far = Link::with_rate(20_000_000, Duration::from_millis(11));
            play.fleet.world.set_link_both(play.fleet.client, play.fleet.servers[1], far);
            let now = play.fleet.world.now();
            let mut distributor = distributor(&play, SMALL, ReadOrder::Unordered);
            play.paths.values().for_each(|path| distributor.add_source(now, *path));
            play.is_ordered = false;
            play.distributors.push(distributor);
            play.conducts.extend((2..=secondaries).map(|server| (server, conduct)));
            assert!(play.complete(Duration::from_secs(30)), "{conduct:?} of {secondaries}");
        }
    }
}

#[test]
fn sources_that_are_refused_for_want_of_room_are_not_asked_in_turn_for_ever() {
    let mut limits = Limits::default();
    limits.grants_session_max = 1;
    let mut play = Play::new(1, 3, LARGE, &link(), &limits);
    let now = play.fleet.world.now();
    let mut distributor = distributor(&play, LARGE, ReadOrder::Ordered);
    play.paths.values().for_each(|path| distributor.add_source(now, *path));
    play.distributors.push(distributor);
    assert!(play.complete(Duration::from_secs(60)));
}

#[test]
fn range_whose_request_was_not_answered_is_asked_for_again_when_its_source_is_added_again() {
    let mut play = Play::new(1, 1, SMALL, &link(), &Limits::default());
    let (now, path) = (play.fleet.world.now(), play.paths[&1]);
    let mut distributor = distributor(&play, SMALL, ReadOrder::Ordered);
    distributor.add_source(now, path);
    let mut session = play.fleet.world.session_mut(play.fleet.servers[0], play.ends.primary).unwrap();
    distributor.act(now, &mut session).unwrap();
    assert!(distributor.poll_request().is_some());
    distributor.remove_source(path);
    assert!(distributor.poll_request().is_none(), "nobody has to answer for a source that was removed");
    distributor.add_source(now, path);
    play.distributors.push(distributor);
    assert!(play.complete(Duration::from_secs(20)));
}

#[test]
fn source_that_was_left_out_is_nobody_to_take_ranges_back_for() {
    let slow = Link::with_rate(1_000_000, Duration::from_millis(10));
    let mut play = Play::new(1, 1, LARGE, &link(), &Limits::default());
    play.fleet.world.set_link_both(play.fleet.client, play.fleet.servers[1], slow);
    let (now, path) = (play.fleet.world.now(), play.paths[&1]);
    let mut distributor = distributor(&play, LARGE, ReadOrder::Ordered);
    distributor.add_source(now, path);
    distributor.add_source(now, PathId::PRIMARY);
    play.distributors.push(distributor);
    play.run_for(Duration::from_millis(900));
    play.distributors[0].remove_source(PathId::PRIMARY);
    let before = play.distributors[0].report().sources[0].taken_back_bytes;
    assert!(play.complete(Duration::from_secs(60)));
    let report = play.distributors[0].report();
    assert!(report.sources[1].bytes > 0, "the primary was faster: {report:?}");
    assert_eq!(report.sources[0].taken_back_bytes, before, "there is nobody else: {report:?}");
}

#[test]
fn small_stream_does_not_wait_for_a_path_that_never_joins() {
    let mut limits = Limits::default();
    limits.send_buffer_stream_bytes = 32 * 1024;
    let mut play = Play::new(1, 1, 2 * SMALL, &Link::with_rate(2_000_000, Duration::from_millis(10)), &limits);
    play.remove_path(1);
    play.run_for(Duration::from_secs(1));
    play.crash(1);
    let now = play.fleet.world.now();
    let mut distributor = distributor(&play, 2 * SMALL, ReadOrder::Ordered);
    distributor.add_source(now, PathId::PRIMARY);
    play.distributors.push(distributor);
    play.run_for(Duration::from_millis(500));
    play.add_path(1);
    // The primary loses what it did not write, and nobody else is there to write it.
    play.fleet.world.inject(Disturbance::Pause { node: play.fleet.client, span: Duration::from_millis(2500) });
    let is_complete = play.complete(Duration::from_secs(5));
    let report = play.distributors[0].report();
    assert!(report.sources[0].taken_back_bytes > 0, "{report:?}");
    assert!(is_complete, "{report:?}");
}
