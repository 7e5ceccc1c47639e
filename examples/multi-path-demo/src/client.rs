//! The client: it dials one server and reads one stream. How many servers fill that stream is none of its business.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kwik_tokio::{Chunk, ClientSession, PathId, RecvStream, SendStream};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
    sync::watch,
    time::timeout,
};

use crate::{
    content::hex,
    message::{self, Acknowledgement, Header, Request, Trailer},
    report::{PathReport, Report},
};

/// The most that is read at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// Bytes that are written to the disk at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// How long a stream may stand still.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How far a fetch came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Bytes of the file, once the primary told.
    pub(crate) length: Option<u64>,
    /// Bytes that arrived, by the path that brought them.
    pub(crate) bytes: BTreeMap<PathId, u64>,
}

impl Progress {
    pub(crate) fn received(&self) -> u64 {
        self.bytes.values().sum()
    }
}

/// Fetches the file `name` into `output`, and checks it.
pub(crate) async fn fetch(
    session: &ClientSession,
    name: &str,
    output: &Path,
    progress: &watch::Sender<Progress>,
) -> Result<Report> {
    let (mut send, mut recv) = session.open_stream_sync().await?.split();
    let started = Instant::now();
    let request = Request { name: name.to_owned() };
    send.write_all(&message::line(&request)?).await?;

    let length = match in_time(message::read_line(&mut recv)).await? {
        Header::File { length } => length,
        Header::Refused { reason } => bail!("the primary refused: {reason}"),
    };
    progress.send_modify(|progress| progress.length = Some(length));
    let sha256 = receive(&mut recv, length, output, progress).await?;
    let seconds = started.elapsed().as_secs_f64();

    let trailer: Trailer = in_time(message::read_line(&mut recv)).await.context("the file ended without a trailer")?;
    ensure!(sha256 == trailer.sha256, "the file arrived with SHA-256 {sha256}, but it is {}", trailer.sha256);
    acknowledge(&mut send, &mut recv, Acknowledgement { length, sha256: sha256.clone() }).await?;

    let bytes = progress.borrow().bytes.clone();
    let stats = session.stats();
    let paths = stats.paths.iter().map(|path| {
        let ranges = trailer.ranges.get(&path.id.0).copied().unwrap_or_default();
        PathReport::new(path, bytes.get(&path.id).copied().unwrap_or_default(), ranges)
    });
    Ok(Report {
        ok: true,
        bytes: length,
        seconds,
        seconds_alone: None,
        sha256,
        refilled_bytes: trailer.refilled_bytes,
        raw_round_trips: trailer.raw_round_trips,
        paths: paths.collect(),
    })
}

/// Reads the file in order, whoever sends it, and returns its SHA-256.
async fn receive(
    recv: &mut RecvStream,
    length: u64,
    output: &Path,
    progress: &watch::Sender<Progress>,
) -> Result<String> {
    let cannot_write = || format!("`{}` cannot be written", output.display());
    // A chunk may be as short as a packet; the disk is better served in larger pieces.
    let mut file = BufWriter::with_capacity(WRITE_BYTES, File::create(output).await.with_context(cannot_write)?);
    let mut hash = Sha256::new();
    let mut left = length;
    while left > 0 {
        let max = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let chunk = in_time(async { Ok(recv.read_chunk(max, true).await?) }).await?;
        let Some(Chunk { data, source, .. }) = chunk else { bail!("the stream ended {left} bytes before the file") };
        hash.update(&data);
        file.write_all(&data).await.with_context(cannot_write)?;
        left -= data.len() as u64;
        // A few bytes that several servers brought in turns count for the primary.
        let path = source.unwrap_or(PathId::PRIMARY);
        progress.send_modify(|progress| *progress.bytes.entry(path).or_default() += data.len() as u64);
    }
    file.flush().await.with_context(cannot_write)?;
    Ok(hex(hash))
}

/// Tells the primary what arrived, and waits until it has read that: it ends the stream then.
async fn acknowledge(send: &mut SendStream, recv: &mut RecvStream, acknowledgement: Acknowledgement) -> Result<()> {
    send.write_all(&message::line(&acknowledgement)?).await?;
    send.finish()?;
    let rest = in_time(async { Ok(recv.read_to_end(0).await?) }).await;
    rest.map(drop).context("the primary did not take the acknowledgement")
}

/// Gives up on a stream that stands still.
async fn in_time<T>(read: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(STALL_TIMEOUT, read).await.with_context(|| format!("nothing arrived for {STALL_TIMEOUT:?}"))?
}

/// A file that is removed in the end.
pub(crate) struct TemporaryFile(PathBuf);

impl TemporaryFile {
    pub(crate) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("kwik-multi-path-demo-{}", std::process::id())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}
