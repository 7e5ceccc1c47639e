//! The logical streams at one end of one session: what was written and read, how far each side may go, and what is to
//! be told to the peer. It knows no wire format, no QUIC and no clock.

mod buffer;
mod delegations;
mod fair;
mod flow;
mod grants;
mod ids;
mod piece;
mod reassembly;
mod recv;
mod send;
mod slices;
mod table;

pub use delegations::DelegationState;
pub(crate) use delegations::{Change, Delegations, Outcome};
pub(crate) use grants::{Access, Grant, GrantReport, GrantTable};

pub(crate) use flow::Room;
pub use reassembly::Chunk;
#[cfg(feature = "__test_exports")]
pub(crate) use reassembly::Reassembly;
pub(crate) use reassembly::{Conflict, Inserted};
pub use recv::ReadError;
pub(crate) use recv::{DataOutcome, Overflow};
pub(crate) use send::Segment;
pub use send::WriteError;
pub use table::{ClosedStream, FinishError, OpenError, StreamEvent};
pub(crate) use table::{ReserveError, StreamControl, StreamTable, TableRole};

use crate::error::TransportCode;
use crate::id::PathId;

/// The peer broke a rule. The path that brought the input is closed with the code, unless another is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The code the path is closed with.
    pub(crate) code: TransportCode,
    /// What was wrong, for the close reason.
    pub(crate) detail: &'static str,
    /// Whose fault it is, if not that of the path that brought the input.
    pub(crate) offender: Option<PathId>,
}

impl Fault {
    pub(crate) const fn new(code: TransportCode, detail: &'static str) -> Self {
        Self { code, detail, offender: None }
    }
}

/// What a frame of the peer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameEffect {
    /// Something.
    Progress,
    /// Nothing: everything it says was known, or is of no interest any more.
    NoOp,
}

impl From<FinishError> for WriteError {
    fn from(error: FinishError) -> Self {
        match error {
            FinishError::Stopped(code) => Self::Stopped(code),
            FinishError::ClosedStream => Self::ClosedStream,
        }
    }
}

impl From<ClosedStream> for WriteError {
    fn from(_: ClosedStream) -> Self {
        Self::ClosedStream
    }
}

impl From<ClosedStream> for ReadError {
    fn from(_: ClosedStream) -> Self {
        Self::ClosedStream
    }
}

#[cfg(test)]
mod tests;
