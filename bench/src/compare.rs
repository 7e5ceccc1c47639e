//! Rounds of KWIK and of the other library in turn.

use std::io::{self, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cli::Plan;
use crate::process::Side;
use crate::report::{Comparison, Figures};
use crate::task::{Library, Outcome, Ready, ServerAddress, Task};
use crate::usage::Usage;

/// What both processes of a round told.
pub(crate) struct Round {
    pub(crate) task: Task,
    pub(crate) ready: Ready,
    pub(crate) outcome: Outcome,
    /// Of the server: before the first session, when the work began and when it was done.
    pub(crate) server: [Usage; 3],
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let mut comparison = Comparison::default();
    for pair in 0..plan.pairs {
        let round = |library| {
            let round = run_round(plan, library)
                .with_context(|| format!("round {} of {}, {}", pair + 1, plan.pairs, library.name()))?;
            anyhow::Ok(Figures::of(&round))
        };
        // What comes second may find the machine warmer: each does so as often as the other.
        let (kwik, peer) = if pair % 2 == 0 {
            let kwik = round(Library::Kwik)?;
            (kwik, round(plan.peer)?)
        } else {
            let peer = round(plan.peer)?;
            (round(Library::Kwik)?, peer)
        };
        comparison.pairs.push((kwik, peer));
        let show = |figures: &Figures| figures.get("seconds").map_or_else(String::new, |time| format!(" {time:.3} s"));
        let (kwik, peer) = comparison.pairs.last().map(|(kwik, peer)| (show(kwik), show(peer))).unwrap_or_default();
        writeln!(io::stderr(), "pair {}: kwik{kwik}, {}{peer}", pair + 1, plan.peer.name())?;
    }
    let mut out = io::stdout().lock();
    if plan.json {
        writeln!(out, "{}", comparison.json(plan))?;
    } else {
        write!(out, "{}", comparison.table(plan))?;
    }
    Ok(())
}

fn run_round(plan: &Plan, library: Library) -> Result<Round> {
    let task = plan.task(library);
    let deadline = Instant::now() + plan.timeout();
    let name = |side: &str| format!("the {side} of {}", library.name());
    let told = serde_json::to_string(&task)?;

    let mut server = Side::start(name("server"), &["server".to_owned(), told.clone()], deadline)?;
    let address: ServerAddress = server.hear()?;
    let mut usage = || {
        server.go_on()?;
        server.hear::<Usage>()
    };
    let before = usage()?;
    let arguments = ["client".to_owned(), told, serde_json::to_string(&address)?];
    let mut client = Side::start(name("client"), &arguments, deadline)?;
    let ready = client.hear()?;
    let begin = usage()?;
    client.go_on()?;
    let outcome = client.hear()?;
    Ok(Round { task, ready, outcome, server: [before, begin, usage()?] })
}
