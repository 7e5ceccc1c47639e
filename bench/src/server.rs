//! The process of the server. It tells its address, then its usage for each line that it is sent, and ends with its input.

use std::io::{self, Write};
use std::thread;

use anyhow::{Context, Result, bail};
use kwik_tokio::bytes::Bytes;

use crate::process::{runtime, tell};
use crate::task::{Request, ServerAddress, Task, Workload};
use crate::transport::{Credentials, Listener, PIECE_BYTES, Session, Stream};
use crate::usage::{Usage, allow_many_sockets};

pub(crate) fn run(task: &Task) -> Result<()> {
    allow_many_sockets();
    runtime(task.threads)?.block_on(serve(task))
}

async fn serve(task: &Task) -> Result<()> {
    let credentials = Credentials::make()?;
    let certificate = credentials.certificate.to_vec();
    let (listener, address) = Listener::bind(task, credentials).await?;
    tell(&ServerAddress { address, certificate })?;
    thread::spawn(answer);
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let is_small = task.workload == Workload::Streams;
    while let Some(session) = listener.accept().await {
        tokio::spawn(serve_session(session?, is_small, piece.clone()));
    }
    bail!("the listener ended")
}

/// Tells the usage for each line of the input, beside the runtime.
fn answer() {
    let told = io::stdin().lines().try_for_each(|line| line.map_err(Into::into).and_then(|_| tell(&Usage::now())));
    if let Err(error) = told {
        let _ = writeln!(io::stderr(), "the server cannot tell its usage: {error:#}");
    }
    std::process::exit(0);
}

async fn serve_session(session: Session, is_small: bool, piece: Bytes) {
    while let Ok(stream) = session.accept().await {
        let piece = piece.clone();
        tokio::spawn(async move {
            // A client that is done leaves, and reports what went wrong itself.
            let _ = if is_small { reply(stream).await } else { serve_stream(stream, &piece).await };
        });
    }
}

async fn reply(mut stream: Stream) -> Result<()> {
    let request = stream.read_to_end(PIECE_BYTES).await?;
    stream.write_all(&request).await?;
    stream.finish()
}

async fn serve_stream(mut stream: Stream, piece: &Bytes) -> Result<()> {
    let mut request = [0; Request::BYTES];
    stream.read_exact(&mut request).await?;
    match Request::from_bytes(request).context("no such request")? {
        Request::Download(bytes) => stream.fill(bytes, piece).await?,
        Request::Upload => {
            let total = stream.drain().await?;
            stream.write_all(&total.to_be_bytes()).await?;
        }
        Request::Echo(bytes) => {
            let mut message = vec![0; usize::try_from(bytes)?.min(PIECE_BYTES)];
            loop {
                stream.read_exact(&mut message).await?;
                stream.write_all(&message).await?;
            }
        }
    }
    stream.finish()
}
