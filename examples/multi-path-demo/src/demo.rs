//! Everything in one process: the servers, each on a thread of its own, and a client.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use kwik_tokio::{PathTarget, dial};
use tokio::sync::watch;

use crate::{
    certificates::DevelopmentCa,
    client::{self, Progress, TemporaryFile},
    content::Library,
    limit::{Limit, Rate},
    report::{self, Report},
    server::{ServerThread, Site},
};

/// What to show.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) library: Library,
    /// Servers in all, the primary among them.
    pub(crate) servers: usize,
    /// How fast each is, the primary first; further ones are as fast as the last.
    pub(crate) limits: Vec<Rate>,
    /// Whether a secondary crashes in mid-transfer.
    pub(crate) kill_one: bool,
    pub(crate) output: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<Report> {
        ensure!(self.servers > 1 || !self.kill_one, "there is no secondary to kill: use at least 2 servers");
        let name = self.library.only_name().context("the file has no name that can be asked for")?;
        self.library.open(&name)?;
        let is_compared = self.servers > 1 && !self.kill_one;
        let alone = if is_compared { Some(self.fetch(&name, 1).await?.seconds) } else { None };
        let report = self.fetch(&name, self.servers).await?;
        Ok(Report { seconds_alone: alone, ..report })
    }

    /// Fetches the file from so many servers.
    async fn fetch(&self, name: &str, count: usize) -> Result<Report> {
        let ca = DevelopmentCa::new()?;
        let mut servers = self.start(&ca, count).await?;

        let (progress, watched) = watch::channel(Progress::default());
        let drawing = tokio::spawn(report::draw(watched.clone()));
        let victim = if self.kill_one { servers.secondaries.pop() } else { None };
        let killing = tokio::spawn(kill_in_mid_transfer(victim, watched, count));

        let temporary = TemporaryFile::new();
        let output = self.output.as_deref().unwrap_or_else(|| temporary.path());
        let session = dial((servers.primary.address(), "primary"), ca.client_config()?).await?;
        let fetched = client::fetch(&session, name, output, &progress).await;
        let closed = session.close(0, "done").await;

        drop(progress);
        drawing.await?;
        killing.await??;
        servers.close().await?;
        let report = fetched?;
        closed?;
        Ok(report)
    }
}

impl Demo {
    fn site(&self, number: usize, secondaries: Vec<PathTarget>) -> Site {
        let rate = self.limits.get(number).or_else(|| self.limits.last()).copied().unwrap_or_default();
        Site { library: self.library.clone(), secondaries, limit: Arc::new(Limit::new(rate)) }
    }

    /// Starts the secondaries, then the primary, which knows them. They trust the primary's identity.
    async fn start(&self, ca: &DevelopmentCa, count: usize) -> Result<Servers> {
        let primary = ca.issue("primary")?;
        let mut secondaries = Vec::new();
        let mut targets = Vec::new();
        for number in 1..count {
            let server_name = format!("secondary-{number}");
            let config = ca.issue(&server_name)?.server_config()?.trust_primary(primary.identity());
            let identity = config.identity();
            let secondary = ServerThread::start(config, self.site(number, Vec::new())).await?;
            targets.push(PathTarget { address: secondary.address(), server_name, identity });
            secondaries.push(secondary);
        }
        let primary = ServerThread::start(primary.server_config()?, self.site(0, targets)).await?;
        Ok(Servers { primary, secondaries })
    }
}

struct Servers {
    primary: ServerThread,
    secondaries: Vec<ServerThread>,
}

impl Servers {
    async fn close(self) -> Result<()> {
        self.primary.close().await?;
        for secondary in self.secondaries {
            secondary.close().await?;
        }
        Ok(())
    }
}

/// Crashes a server when an eighth of the file has arrived, and something from each of `count` servers. One whose time did
/// not come is closed.
async fn kill_in_mid_transfer(
    victim: Option<ServerThread>,
    mut progress: watch::Receiver<Progress>,
    count: usize,
) -> Result<()> {
    let Some(victim) = victim else { return Ok(()) };
    let is_time = |progress: &Progress| {
        let is_begun = progress.length.is_some_and(|length| progress.received() >= length / 8);
        is_begun && progress.bytes.len() >= count
    };
    match progress.wait_for(is_time).await.map(drop) {
        Ok(()) => victim.crash().await,
        Err(_) => victim.close().await,
    }
}
