//! A server as the secondary of a session: it fills the ranges that the primary delegates to it.
//!
//! A delegation is an accepted stream: its read half yields the primary's command, its write half takes the bytes.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kwik_tokio::{PathId, RawPacket, ServerSession, ServerStream, WriteError};

use crate::{
    content::{Library, pieces},
    message::{self, Answer, Command, MESSAGE_BYTES_MAX, Question},
    server::Site,
};

/// Bytes that are read and written at once.
const PIECE_BYTES: u64 = 64 * 1024;

/// The code of a part that could not be written.
const FAILED: u32 = 1;

/// Serves until the session ends.
pub(crate) async fn serve(session: &ServerSession, site: &Arc<Site>) {
    loop {
        tokio::select! {
            Ok(stream) = session.accept_stream() => drop(tokio::spawn(fill(stream, Arc::clone(site)))),
            Ok(packet) = session.recv_raw() => drop(tokio::spawn(answer(session.clone(), packet, site.library.clone()))),
            else => return,
        }
    }
}

/// Tells the primary whether the file it asks for is here.
async fn answer(session: ServerSession, packet: RawPacket, library: Library) {
    if let Err(error) = try_answer(&session, &packet, &library).await {
        eprintln!("secondary: a raw packet from {} was not answered: {error:#}", packet.from);
    }
}

async fn try_answer(session: &ServerSession, packet: &RawPacket, library: &Library) -> Result<()> {
    let Question { name } = message::decode(&packet.data)?;
    let length = library.open(&name).ok().map(|content| content.length());
    session.send_raw(PathId::PRIMARY, message::encode(&Answer { name, length })?).await?;
    Ok(())
}

/// Writes one delegated range.
async fn fill(mut stream: ServerStream, site: Arc<Site>) {
    if let Err(error) = try_fill(&mut stream, &site).await {
        // A primary that took the range back knows already.
        if !matches!(error.downcast_ref(), Some(WriteError::Stopped(_) | WriteError::Session(_))) {
            eprintln!("secondary: a range was not written: {error:#}");
        }
        // The primary learns at once what is missing; if the stream ended otherwise, it learns that.
        let _ = stream.reset(FAILED);
    }
}

async fn try_fill(stream: &mut ServerStream, site: &Site) -> Result<()> {
    let request = stream.read_to_end(MESSAGE_BYTES_MAX).await?;
    let command: Command = message::decode(&request)?;
    let grant = stream.grant().context("the stream is not a delegated range")?;
    ensure!(grant.range.end - grant.range.start == command.length, "{command:?} does not fit {:?}", grant.range);
    let end = command.offset.checked_add(command.length).context("the range has no end")?;

    let content = site.library.open(&command.name)?;
    for piece in pieces(command.offset..end, PIECE_BYTES) {
        site.limit.pass(piece.end - piece.start).await;
        stream.write_chunk(content.read(piece).await?).await?;
    }
    stream.finish()?;
    Ok(())
}
