//! What a dishonest node costs, and whom: every behaviour of the simulator's grammar against honest nodes.

#[path = "byzantine/fixture.rs"]
mod fixture;
#[path = "byzantine/pairs.rs"]
mod pairs;

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use fixture::{BYZANTINE, ByzantineFixture, SessionAt};
use kwik_core::{
    Dir, ErrorCode, GrantId, GrantStatus, PathId, ReadError, Role, SessionError, StreamHandle, StreamOffset,
    TransportCode,
};
use kwik_sim::byzantine::{Behaviour, Byzantine, Cost, PeerRole, When};
use kwik_tests::pattern;

/// The stream that the dishonest secondary has a part of: the primary's bytes, its own, the other's.
const OWN: Range<u64> = 0..1_000;
const SPOILT: Range<u64> = 1_000..66_536;
const OTHERS: Range<u64> = 66_536..132_072;
/// Longer than anything but silence takes to be noticed.
const VERDICT: Duration = Duration::from_secs(20);

type Checked = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}
use ensure;

// [P-5.16] [P-11.2]
#[test]
fn fault_of_a_secondary_costs_its_path_and_never_the_session() {
    try_all(PeerRole::Secondary, secondary_misbehaves);
}

#[test]
fn fault_of_a_primary_costs_its_session_and_no_other() {
    try_all(PeerRole::Primary, primary_misbehaves);
}

#[test]
fn fault_of_a_client_costs_its_session_and_no_other_of_the_server() {
    try_all(PeerRole::Client, client_misbehaves);
}

#[test]
fn fault_of_a_client_at_a_secondary_costs_its_path_and_no_other_session() {
    try_all(PeerRole::Joiner, client_misbehaves);
}

