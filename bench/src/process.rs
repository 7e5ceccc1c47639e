//! The two processes of a round, and the lines of JSON between them and the comparison.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// One side of a round. It ends with this value.
pub(crate) struct Side {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<io::Result<String>>,
    deadline: Instant,
}

impl Side {
    /// Starts this program with `arguments`. Nothing is waited for beyond `deadline`.
    pub(crate) fn start(name: String, arguments: &[String], deadline: Instant) -> Result<Self> {
        let program = env::current_exe().context("the path of this program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name} has no pipes");
        };
        let (sender, lines) = channel();
        thread::spawn(move || BufReader::new(output).lines().try_for_each(|line| sender.send(line)));
        Ok(Self { name, child, input, lines, deadline })
    }

    /// Sends an empty line, which a side waits for before it goes on.
    pub(crate) fn go_on(&mut self) -> Result<()> {
        writeln!(self.input).with_context(|| format!("{} does not listen", self.name))
    }

    /// The next line of its output.
    pub(crate) fn hear<T: DeserializeOwned>(&self) -> Result<T> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                let line = line.with_context(|| format!("the output of {}", self.name))?;
                serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{} failed", self.name),
            Err(RecvTimeoutError::Timeout) => bail!("{} is not done in time (--timeout)", self.name),
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes one line of JSON.
pub(crate) fn tell(what: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    Ok(out.flush()?)
}

pub(crate) fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    Ok(builder.enable_all().build()?)
}
