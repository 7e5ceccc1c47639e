//! What frames of a peer are worth: those that achieve nothing are counted (PROTOCOL.md §5).

use std::time::Instant;

use super::Machine;
use crate::error::TransportCode;
use crate::id::PathId;
use crate::stream::{Fault, Worth};

impl Machine {
    /// The frame being handled changed nothing.
    pub(super) fn note_idle(&mut self) {
        self.worth = Worth::Nothing;
    }

    /// Counts the frame that was handled. A few useless ones are normal, when frames cross; a flood is a fault.
    pub(super) fn charge(&mut self, now: Instant, from: PathId) -> Result<(), Fault> {
        let worth = std::mem::take(&mut self.worth).max(self.streams.take_worth());
        let Some(path) = self.paths.get_mut(&from) else { return Ok(()) };
        if worth == Worth::Nothing && !path.admit_idle(now) {
            return Err(Fault::new(TransportCode::CONTROL_FLOOD, "too many frames that achieve nothing"));
        }
        Ok(())
    }
}