/// Tries every behaviour of a part, or those whose name holds `KWIK_BEHAVIOUR`; those that draw their frames are tried
/// with `KWIK_SEEDS` seeds.
fn try_all(part: PeerRole, scenario: fn(Behaviour, u64) -> Checked) {
    let only = std::env::var("KWIK_BEHAVIOUR").ok();
    let drawn = std::env::var("KWIK_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    let mut failures = Vec::new();
    for behaviour in Behaviour::all(part) {
        if only.as_ref().is_some_and(|only| !behaviour.name.contains(only.as_str())) {
            continue;
        }
        let seeds = if behaviour.draws() { 0..drawn } else { 0..1 };
        for seed in seeds {
            let outcome = catch_unwind(AssertUnwindSafe(|| scenario(behaviour, seed)));
            let failure = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(text)) => text,
                Err(panic) => format!("PANIC {:?}", panic.downcast_ref::<String>()),
            };
            failures.push(format!("{behaviour:?} (seed {seed}): {failure}"));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

// ---- a secondary

/// A stream whose bytes come from three servers, one of them dishonest.
struct SharedStream {
    stream: StreamHandle,
    grants: Vec<(GrantId, PathId)>,
    lost: VecDeque<Range<u64>>,
}

fn secondary_misbehaves(behaviour: Behaviour, seed: u64) -> Checked {
    let mut fixture = ByzantineFixture::new(seed);
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, seed, behaviour);
    let (_, report) = fixture.add_byzantine(byzantine);
    let config = fixture.fleet.pki.client();
    let client = fixture.dial(fixture.primary(), config);
    let Some(primary) = fixture.await_incoming(fixture.primary(), Role::Primary, &[]) else {
        return Err("no session".to_owned());
    };
    let (byzantine_path, other_path) = (add_path(&mut fixture, primary, true), add_path(&mut fixture, primary, false));
    let mut session = fixture.fleet.world.session_mut(client.0, client.1).ok_or("no session")?;
    let here = session.open_stream(Dir::Bi).map_err(|error| error.to_string())?;
    let mut there = None;
    fixture.run_until(VERDICT, |fixture| {
        there = fixture
            .fleet
            .world
            .session_mut(primary.0, primary.1)
            .and_then(|mut session| session.accept_stream(Dir::Bi));
        there.is_some()
    });
    let mut shared = SharedStream { stream: there.ok_or("no stream")?, grants: Vec::new(), lost: VecDeque::new() };
    delegate(&mut fixture, primary, &mut shared, byzantine_path, SPOILT)?;
    delegate(&mut fixture, primary, &mut shared, other_path, OTHERS)?;
    let mut session = fixture.fleet.world.session_mut(primary.0, primary.1).ok_or("no session")?;
    let mut stream = session.stream_mut(shared.stream);
    for range in [OWN, OTHERS.end..OTHERS.end + 100] {
        let written = stream.write_at(StreamOffset(range.start), pattern(range));
        written.map_err(|error| format!("not written: {error}"))?;
    }

    let died = fixture.run_until(VERDICT, |fixture| {
        collect_lost(fixture, primary, &mut shared);
        fixture.death(primary, byzantine_path).is_some()
    });
    let name = behaviour.name;
    ensure!(report.borrow().has_acted || behaviour.when == When::First, "{name}: it never came to it");
    ensure!(!fixture.closed.contains_key(&client), "the client's session ended: {:?}", fixture.closed.get(&client));
    ensure!(!fixture.closed.contains_key(&primary), "the primary's session ended: {:?}", fixture.closed.get(&primary));
    let reason = fixture.death(primary, byzantine_path);
    match behaviour.cost {
        Cost::Nothing => ensure!(!died, "the path died: {reason:?}"),
        Cost::Code(code) => {
            let got = reason.as_ref().map(|reason| reason.code);
            ensure!(got == Some(code.into()), "the path's end is {reason:?}, not {code}");
        }
        Cost::Stream(code) => {
            ensure!(!died, "the path died: {reason:?}");
            let end = fixture.read(client, here, &mut Vec::new());
            ensure!(end == Err(ReadError::Reset(code.into())), "the stream's end is {end:?}, not {code}");
        }
        Cost::Anything => {}
    }
    if behaviour.cost != Cost::Code(TransportCode::REASSEMBLY_LIMIT) && !matches!(behaviour.cost, Cost::Stream(_)) {
        finish_shared(&mut fixture, (client, primary), &mut shared, (byzantine_path, other_path), here, behaviour)?;
    }
    ensure!(fixture.transfer(client, primary, 200_000), "no further stream of the session came");
    Ok(())
}

/// The honest servers do what the dishonest one did not.
fn finish_shared(
    fixture: &mut ByzantineFixture,
    (client, primary): (SessionAt, SessionAt),
    shared: &mut SharedStream,
    (byzantine, other): (PathId, PathId),
    here: StreamHandle,
    behaviour: Behaviour,
) -> Checked {
    if fixture.death(primary, byzantine).is_none() {
        let mut session = fixture.fleet.world.session_mut(primary.0, primary.1).ok_or("no session")?;
        session.remove_path(byzantine).map_err(|error| error.to_string())?;
    }
    let mut read = Vec::new();
    let mut finished = false;
    let mut end = Ok(());
    let mut failure = None;
    fixture.run_until(VERDICT, |fixture| {
        collect_lost(fixture, primary, shared);
        while let Some(range) = shared.lost.pop_front() {
            if let Err(error) = delegate(fixture, primary, shared, other, range) {
                failure = Some(format!("{error}; {:?}", fixture.death(primary, other)));
                return true;
            }
        }
        if fixture.death(primary, byzantine).is_some() && !finished {
            let mut session = fixture.fleet.world.session_mut(primary.0, primary.1).expect("a session");
            finished = session.stream_mut(shared.stream).finish().is_ok();
        }
        end = fixture.read(client, here, &mut read);
        end != Err(ReadError::Blocked)
    });
    ensure!(failure.is_none(), "{failure:?}");
    ensure!(!fixture.closed.contains_key(&client), "the session ended: {:?}", fixture.closed);
    // A dishonest server may write whatever it likes where it may write, and then somebody else different bytes.
    let conflict = end == Err(ReadError::Reset(TransportCode::RANGE_CONFLICT.into()));
    let anything = behaviour.cost == Cost::Anything;
    ensure!(end == Err(ReadError::Finished) || (anything && conflict), "{} bytes, then {end:?}", read.len());
    ensure!(anything || read == pattern(0..OTHERS.end + 100), "other bytes came than were written");
    Ok(())
}

fn add_path(fixture: &mut ByzantineFixture, primary: SessionAt, byzantine: bool) -> PathId {
    let now = fixture.fleet.world.now();
    let target = if byzantine { fixture.byzantine() } else { fixture.other() };
    fixture.fleet.world.session_mut(primary.0, primary.1).expect("a session").add_path(now, target).expect("added")
}

fn delegate(
    fixture: &mut ByzantineFixture,
    primary: SessionAt,
    shared: &mut SharedStream,
    path: PathId,
    range: Range<u64>,
) -> Checked {
    let Some(mut session) = fixture.fleet.world.session_mut(primary.0, primary.1) else {
        return Err("gone".to_owned());
    };
    let grant = session
        .stream_mut(shared.stream)
        .delegate_range(path, range, Bytes::from_static(b"please"))
        .map_err(|error| format!("not delegated: {error}"))?;
    shared.grants.push((grant.grant, path));
    Ok(())
}

/// Notes what delegations did not bring.
fn collect_lost(fixture: &mut ByzantineFixture, primary: SessionAt, shared: &mut SharedStream) {
    let Some(session) = fixture.fleet.world.session_mut(primary.0, primary.1) else { return };
    shared.grants.retain(|(grant, _)| match session.delegation(*grant) {
        Some(GrantStatus::Progress { .. }) => true,
        Some(GrantStatus::Lost { missing, .. }) => {
            shared.lost.extend(missing);
            false
        }
        _ => false,
    });
}

// ---- a primary

fn primary_misbehaves(behaviour: Behaviour, seed: u64) -> Checked {
    let mut fixture = ByzantineFixture::new(seed);
    let other = fixture.other();
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, seed, behaviour);
    let byzantine = byzantine.partner(other);
    let (node, report) = fixture.add_byzantine(byzantine);
    let config = fixture.fleet.pki.client();
    let honest = fixture.dial(fixture.primary(), config.clone());
    let Some(primary) = fixture.await_incoming(fixture.primary(), Role::Primary, &[]) else {
        return Err("no session".to_owned());
    };
    let spoilt = fixture.dial(node, config.primary_identity(fixture.fleet.pki.public_identity(BYZANTINE)));
    fixture.run_until(Duration::from_secs(1), |fixture| {
        let opened = fixture
            .fleet
            .world
            .session_mut(spoilt.0, spoilt.1)
            .and_then(|mut session| session.open_stream(Dir::Bi).ok());
        let Some(stream) = opened else { return false };
        fixture
            .fleet
            .world
            .session_mut(spoilt.0, spoilt.1)
            .expect("a session")
            .stream_mut(stream)
            .write(b"hello")
            .is_ok()
    });
    ensure!(fixture.transfer(honest, primary, 100_000), "no transfer beside it");
    let limit = if behaviour.name == "silence" { Duration::from_secs(60) } else { VERDICT };
    fixture.run_until(limit, |fixture| fixture.closed.contains_key(&spoilt));
    ensure!(report.borrow().has_acted || behaviour.when == When::First, "it never came to it");
    judge_session(&fixture, behaviour, spoilt)?;
    ensure!(!fixture.closed.contains_key(&honest), "another session ended: {:?}", fixture.closed.get(&honest));
    ensure!(fixture.transfer(honest, primary, 100_000), "no transfer after it");
    Ok(())
}

