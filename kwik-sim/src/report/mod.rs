//! A run for people to look at: [`write_html`] makes one page of it, [`write_qlog`] one file for each node.
//!
//! A world tells enough of a run if [`WorldConfig::sample_paths`](crate::WorldConfig::sample_paths) is set and its trace
//! [keeps](crate::Trace::keep) all events.

mod chart;
mod disturbances;
mod lanes;
mod page;
mod qlog;
mod run;
mod stream;
mod table;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use page::{html, write_html};
pub use qlog::{qlog, write_qlog};

/// What a report says of a run beyond its trace.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// What the world was built from.
    pub seed: u64,
    /// The options that matter most, by name.
    pub options: Vec<(String, String)>,
    /// All options of the run, as text of several lines; may be empty.
    pub details: String,
    /// The names of the nodes, in the order they were added; nodes beyond have none.
    pub nodes: Vec<String>,
    /// How it ended.
    pub outcome: Ending,
    /// How long it took, in virtual time.
    pub duration: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ending {
    /// Nobody said.
    #[default]
    Unknown,
    /// As it should.
    Passed,
    /// Not so, and why.
    Failed(Vec<String>),
}

impl Summary {
    /// What a node is called.
    fn node_name(&self, node: usize) -> String {
        match self.nodes.get(node) {
            Some(name) => format!("n{node} {name}"),
            None => format!("n{node}"),
        }
    }
}
