//! The primary's work on one file: it distributes the file over all servers that hold it, itself being one.

use std::{
    ops::Range,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use kwik_tokio::{
    DistributionHandle, DistributionReport, PathId, PathState, PathTarget, ServerSendStream, ServerSession,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    content::Content,
    message::{self, Answer, Command, Question},
    server::Site,
};

/// How long a secondary may take to join and to say whether it holds a file. The transfer does not wait for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A file on its way into a stream.
pub(crate) struct Transfer<'a> {
    pub(crate) session: &'a ServerSession,
    pub(crate) site: &'a Site,
    pub(crate) content: Content,
    pub(crate) name: &'a str,
    /// Where the file begins in the stream.
    pub(crate) start: u64,
}

/// What a transfer came to.
pub(crate) struct Tally {
    pub(crate) report: DistributionReport,
    /// Questions by raw packet that were answered.
    pub(crate) raw_round_trips: u64,
}

impl Transfer<'_> {
    /// Returns when the primary has written its ranges and the client has the others.
    pub(crate) async fn run(&self, stream: &ServerSendStream) -> Result<Tally> {
        let (start, length) = (self.start, self.content.length());
        let (content, limit) = (self.content.clone(), Arc::clone(&self.site.limit));
        let distribution = stream.distribute(start..start + length).source_local(move |range| {
            let (content, limit) = (content.clone(), Arc::clone(&limit));
            async move {
                limit.pass(range.end - range.start).await;
                content.read(range.start - start..range.end - start).await.map_err(std::io::Error::other)
            }
        });
        let answers = AtomicU64::new(0);
        let handle = distribution.handle();
        let mut distributed = pin!(distribution.run());
        let report = tokio::select! {
            report = &mut distributed => report?,
            asked = self.ask_secondaries(&handle, &answers) => {
                asked?;
                distributed.await?
            }
        };
        Ok(Tally { report, raw_round_trips: answers.into_inner() })
    }

    /// Has the client dial the secondaries that are not in the session, asks all by raw packet whether they hold the same
    /// file, and makes those that do sources. One that cannot join, or is silent, costs speed only.
    async fn ask_secondaries(&self, handle: &DistributionHandle, answers: &AtomicU64) -> Result<()> {
        let question = message::encode(&Question { name: self.name.to_owned() })?;
        let mut asked = JoinSet::new();
        for target in self.site.secondaries.clone() {
            let (session, question) = (self.session.clone(), question.clone());
            asked.spawn(async move {
                let address = target.address;
                if let Err(error) = ask(&session, target, question).await {
                    eprintln!("primary: the secondary at {address} does not help: {error:#}");
                }
            });
        }
        let (mut left, until) = (asked.len(), Instant::now() + ANSWER_TIMEOUT);
        while left > 0 {
            let Ok(packet) = timeout_at(until, self.session.recv_raw()).await else { break };
            let packet = packet?;
            let answer: Answer = message::decode(&packet.data)?;
            // An answer about another file may be late.
            if answer.name == self.name {
                left -= 1;
                answers.fetch_add(1, Ordering::Relaxed);
                if answer.length == Some(self.content.length()) {
                    self.add_source(handle, packet.from);
                }
            }
        }
        Ok(())
    }

    fn add_source(&self, handle: &DistributionHandle, path: PathId) {
        let (name, start) = (self.name.to_owned(), self.start);
        handle.add_source(path, move |range: Range<u64>| {
            let (offset, length) = (range.start - start, range.end - range.start);
            // A command that cannot be encoded is one that the secondary refuses.
            message::encode(&Command { name: name.clone(), offset, length }).unwrap_or_default().into()
        });
    }
}

/// Asks one secondary, once it is in the session.
async fn ask(session: &ServerSession, target: PathTarget, question: Vec<u8>) -> Result<()> {
    let paths = session.all_paths();
    let mut known = paths.iter().filter(|path| !path.state.is_dead() && path.identity == target.identity);
    let path = match known.find(|path| path.state == PathState::Active) {
        Some(path) => path.id,
        None => session.add_path(target).await.context("it did not join")?,
    };
    session.send_raw(path, question).await.context("it did not take a question")
}
