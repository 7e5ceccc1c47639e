//! Two dishonest servers that know all of each other, against an honest client and the honest servers beside them.

use std::collections::VecDeque;
use std::time::Duration;

use kwik_core::{Dir, ErrorCode, ReadError, Role, SessionError, StreamHandle};
use kwik_sim::byzantine::{Byzantine, Cost, Pair, PeerRole};

use super::fixture::{ACCOMPLICE, BYZANTINE, ByzantineFixture, SessionAt};
use super::{Checked, OTHERS, SPOILT, SharedStream, VERDICT, delegate, ensure};

/// Longer than any pair acts.
const ACTS: Duration = Duration::from_secs(12);

// [P-5.16] [P-7.2]
#[test]
fn what_two_servers_do_together_costs_their_paths_and_no_honest_session() {
    let only = std::env::var("KWIK_BEHAVIOUR").ok();
    let pairs = Pair::all().into_iter().filter(|pair| only.as_ref().is_none_or(|only| pair.name().contains(only)));
    let failures: Vec<String> = pairs
        .filter_map(|pair| {
            let with_primary = pair.members[0].role == PeerRole::Primary;
            let outcome = if with_primary { primary_and_secondary(pair) } else { two_secondaries(pair) };
            outcome.err().map(|failure| format!("{pair:?}: {failure}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn two_secondaries(pair: Pair) -> Checked {
    let mut fixture = ByzantineFixture::new(1);
    let [first, second] = pair.members;
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, 1, first);
    let accomplice = Byzantine::server(&fixture.fleet, ACCOMPLICE, 1, second).together_with(&byzantine);
    let reports = [fixture.add_byzantine(byzantine).1, fixture.add_accomplice(accomplice).1];
    let (client, primary, stream) = honest_session(&mut fixture)?;
    let mut shared = SharedStream { stream, grants: Vec::new(), lost: VecDeque::new() };
    let targets = [(fixture.byzantine(), SPOILT), (fixture.accomplice(), OTHERS)];
    let mut paths = Vec::new();
    for (target, range) in targets {
        let now = fixture.fleet.world.now();
        let mut session = fixture.fleet.world.session_mut(primary.0, primary.1).ok_or("no session")?;
        let path = session.add_path(now, target).map_err(|error| error.to_string())?;
        delegate(&mut fixture, primary, &mut shared, path, range)?;
        paths.push(path);
    }
    // A primary that waits for nobody for ever.
    fixture.run_for(Duration::from_secs(3));
    for (grant, _) in &shared.grants {
        if let Some(mut session) = fixture.fleet.world.session_mut(primary.0, primary.1) {
            let _ = session.revoke(*grant);
        }
    }
    fixture.run_for(ACTS);
    ensure!(reports.iter().all(|report| report.borrow().has_acted), "they never came to it");
    ensure!(!fixture.closed.contains_key(&client), "the client's session ended: {:?}", fixture.closed);
    ensure!(!fixture.closed.contains_key(&primary), "the primary's session ended: {:?}", fixture.closed);
    let deaths: Vec<_> = paths.iter().map(|path| fixture.death(primary, *path).map(|reason| reason.code)).collect();
    judge(pair.members[0].cost, &deaths)?;
    ensure!(fixture.transfer(client, primary, 200_000), "no further stream of the session came");
    Ok(())
}

fn primary_and_secondary(pair: Pair) -> Checked {
    let mut fixture = ByzantineFixture::new(1);
    let [first, second] = pair.members;
    let target = fixture.accomplice();
    let byzantine = Byzantine::server(&fixture.fleet, BYZANTINE, 1, first);
    let byzantine = byzantine.partner(target);
    let accomplice = Byzantine::server(&fixture.fleet, ACCOMPLICE, 1, second).together_with(&byzantine);
    let (node, report) = fixture.add_byzantine(byzantine);
    let reports = [report, fixture.add_accomplice(accomplice).1];
    let (client, primary, _) = honest_session(&mut fixture)?;
    let config = fixture.fleet.pki.client().primary_identity(fixture.fleet.pki.public_identity(BYZANTINE));
    let spoilt = fixture.dial(node, config);
    let mut stream = None;
    fixture.run_until(Duration::from_secs(1), |fixture| {
        let session = fixture.fleet.world.session_mut(spoilt.0, spoilt.1);
        stream = session.and_then(|mut session| session.open_stream(Dir::Bi).ok());
        stream.is_some()
    });
    let stream = stream.ok_or("no stream")?;
    ensure!(fixture.transfer(client, primary, 100_000), "no transfer beside it");
    fixture.run_until(ACTS, |fixture| fixture.closed.contains_key(&spoilt));
    ensure!(reports.iter().all(|report| report.borrow().has_acted), "they never came to it");
    let end = match fixture.closed.get(&spoilt) {
        Some(SessionError::Transport { code, .. }) => Some(ErrorCode::from(*code)),
        Some(end) => return Err(format!("the spoilt session ended otherwise: {end:?}")),
        None => None,
    };
    judge(pair.members[0].cost, &[end])?;
    if let Cost::Stream(code) = pair.members[0].cost {
        let end = fixture.read(spoilt, stream, &mut Vec::new());
        ensure!(end == Err(ReadError::Reset(code.into())), "the stream's end is {end:?}, not {code}");
    }
    ensure!(!fixture.closed.contains_key(&client), "another session ended: {:?}", fixture.closed);
    ensure!(fixture.transfer(client, primary, 200_000), "no transfer after it");
    Ok(())
}

/// An honest session, and a stream of the client's at its primary.
fn honest_session(fixture: &mut ByzantineFixture) -> Result<(SessionAt, SessionAt, StreamHandle), String> {
    let config = fixture.fleet.pki.client();
    let client = fixture.dial(fixture.primary(), config);
    let primary = fixture.await_incoming(fixture.primary(), Role::Primary, &[]).ok_or("no session")?;
    let mut session = fixture.fleet.world.session_mut(client.0, client.1).ok_or("no session")?;
    session.open_stream(Dir::Bi).map_err(|error| error.to_string())?;
    let mut there = None;
    fixture.run_until(VERDICT, |fixture| {
        there = fixture
            .fleet
            .world
            .session_mut(primary.0, primary.1)
            .and_then(|mut session| session.accept_stream(Dir::Bi));
        there.is_some()
    });
    Ok((client, primary, there.ok_or("no stream")?))
}

/// Whether it cost what it should: one of the two, or none.
fn judge(cost: Cost, ends: &[Option<ErrorCode>]) -> Checked {
    match cost {
        Cost::Code(code) => ensure!(ends.contains(&Some(code.into())), "the ends are {ends:?}, not {code}"),
        Cost::Nothing | Cost::Stream(_) => ensure!(ends.iter().all(Option::is_none), "the ends are {ends:?}"),
        Cost::Anything => {}
    }
    Ok(())
}
