//! The process of the client. It makes its sessions, waits for a line, does the work and tells what it measured.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kwik_tokio::bytes::Bytes;
use tokio::task::JoinSet;

use crate::process::{runtime, tell};
use crate::statistics;
use crate::task::{Outcome, Phases, Ready, Request, ServerAddress, Task, Workload};
use crate::transport::{Dialer, PIECE_BYTES, Session};
use crate::usage::{Usage, allow_many_sockets};

/// Payload of a download in `dial`, and of each of those beside the messages of `mixed`.
const DIAL_BYTES: u64 = 256 * 1024;
const MIXED_BYTES: u64 = 16 << 20;

pub(crate) fn run(task: &Task, server: &ServerAddress) -> Result<()> {
    allow_many_sockets();
    runtime(task.threads)?.block_on(load(task, server))
}

async fn load(task: &Task, server: &ServerAddress) -> Result<()> {
    let dialer = Dialer::new(task, server.address, &server.certificate)?;
    let before = Usage::now();
    let begin = Instant::now();
    let sessions = sessions(task, &dialer).await?;
    tell(&Ready { before, dial_seconds: begin.elapsed().as_secs_f64() })?;
    tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new())).await??;

    let datagrams = || sessions.iter().map(Session::datagrams).sum::<Option<u64>>();
    let (usage, sent) = (Usage::now(), datagrams());
    let begin = Instant::now();
    let mut outcome = match task.workload {
        Workload::Bulk => bulk(task, &sessions, download).await?,
        Workload::Upload => bulk(task, &sessions, upload).await?,
        Workload::Rr => messages(task, &sessions[0]).await?,
        Workload::Streams => streams(task, &sessions[0]).await?,
        Workload::Dial => dial(task, dialer).await?,
        Workload::Idle => idle(task).await,
        Workload::Mixed => mixed(task, &sessions).await?,
    };
    outcome.seconds = begin.elapsed().as_secs_f64();
    outcome.begin = usage;
    outcome.end = Usage::now();
    if task.workload != Workload::Dial {
        outcome.datagrams = datagrams().zip(sent).map(|(end, begin)| end - begin);
    }
    tell(&outcome)?;
    std::process::exit(0);
}

/// Makes the sessions. Each carries a little, so that no handshake is left to be done.
async fn sessions(task: &Task, dialer: &Dialer) -> Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for _ in 0..task.sessions {
        let session = dialer.dial().await?;
        let mut stream = session.open().await?;
        stream.write_all(&Request::Download(1).to_bytes()).await?;
        stream.finish()?;
        stream.read_to_end(PIECE_BYTES).await?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// All sessions at once.
async fn bulk<F>(task: &Task, sessions: &[Session], transfer: fn(Session, u64) -> F) -> Result<Outcome>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut transfers = JoinSet::new();
    for session in sessions {
        transfers.spawn(transfer(session.clone(), task.bytes));
    }
    while let Some(done) = transfers.join_next().await {
        done??;
    }
    let operations = sessions.len() as u64;
    Ok(Outcome { bytes: task.bytes * operations, operations, ..Outcome::default() })
}

async fn download(session: Session, bytes: u64) -> Result<()> {
    let mut stream = session.open().await?;
    stream.write_all(&Request::Download(bytes).to_bytes()).await?;
    stream.finish()?;
    let came = stream.drain().await?;
    ensure!(came == bytes, "{came} of {bytes} bytes came");
    Ok(())
}

async fn upload(session: Session, bytes: u64) -> Result<()> {
    let piece = Bytes::from(vec![0; PIECE_BYTES]);
    let mut stream = session.open().await?;
    stream.write_all(&Request::Upload.to_bytes()).await?;
    stream.fill(bytes, &piece).await?;
    stream.finish()?;
    let came = stream.read_to_end(PIECE_BYTES).await?;
    ensure!(came == bytes.to_be_bytes(), "the server did not get {bytes} bytes");
    Ok(())
}

/// One message back and forth.
async fn messages(task: &Task, session: &Session) -> Result<Outcome> {
    let mut stream = session.open().await?;
    let mut message = vec![0; task.message_bytes];
    stream.write_all(&Request::Echo(task.message_bytes as u64).to_bytes()).await?;
    let mut times = Vec::new();
    for _ in 0..task.operations {
        let begin = Instant::now();
        stream.write_all(&message).await?;
        stream.read_exact(&mut message).await?;
        times.push(begin.elapsed());
    }
    let bytes = 2 * task.operations * task.message_bytes as u64;
    Ok(Outcome { bytes, operations: task.operations, latency: statistics::latency(times), ..Outcome::default() })
}

