//! What must hold of every world at every moment, and a reference model to judge by.

mod coverage;
mod memory;
mod model;
mod ranges;
mod watch;

pub use coverage::Coverage;
pub use model::{Flow, FlowModel, NEVER_HONEST, ReadEnd, SharedModel};
pub use watch::Watch;

pub(crate) use coverage::name_of;
pub(crate) use model::RawKey;
