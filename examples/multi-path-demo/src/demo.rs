//! Everything in one process: the servers, each on a thread of its own, and a client.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kwik_tokio::{PathTarget, dial};
use tokio::sync::watch;

use crate::{
    certificates::DevelopmentCa,
    client::{self, Progress, TemporaryFile},
    content::Library,
    report::{self, Report},
    server::{ServerThread, Site},
};

/// What to show.
#[derive(Debug)]
pub(crate) struct Demo {
    pub(crate) library: Library,
    /// Servers in all, the primary among them.
    pub(crate) servers: usize,
    /// Whether a secondary crashes in mid-transfer.
    pub(crate) kill_one: bool,
    pub(crate) output: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<Report> {
        ensure!(self.servers > 1 || !self.kill_one, "there is no secondary to kill: use at least 2 servers");
        let name = self.library.only_name().context("the file has no name that can be asked for")?;
        self.library.open(&name)?;
        let ca = DevelopmentCa::new()?;
        let mut servers = Servers::start(&ca, &self.library, self.servers).await?;

        let (progress, watched) = watch::channel(Progress::default());
        let drawing = tokio::spawn(report::draw(watched.clone()));
        let victim = if self.kill_one { servers.secondaries.pop() } else { None };
        let killing = tokio::spawn(kill_in_mid_transfer(victim, watched));

        let temporary = TemporaryFile::new();
        let output = self.output.as_deref().unwrap_or_else(|| temporary.path());
        let session = dial((servers.primary.address(), "primary"), ca.client_config()?).await?;
        let fetched = client::fetch(&session, &name, output, &progress).await;
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

struct Servers {
    primary: ServerThread,
    secondaries: Vec<ServerThread>,
}

impl Servers {
    /// Starts the secondaries, then the primary, which knows them. They trust the primary's identity.
    async fn start(ca: &DevelopmentCa, library: &Library, count: usize) -> Result<Self> {
        let primary = ca.issue("primary")?;
        let mut secondaries = Vec::new();
        let mut targets = Vec::new();
        for number in 1..count {
            let server_name = format!("secondary-{number}");
            let config = ca.issue(&server_name)?.server_config()?.trust_primary(primary.identity());
            let identity = config.identity();
            let site = Site { library: library.clone(), secondaries: Vec::new() };
            let secondary = ServerThread::start(config, site).await?;
            targets.push(PathTarget { address: secondary.address(), server_name, identity });
            secondaries.push(secondary);
        }
        let site = Site { library: library.clone(), secondaries: targets };
        Ok(Self { primary: ServerThread::start(primary.server_config()?, site).await?, secondaries })
    }

    async fn close(self) -> Result<()> {
        self.primary.close().await?;
        for secondary in self.secondaries {
            secondary.close().await?;
        }
        Ok(())
    }
}

/// Crashes a server when an eighth of the file has arrived. One whose time did not come is closed.
async fn kill_in_mid_transfer(victim: Option<ServerThread>, mut progress: watch::Receiver<Progress>) -> Result<()> {
    let Some(victim) = victim else { return Ok(()) };
    let is_time = |progress: &Progress| progress.length.is_some_and(|length| progress.received() >= length / 8);
    match progress.wait_for(is_time).await.map(drop) {
        Ok(()) => victim.crash().await,
        Err(_) => victim.close().await,
    }
}
