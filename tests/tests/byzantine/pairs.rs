//! Two dishonest servers that know all of each other, against an honest client and the honest servers beside them.

use std::collections::VecDeque;
use std::time::Duration;

use kwik_core::{Dir, ErrorCode, ReadError, Role, SessionError, StreamHandle};
use kwik_sim::byzantine::{Byzantine, Cost, Pair, Part};
use kwik_tests::SERVER_NAME;

use super::arena::{ACCOMPLICE, Arena, At, LIAR};
use super::{LIARS, OTHERS, Outcome, Shared, VERDICT, delegate, ensure};

/// Longer than any pair acts.
const ACTS: Duration = Duration::from_secs(12);

// [P-5.16] [P-7.2]
#[test]
fn what_two_servers_do_together_costs_their_paths_and_no_honest_session() {
    let only = std::env::var("KWIK_BEHAVIOUR").ok();
    let pairs = Pair::all().into_iter().filter(|pair| only.as_ref().is_none_or(|only| pair.name().contains(only)));
    let failures: Vec<String> = pairs
        .filter_map(|pair| {
            let with_primary = pair.members[0].part == Part::Primary;
            let outcome = if with_primary { primary_and_secondary(pair) } else { two_secondaries(pair) };
            outcome.err().map(|failure| format!("{pair:?}: {failure}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn two_secondaries(pair: Pair) -> Outcome {
    let mut arena = Arena::new(1);
    let [first, second] = pair.members;
    let liar = Byzantine::server(&arena.fleet.world, &arena.fleet.pki, LIAR, 1, first);
    let accomplice =
        Byzantine::server(&arena.fleet.world, &arena.fleet.pki, ACCOMPLICE, 1, second).together_with(&liar);
    let reports = [arena.add_liar(liar).1, arena.add_accomplice(accomplice).1];
    let (client, primary, stream) = honest_session(&mut arena)?;
    let mut shared = Shared { stream, grants: Vec::new(), lost: VecDeque::new() };
    let targets = [(arena.liar(), LIARS), (arena.accomplice(), OTHERS)];
    let mut paths = Vec::new();
    for (target, range) in targets {
        let now = arena.fleet.world.now();
        let mut session = arena.fleet.world.session_mut(primary.0, primary.1).ok_or("no session")?;
        let path = session.add_path(now, target).map_err(|error| error.to_string())?;
        delegate(&mut arena, primary, &mut shared, path, range)?;
        paths.push(path);
    }
    // A primary that waits for nobody for ever.
    arena.run_for(Duration::from_secs(3));
    for (grant, _) in &shared.grants {
        if let Some(mut session) = arena.fleet.world.session_mut(primary.0, primary.1) {
            let _ = session.revoke(*grant);
        }
    }
    arena.run_for(ACTS);
    ensure!(reports.iter().all(|report| report.borrow().has_acted), "they never came to it");
    ensure!(!arena.closed.contains_key(&client), "the client's session ended: {:?}", arena.closed);
    ensure!(!arena.closed.contains_key(&primary), "the primary's session ended: {:?}", arena.closed);
    let deaths: Vec<_> = paths.iter().map(|path| arena.death(primary, *path).map(|reason| reason.code)).collect();
    judge(pair.members[0].cost, &deaths)?;
    ensure!(arena.transfer(client, primary, 200_000), "no further stream of the session came");
    Ok(())
}

fn primary_and_secondary(pair: Pair) -> Outcome {
    let mut arena = Arena::new(1);
    let [first, second] = pair.members;
    let target = arena.accomplice();
    let liar = Byzantine::server(&arena.fleet.world, &arena.fleet.pki, LIAR, 1, first);
    let liar = liar.partner(target.address, SERVER_NAME, target.identity);
    let accomplice =
        Byzantine::server(&arena.fleet.world, &arena.fleet.pki, ACCOMPLICE, 1, second).together_with(&liar);
    let (node, report) = arena.add_liar(liar);
    let reports = [report, arena.add_accomplice(accomplice).1];
    let (client, primary, _) = honest_session(&mut arena)?;
    let config = arena.fleet.pki.client().primary_identity(arena.fleet.pki.public_identity(LIAR));
    let spoilt = arena.dial(node, config);
    let mut stream = None;
    arena.run_until(Duration::from_secs(1), |arena| {
        let session = arena.fleet.world.session_mut(spoilt.0, spoilt.1);
        stream = session.and_then(|mut session| session.open_stream(Dir::Bi).ok());
        stream.is_some()
    });
    let stream = stream.ok_or("no stream")?;
    ensure!(arena.transfer(client, primary, 100_000), "no transfer beside it");
    arena.run_until(ACTS, |arena| arena.closed.contains_key(&spoilt));
    ensure!(reports.iter().all(|report| report.borrow().has_acted), "they never came to it");
    let end = match arena.closed.get(&spoilt) {
        Some(SessionError::Transport { code, .. }) => Some(ErrorCode::from(*code)),
        Some(end) => return Err(format!("the spoilt session ended otherwise: {end:?}")),
        None => None,
    };
    judge(pair.members[0].cost, &[end])?;
    if let Cost::Stream(code) = pair.members[0].cost {
        let end = arena.read(spoilt, stream, &mut Vec::new());
        ensure!(end == Err(ReadError::Reset(code.into())), "the stream's end is {end:?}, not {code}");
    }
    ensure!(!arena.closed.contains_key(&client), "another session ended: {:?}", arena.closed);
    ensure!(arena.transfer(client, primary, 200_000), "no transfer after it");
    Ok(())
}

/// An honest session, and a stream of the client's at its primary.
fn honest_session(arena: &mut Arena) -> Result<(At, At, StreamHandle), String> {
    let config = arena.fleet.pki.client();
    let client = arena.dial(arena.primary(), config);
    let primary = arena.await_incoming(arena.primary(), Role::Primary, &[]).ok_or("no session")?;
    let mut session = arena.fleet.world.session_mut(client.0, client.1).ok_or("no session")?;
    session.open_stream(Dir::Bi).map_err(|error| error.to_string())?;
    let mut there = None;
    arena.run_until(VERDICT, |arena| {
        there =
            arena.fleet.world.session_mut(primary.0, primary.1).and_then(|mut session| session.accept_stream(Dir::Bi));
        there.is_some()
    });
    Ok((client, primary, there.ok_or("no stream")?))
}

/// Whether it cost what it should: one of the two, or none.
fn judge(cost: Cost, ends: &[Option<ErrorCode>]) -> Outcome {
    match cost {
        Cost::Code(code) => ensure!(ends.contains(&Some(code.into())), "the ends are {ends:?}, not {code}"),
        Cost::Nothing | Cost::Stream(_) => ensure!(ends.iter().all(Option::is_none), "the ends are {ends:?}"),
        Cost::Anything => {}
    }
    Ok(())
}