async fn streams(task: &Task, session: &Session) -> Result<Outcome> {
    let session = session.clone();
    let message: Arc<[u8]> = vec![1; task.message_bytes].into();
    let request = move || {
        let (session, message) = (session.clone(), message.clone());
        async move {
            let begin = Instant::now();
            let mut stream = session.open().await?;
            stream.write_all(&message).await?;
            stream.finish()?;
            let reply = stream.read_to_end(PIECE_BYTES).await?;
            ensure!(reply.len() == message.len(), "the reply has {} bytes", reply.len());
            Ok(begin.elapsed())
        }
    };
    let times = repeat(task, request).await?;
    let bytes = 2 * task.operations * task.message_bytes as u64;
    Ok(Outcome { bytes, operations: task.operations, latency: statistics::latency(times), ..Outcome::default() })
}

/// What one dial took.
struct Visit {
    connect: Duration,
    transfer: Duration,
    close: Duration,
    datagrams: Option<u64>,
}

async fn dial(task: &Task, dialer: Dialer) -> Result<Outcome> {
    let dialer = Arc::new(dialer);
    let visit = move || {
        let dialer = dialer.clone();
        async move {
            let begin = Instant::now();
            let session = dialer.dial().await?;
            let connect = begin.elapsed();
            download(session.clone(), DIAL_BYTES).await?;
            let transfer = begin.elapsed() - connect;
            let datagrams = session.datagrams();
            session.close().await?;
            Ok(Visit { connect, transfer, close: begin.elapsed() - connect - transfer, datagrams })
        }
    };
    let visits = repeat(task, visit).await?;
    let latency = |part: fn(&Visit) -> Duration| statistics::latency(visits.iter().map(part).collect());
    let phases = latency(|visit| visit.connect).zip(latency(|visit| visit.transfer)).zip(latency(|visit| visit.close));
    Ok(Outcome {
        bytes: task.operations * DIAL_BYTES,
        operations: task.operations,
        datagrams: visits.iter().map(|visit| visit.datagrams).sum(),
        latency: latency(|visit| visit.connect + visit.transfer + visit.close),
        phases: phases.map(|((connect, transfer), close)| Phases { connect, transfer, close }),
        ..Outcome::default()
    })
}

/// Does an operation as often as the task says, with as many at once, and gives what each came to.
async fn repeat<T, O, F>(task: &Task, operation: O) -> Result<Vec<T>>
where
    T: Send + 'static,
    O: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<T>> + Send,
{
    let begun = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..task.concurrency {
        let (begun, operation, operations) = (begun.clone(), operation.clone(), task.operations);
        workers.spawn(async move {
            let mut done = Vec::new();
            while begun.fetch_add(1, Ordering::Relaxed) < operations {
                done.push(operation().await?);
            }
            anyhow::Ok(done)
        });
    }
    let mut done = Vec::new();
    while let Some(worker) = workers.join_next().await {
        done.extend(worker??);
    }
    Ok(done)
}

async fn idle(task: &Task) -> Outcome {
    tokio::time::sleep(Duration::from_secs(task.idle_seconds)).await;
    Outcome { operations: task.sessions as u64, ..Outcome::default() }
}

/// The first session sends messages, the others download until it is done.
async fn mixed(task: &Task, sessions: &[Session]) -> Result<Outcome> {
    let downloaded = Arc::new(AtomicU64::new(0));
    let mut downloads = JoinSet::new();
    for session in &sessions[1..] {
        let (session, downloaded) = (session.clone(), downloaded.clone());
        downloads.spawn(async move {
            loop {
                download(session.clone(), MIXED_BYTES).await?;
                downloaded.fetch_add(MIXED_BYTES, Ordering::Relaxed);
            }
        });
    }
    tokio::select! {
        outcome = messages(task, &sessions[0]) => {
            let outcome = outcome?;
            Ok(Outcome { bytes: outcome.bytes + downloaded.load(Ordering::Relaxed), ..outcome })
        }
        Some(ended) = downloads.join_next() => ended?,
    }
}