fn judge_session(fixture: &ByzantineFixture, behaviour: Behaviour, spoilt: SessionAt) -> Checked {
    let end = fixture.closed.get(&spoilt);
    match behaviour.cost {
        Cost::Nothing => ensure!(end.is_none(), "the session ended: {end:?}"),
        Cost::Stream(code) => {
            ensure!(end.is_none(), "the session ended: {end:?}");
            ensure!(fixture.stream_ends.contains(&code.into()), "streams ended with {:?}", fixture.stream_ends);
        }
        Cost::Code(TransportCode::TIMED_OUT) => {
            ensure!(end == Some(&SessionError::TimedOut), "the session's end is {end:?}, not silence");
        }
        Cost::Code(code) => {
            let got = matches!(end, Some(SessionError::Transport { code: got, .. }) if *got == code);
            ensure!(got, "the session's end is {end:?}, not {code}");
        }
        Cost::Anything => {}
    }
    Ok(())
}

// ---- a client

fn client_misbehaves(behaviour: Behaviour, seed: u64) -> Checked {
    let mut fixture = ByzantineFixture::new(seed);
    let config = fixture.fleet.pki.client();
    let honest = fixture.dial(fixture.primary(), config);
    let Some(primary) = fixture.await_incoming(fixture.primary(), Role::Primary, &[]) else {
        return Err("no session".to_owned());
    };
    let byzantine = Byzantine::client(&fixture.fleet, seed, behaviour);
    let (_, report) = fixture.add_byzantine(byzantine);
    let spoilt = if behaviour.role == PeerRole::Client && behaviour.when == When::First {
        None
    } else {
        let spoilt = fixture
            .await_incoming(fixture.primary(), Role::Primary, &[primary])
            .ok_or("no session of the byzantine client")?;
        serve_byzantine(&mut fixture, spoilt)?;
        Some(spoilt)
    };
    ensure!(fixture.transfer(honest, primary, 100_000), "no transfer beside it");
    let limit = match (behaviour.name, behaviour.when) {
        ("silence", _) => Duration::from_secs(60),
        (_, When::Late) => Duration::from_secs(120),
        _ => VERDICT,
    };
    fixture.run_until(limit, |fixture| {
        let at_server =
            spoilt.is_some_and(|spoilt| behaviour.role == PeerRole::Client && fixture.closed.contains_key(&spoilt));
        at_server || report.borrow().closed.iter().any(|(part, _)| *part == behaviour.role)
    });
    // What a server closes, the client hears a moment later.
    fixture.run_for(Duration::from_millis(100));
    ensure!(report.borrow().has_acted || behaviour.when == When::First, "it never came to it");
    let notified = report.borrow().closed.iter().find(|(part, _)| *part == behaviour.role).map(|(_, code)| *code);
    match behaviour.cost {
        Cost::Nothing => ensure!(notified.is_none(), "the connection ended: {notified:?}"),
        Cost::Stream(code) => {
            ensure!(notified.is_none(), "the connection ended: {notified:?}");
            ensure!(fixture.stream_ends.contains(&code.into()), "streams ended with {:?}", fixture.stream_ends);
        }
        Cost::Code(TransportCode::TIMED_OUT) => {
            let silent = fixture.closed.values().any(|end| *end == SessionError::TimedOut);
            ensure!(silent, "sessions ended with {:?}, none of silence", fixture.closed);
        }
        Cost::Code(code) => {
            ensure!(notified == Some(Some(ErrorCode::from(code))), "the end is {notified:?}, not {code}")
        }
        Cost::Anything => {}
    }
    for at in [honest, primary] {
        ensure!(!fixture.closed.contains_key(&at), "another session ended: {:?}", fixture.closed.get(&at));
    }
    ensure!(fixture.transfer(honest, primary, 100_000), "no transfer after it");
    Ok(())
}

