//! What must hold of every world at every moment, and a reference model to judge by.

mod coverage;
mod model;
mod ranges;

pub use coverage::Coverage;
pub use model::{Flow, Model, ReadEnd, SharedModel};

pub(crate) use model::RawKey;
