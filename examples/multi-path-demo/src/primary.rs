//! A server as the primary of a session: it answers the client, and has other servers help.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kwik_tokio::{PathId, PathState, RecvStream, ServerSendStream, ServerSession, StreamOffset};
use tokio::{task::JoinSet, time::timeout};

use crate::{
    message::{self, Acknowledgement, Answer, Header, Question, Request, Trailer},
    server::Site,
    transfer::Transfer,
};

/// How long the secondaries may take to join. Later ones help with the next file.
const JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the secondaries may take to say whether they hold a file.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The code of a stream whose file could not be sent.
const FAILED: u32 = 1;

/// Answers one stream of the client after another until the session ends.
pub(crate) async fn serve(session: &ServerSession, site: &Site) {
    while let Ok(stream) = session.accept_stream().await {
        let (mut send, mut recv) = stream.split();
        if let Err(error) = answer(session, site, &mut send, &mut recv).await {
            eprintln!("primary: a request of {} failed: {error:#}", session.remote_address());
            // A stream that ended otherwise needs no reset.
            let _ = send.reset(FAILED);
        }
    }
}

async fn answer(
    session: &ServerSession,
    site: &Site,
    send: &mut ServerSendStream,
    recv: &mut RecvStream,
) -> Result<()> {
    let request: Request = message::read_line(recv).await?;
    let content = match site.library.open(&request.name) {
        Ok(content) => content,
        Err(error) => {
            send.write_all(&message::line(&Header::Refused { reason: format!("{error:#}") })?).await?;
            send.finish()?;
            return Ok(());
        }
    };
    let length = content.length();
    join_secondaries(session, site).await;
    let holders = ask_for_file(session, &request.name, length).await?;
    let hash = tokio::spawn({
        let content = content.clone();
        async move { content.sha256().await }
    });

    let header = message::line(&Header::File { length })?;
    send.write_all(&header).await?;
    let start = header.len() as u64;
    let tally = Transfer::new(session, send, content, &request, start, holders.paths).run().await?;
    let trailer = Trailer {
        sha256: hash.await??,
        lost_ranges_refilled: tally.lost_ranges,
        raw_round_trips: holders.raw_round_trips,
        ranges: tally.ranges.into_iter().map(|(path, ranges)| (path.0, ranges)).collect(),
    };
    send.write_at(StreamOffset(start + length), message::line(&trailer)?).await?;

    let acknowledgement: Acknowledgement = message::read_line(recv).await.context("the client did not acknowledge")?;
    let expected = Acknowledgement { length, sha256: trailer.sha256 };
    ensure!(acknowledgement == expected, "the client acknowledged something else: {acknowledgement:?}");
    recv.read_to_end(0).await.context("the client said more than it should")?;
    // The end of the stream tells the client that its acknowledgement was read.
    send.finish()?;
    Ok(())
}

/// Has the client dial the secondaries that are not in the session. One that cannot join costs speed only.
async fn join_secondaries(session: &ServerSession, site: &Site) {
    let paths = session.all_paths();
    let known: Vec<_> = paths.iter().filter(|path| !path.state.is_dead()).map(|path| path.identity).collect();
    let mut dials = JoinSet::new();
    for target in site.secondaries.iter().filter(|target| !known.contains(&target.identity)) {
        let (session, target) = (session.clone(), target.clone());
        dials.spawn(async move { (target.address, timeout(JOIN_TIMEOUT, session.add_path(target)).await) });
    }
    while let Some(dial) = dials.join_next().await {
        match dial {
            Ok((address, Ok(Err(error)))) => eprintln!("primary: the secondary at {address} does not help: {error}"),
            Ok((address, Err(_))) => eprintln!("primary: the secondary at {address} is not there yet"),
            Ok((_, Ok(Ok(_)))) | Err(_) => {}
        }
    }
}

/// The paths whose servers hold the file.
struct Holders {
    paths: Vec<PathId>,
    raw_round_trips: u64,
}

/// Asks every secondary by raw packet whether it holds the same file. One that is silent is not waited for long.
async fn ask_for_file(session: &ServerSession, name: &str, length: u64) -> Result<Holders> {
    let question = message::encode(&Question { name: name.to_owned() })?;
    let mut holders = Holders { paths: Vec::new(), raw_round_trips: 0 };
    let mut silent = Vec::new();
    for path in session.active_paths() {
        if path.id.is_primary() || path.state != PathState::Active {
            continue;
        }
        match session.send_raw(path.id, question.clone()).await {
            Ok(()) => silent.push(path.id),
            Err(error) => eprintln!("primary: {} was not asked for `{name}`: {error}", path.id),
        }
    }
    let listen = async {
        while !silent.is_empty() {
            let packet = session.recv_raw().await?;
            let answer: Answer = message::decode(&packet.data)?;
            let Some(place) = silent.iter().position(|path| *path == packet.from) else { continue };
            if answer.name == name {
                silent.swap_remove(place);
                holders.raw_round_trips += 1;
                if answer.length == Some(length) {
                    holders.paths.push(packet.from);
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    match timeout(ANSWER_TIMEOUT, listen).await {
        Ok(answered) => answered?,
        Err(_) => eprintln!("primary: no answer about `{name}` from {silent:?}"),
    }
    Ok(holders)
}
