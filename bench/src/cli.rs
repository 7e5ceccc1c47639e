//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;

use crate::task::{Library, ServerAddress, Task, Workload};

/// Measures KWIK against another QUIC library on the loopback interface.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    side: Option<SideOfARound>,
    #[command(flatten)]
    plan: Option<Plan>,
}

/// The processes that the comparison starts.
#[derive(Debug, Subcommand)]
enum SideOfARound {
    #[command(hide = true)]
    Server {
        #[arg(value_parser = json::<Task>)]
        task: Task,
    },
    #[command(hide = true)]
    Client {
        #[arg(value_parser = json::<Task>)]
        task: Task,
        #[arg(value_parser = json::<ServerAddress>)]
        server: ServerAddress,
    },
}

/// What this process is to do.
pub(crate) enum Command {
    Compare(Plan),
    Server(Task),
    Client { task: Task, server: ServerAddress },
}

impl Cli {
    pub(crate) fn command(self) -> Command {
        match (self.side, self.plan) {
            (Some(SideOfARound::Server { task }), _) => Command::Server(task),
            (Some(SideOfARound::Client { task, server }), _) => Command::Client { task, server },
            (None, Some(plan)) => Command::Compare(plan),
            (None, None) => Self::parse_from(["kwik-bench", "--help"]).command(),
        }
    }
}

/// What is compared, and how often.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// What the two sides do.
    #[arg(value_enum)]
    pub(crate) workload: Workload,
    /// The library that KWIK is compared with. `kwik` shows how much two runs of the same differ.
    #[arg(long, value_enum, default_value = "quinn")]
    pub(crate) peer: Library,
    /// Rounds of KWIK and of the peer, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) pairs: u32,
    /// The same congestion control, datagram sizes, windows and socket buffers for both (this is the default).
    #[arg(long, conflicts_with = "defaults")]
    equal: bool,
    /// The defaults of each library.
    #[arg(long)]
    defaults: bool,
    /// The last line of the output is one JSON object, and the only one.
    #[arg(long)]
    pub(crate) json: bool,
    /// MiB in each session (bulk, upload) [default: 256].
    #[arg(long)]
    mib: Option<u64>,
    /// Messages, streams or dials in a round [defaults: rr 20000, streams 200000, dial 200, mixed 300].
    #[arg(long)]
    operations: Option<u64>,
    /// Bytes of a message, a request and a reply [defaults: rr and mixed 1024, streams 64].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    message_bytes: Option<u32>,
    /// Operations at once (streams, dial) [defaults: streams 50, dial 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Option<u32>,
    /// Sessions to the one server (bulk, upload, idle) [defaults: 1, idle 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    sessions: Option<u32>,
    /// How long sessions are left idle, in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle_seconds: u64,
    /// Threads of the runtime in each process; 1 is a runtime of the current thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Seconds after which a round has failed.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Plan {
    pub(crate) fn mode(&self) -> &'static str {
        if self.defaults { "defaults" } else { "equal" }
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// A round with `library`.
    pub(crate) fn task(&self, library: Library) -> Task {
        let (sessions, operations, message_bytes, concurrency) = match self.workload {
            Workload::Bulk | Workload::Upload => (1, 1, 1, 1),
            Workload::Rr => (1, 20_000, 1024, 1),
            Workload::Streams => (1, 200_000, 64, 50),
            Workload::Dial => (0, 200, 1, 1),
            Workload::Idle => (1000, 1, 1, 1),
            Workload::Mixed => (5, 300, 1024, 1),
        };
        let has_sessions = matches!(self.workload, Workload::Bulk | Workload::Upload | Workload::Idle);
        Task {
            library,
            workload: self.workload,
            is_equal: self.equal || !self.defaults,
            threads: self.threads as usize,
            sessions: self.sessions.filter(|_| has_sessions).unwrap_or(sessions) as usize,
            bytes: self.mib.unwrap_or(256) << 20,
            operations: self.operations.unwrap_or(operations),
            message_bytes: self.message_bytes.unwrap_or(message_bytes) as usize,
            concurrency: self.concurrency.unwrap_or(concurrency) as usize,
            idle_seconds: self.idle_seconds,
        }
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}
