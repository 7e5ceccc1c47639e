//! A server as the primary of a session: it answers the client, and has other servers help.

use anyhow::{Context, Result, ensure};
use kwik_tokio::{RecvStream, ServerSendStream, ServerSession, StreamOffset};

use crate::{
    message::{self, Acknowledgement, Header, Request, Trailer},
    server::Site,
    transfer::{Tally, Transfer},
};

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
    let hash = tokio::spawn({
        let content = content.clone();
        async move { content.sha256().await }
    });

    let header = message::line(&Header::File { length })?;
    send.write_all(&header).await?;
    let start = header.len() as u64;
    let transfer = Transfer { session, site, content, name: &request.name, start };
    let Tally { report, raw_round_trips } = transfer.run(send).await?;
    let trailer = Trailer {
        sha256: hash.await??,
        refilled_bytes: report.sources.iter().map(|source| source.lost_bytes + source.taken_back_bytes).sum(),
        raw_round_trips,
        ranges: report.sources.iter().map(|source| (source.path.0, source.ranges)).collect(),
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
