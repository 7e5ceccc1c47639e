//! Worlds by the thousand: everything about one follows from its seed.

mod faults;
mod habits;
mod options;
mod run;
mod runner;
mod table;

pub use faults::FaultPlan;
pub use habits::Habit;
pub use options::{ClientOptions, Liar, Options, Stranger, Tight, VisitOptions};
pub use run::{Outcome, run};
pub use runner::{Swarm, Sweep, sweep};
pub use table::{coverage_gaps, coverage_table};
