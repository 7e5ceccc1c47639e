//! The logical streams at one end of one session: what was written and read, how far each side may go, and what is to
//! be told to the peer. It knows no wire format, no QUIC and no clock.

mod assembly;
mod buffer;
mod flow;
mod ids;
mod optional;
mod piece;
mod pieces;
mod reassembly;
mod recv;
mod send;
mod slices;
mod table;

pub(crate) use flow::Room;
pub use reassembly::Chunk;
#[cfg(feature = "__test_exports")]
pub(crate) use reassembly::Reassembly;
pub(crate) use recv::DataOutcome;
pub use recv::ReadError;
pub(crate) use send::Segment;
pub use send::WriteError;
pub use table::{ClosedStream, FinishError, OpenError, StreamEvent};
pub(crate) use table::{ReserveError, StreamControl, StreamTable, TableRole};

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
