//! Worlds by the thousand: everything about one follows from its seed.

mod disturbances;
mod habits;
mod options;
mod run;
mod runner;
mod table;

pub use disturbances::DisturbancePlan;
pub use habits::Habit;
pub use options::{ByzantinePeers, ClientOptions, InvalidPath, Options, Tight};
pub use run::{WorldOutcome, run};
pub use runner::{Swarm, Sweep, sweep};
pub use table::{coverage_gaps, coverage_table};