/// The server treats the dishonest client as any other: it adds a path, and delegates a range of the client's stream.
fn serve_byzantine(fixture: &mut ByzantineFixture, spoilt: SessionAt) -> Checked {
    let path = add_path(fixture, spoilt, false);
    let mut stream = None;
    fixture.run_until(Duration::from_secs(2), |fixture| {
        stream =
            fixture.fleet.world.session_mut(spoilt.0, spoilt.1).and_then(|mut session| session.accept_stream(Dir::Bi));
        stream.is_some() || fixture.closed.contains_key(&spoilt)
    });
    let Some(stream) = stream else { return Ok(()) };
    let Some(mut session) = fixture.fleet.world.session_mut(spoilt.0, spoilt.1) else { return Ok(()) };
    let mut stream = session.stream_mut(stream);
    let _ = stream.write(&pattern(OWN));
    let _ = stream.delegate_range(path, SPOILT, Bytes::from_static(b"please"));
    Ok(())
}

fn regression(part: PeerRole, name: &str, scenario: fn(Behaviour, u64) -> Checked, seed: u64) {
    let behaviour = Behaviour::named(part, name).expect("a behaviour");
    assert_eq!(scenario(behaviour, seed), Ok(()));
}

/// QUIC held the packet that closes a connection back while the congestion window was full, for ever: the peer met
/// silence instead of a code.
#[test]
fn regression_close_under_a_full_window_is_told() {
    regression(PeerRole::Joiner, "carriers that are stopped", client_misbehaves, 0);
}

/// A client that read no answers made the server's owed acknowledgement due for ever, and the server run without a
/// pause.
#[test]
fn regression_unread_control_plane_does_not_keep_the_peer_running() {
    regression(PeerRole::Client, "raw packets that nobody signed, the answers unread", client_misbehaves, 0);
}

/// A secondary that died with a raw packet on its way took the session with it, or the path of the receiver.
#[test]
fn regression_receipt_for_a_sender_that_is_gone_is_no_fault_of_the_receiver() {
    regression(PeerRole::Secondary, "frames from the grammar", secondary_misbehaves, 7);
    regression(PeerRole::Secondary, "frames from the grammar that this role may send", secondary_misbehaves, 2);
}

#[test]
fn dishonest_nodes_repeat_with_their_seed() {
    let hash = |seed| {
        let behaviour = Behaviour::named(PeerRole::Client, "frames from the grammar").expect("a behaviour");
        let mut fixture = ByzantineFixture::new(1);
        let byzantine = Byzantine::client(&fixture.fleet, seed, behaviour);
        fixture.add_byzantine(byzantine);
        fixture.run_for(Duration::from_secs(3));
        fixture.fleet.world.trace().hash()
    };
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}

#[test]
fn behaviours_have_names_of_their_own() {
    for part in [PeerRole::Primary, PeerRole::Secondary, PeerRole::Client, PeerRole::Joiner] {
        let mut names: Vec<_> = Behaviour::all(part).iter().map(|behaviour| behaviour.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{part:?}");
    }
}
