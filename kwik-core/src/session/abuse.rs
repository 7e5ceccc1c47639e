//! What frames that change nothing cost the path that brings them (PROTOCOL.md §5).

use std::time::Instant;

use super::Session;
use crate::error::{Fault, FrameEffect, TransportCode};
use crate::id::PathId;

impl Session {
    /// What came of a frame of `from`: a fault closes the path of the offender, and so do too many frames without effect. A
    /// few are normal, when frames cross.
    pub(super) fn close_on_fault(&mut self, now: Instant, from: PathId, outcome: Result<FrameEffect, Fault>) {
        if let Err(fault) = outcome.and_then(|effect| self.charge(now, from, effect)) {
            let offender = fault.offender.unwrap_or(from);
            self.on_fault(now, offender, fault.code, fault.detail);
        }
    }

    fn charge(&mut self, now: Instant, from: PathId, effect: FrameEffect) -> Result<(), Fault> {
        let path = self.paths.get_mut(&from).filter(|_| effect == FrameEffect::NoOp);
        if path.is_some_and(|path| !path.admit_no_op(now)) {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "too many frames that achieve nothing"));
        }
        Ok(())
    }
}
