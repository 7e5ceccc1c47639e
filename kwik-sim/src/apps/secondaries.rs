//! The secondaries of one session, as its primary keeps them: added at the start, added again when they died.

use std::time::{Duration, Instant};

use kwik_core::{AddPathError, PathEvent, PathId, PathTarget, SessionMut};

use super::server::Tools;

/// The secondaries of one session.
#[derive(Debug)]
pub(super) struct Secondaries(Vec<SecondaryPath>);

#[derive(Debug)]
struct SecondaryPath {
    target: PathTarget,
    path: Option<PathId>,
    tries_left: u32,
    add_at: Option<Instant>,
    remove_at: Option<Instant>,
}

impl Secondaries {
    pub(super) fn new(tools: &Tools<'_>) -> Self {
        let member = |target: &PathTarget| SecondaryPath {
            target: target.clone(),
            path: None,
            tries_left: 1 + tools.plan.path_retries,
            add_at: Some(tools.now),
            remove_at: None,
        };
        Self(tools.plan.others.iter().map(member).collect())
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.0.iter().flat_map(|member| [member.add_at, member.remove_at]).flatten().min()
    }

    /// Adds and removes what is due.
    pub(super) fn wake(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        for member in &mut self.0 {
            if member.add_at.is_some_and(|at| at <= tools.now) {
                member.add_at = None;
                member.add(session, tools);
            }
            if member.remove_at.is_some_and(|at| at <= tools.now) {
                member.remove_at = None;
                if let Some(path) = member.path
                    && session.remove_path(path).is_ok()
                {
                    tools.model.coverage.work("path removed");
                }
            }
        }
    }

    /// A path changed. Returns it if it just joined.
    pub(super) fn on_event(
        &mut self,
        event: &PathEvent,
        session: &SessionMut<'_>,
        tools: &mut Tools<'_>,
    ) -> Option<PathId> {
        let path = event.path();
        let member = self.0.iter_mut().find(|member| member.path == Some(path))?;
        match event {
            PathEvent::Joined(_) => {
                tools.model.coverage.work("path joined");
                if tools.chance(tools.plan.remove_path) {
                    member.remove_at = Some(tools.now + Duration::from_millis(tools.rng.below(2000)));
                }
                Some(path)
            }
            PathEvent::Suspect(_) => {
                tools.model.coverage.work("path suspect");
                None
            }
            PathEvent::Recovered(_) => {
                tools.model.coverage.work("path recovered");
                None
            }
            PathEvent::Conflict { .. } => {
                tools.model.coverage.work("writers in conflict");
                None
            }
            PathEvent::Dead { reason, .. } => {
                if let Some(session) = session.id() {
                    tools.model.path_died(session, path, reason.code);
                }
                member.path = None;
                member.remove_at = None;
                if member.tries_left > 0 {
                    member.add_at = Some(tools.now + Duration::from_millis(100 + tools.rng.below(3000)));
                }
                None
            }
        }
    }
}

impl SecondaryPath {
    fn add(&mut self, session: &mut SessionMut<'_>, tools: &mut Tools<'_>) {
        self.tries_left = self.tries_left.saturating_sub(1);
        match session.add_path(tools.now, self.target.clone()) {
            Ok(path) => {
                self.path = Some(path);
                if let Some(session) = session.id() {
                    tools.model.path(session, path, self.target.identity);
                }
            }
            Err(AddPathError::LimitReached { .. }) => tools.model.coverage.limit("paths"),
            Err(AddPathError::SessionClosed) => {}
            Err(error) => tools.model.violate(format!("a path was not added: {error}")),
        }
    }
}
