//! Looks at a world after every step.

use std::time::Duration;

use kwik_core::{Limits, Role, SessionStats};

use super::memory;
use super::model::SharedModel;
use crate::world::World;

/// Watches one world.
pub struct Watch {
    model: SharedModel,
    limits: Limits,
    next_audit: Duration,
}

impl Watch {
    /// Sums and counters are audited so often; all else is judged at once.
    const AUDIT_EVERY: Duration = Duration::from_millis(100);

    /// Watches a world whose sessions have these limits.
    #[must_use]
    pub fn new(world: &mut World, model: SharedModel, limits: Limits) -> Self {
        world.watch_amplification();
        Self { model, limits, next_audit: Duration::ZERO }
    }

    /// Looks at what the last step did. Returns whether all is well.
    pub fn look(&mut self, world: &mut World) -> bool {
        let mut model = self.model.borrow_mut();
        if world.elapsed() >= self.next_audit {
            self.next_audit = world.elapsed() + Self::AUDIT_EVERY;
            for violation in world.take_amplification() {
                model.violate(violation);
            }
            self.audit(world).into_iter().for_each(|violation| model.violate(violation));
        }
        model.violations().is_empty()
    }

    /// Audits the world as it is.
    pub fn audit_now(&self, world: &World) {
        let mut model = self.model.borrow_mut();
        self.audit(world).into_iter().for_each(|violation| model.violate(violation));
    }

    fn audit(&self, world: &World) -> Vec<String> {
        let mut wrong = Vec::new();
        for node in world.nodes().filter(|node| !world.is_crashed(*node)).collect::<Vec<_>>() {
            // An operator sees these as errors.
            wrong.extend(world.defects(node).iter().map(|event| format!("{node} has a defect: {event:?}")));
            let stats = world.stats(node);
            if stats.memory_bytes > stats.memory_bytes_max {
                wrong.push(format!("{node} may be made to hold {} bytes", stats.memory_bytes));
            }
            for handle in world.sessions(node) {
                let Some(session) = world.session(node, handle) else { continue };
                session.assert_ledger();
                let (role, stats) = (session.role(), session.stats());
                let excess =
                    self.excess(role, &stats).or_else(|| memory::excess(&self.limits, role, session.held_bytes()));
                wrong.extend(excess.map(|what| format!("{node}, session {handle:?}: {what}")));
            }
        }
        wrong
    }

    /// The counter that is over its cap, if one is.
    fn excess(&self, role: Role, stats: &SessionStats) -> Option<String> {
        let limits = &self.limits;
        // Both ends may open as many as the other end allows.
        let streams_max = memory::streams_max(limits);
        if stats.streams_open as u64 > streams_max {
            return Some(format!("{} streams are open; at most {streams_max}", stats.streams_open));
        }
        let live = stats.paths.iter().filter(|path| !path.state.is_dead()).count();
        let paths_max = if role == Role::Client { limits.paths_max } else { 1 };
        if live > paths_max {
            return Some(format!("{live} paths are alive; at most {paths_max}"));
        }
        // A quarter more for what pieces pin, and the margin of writes that may be sent at once.
        let bytes_max = memory::buffers_max(limits);
        if stats.bytes_buffered as u64 > bytes_max {
            return Some(format!("{} bytes are buffered; at most {bytes_max}", stats.bytes_buffered));
        }
        let carriers_max = 2 * limits.carriers_max + 16;
        let carriers = stats.paths.iter().map(|path| path.carriers).max().unwrap_or(0);
        (carriers > carriers_max).then(|| format!("{carriers} carriers are open; at most {carriers_max}"))
    }
}
