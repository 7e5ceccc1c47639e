//! A range of a stream that another server writes.

use std::{fmt, ops::Range, sync::Arc};

use kwik_core::{DelegateError, GrantInfo, GrantStatus, PathId, StreamId};
use tokio::sync::Notify;

use crate::{endpoint::close_code, error::Lost, session::StreamRef, waiters::contained};

/// A range of a stream that a secondary was asked to write.
///
/// Dropping it cancels nothing: the bytes arrive, but nobody is told if they do not.
pub struct Delegation {
    stream: StreamRef,
    grant: GrantInfo,
    path: PathId,
    changed: Arc<Notify>,
}

impl Delegation {
    pub(crate) fn new(stream: StreamRef, grant: GrantInfo, path: PathId, changed: Arc<Notify>) -> Self {
        Self { stream, grant, path, changed }
    }

    /// Waits until the client has the whole range. Several calls give the same answer.
    ///
    /// # Errors
    /// [`Lost`] names the ranges that will not come; write or delegate them again. If the session ended before the
    /// answer, it names the whole range.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn delivered(&self) -> Result<(), Lost> {
        let end = self.stream.session.wait(&self.changed, |_| match self.state()? {
            GrantStatus::Progress { .. } => None,
            GrantStatus::Delivered => Some(Ok(())),
            GrantStatus::Lost { code, missing } => Some(Err(Lost { code, missing })),
        });
        end.await.unwrap_or_else(|error| {
            let missing = vec![self.grant.range.clone()];
            Err(Lost { code: close_code(&error), missing })
        })
    }

    /// How many bytes of the range the client is known to have.
    #[must_use]
    pub fn progress(&self) -> u64 {
        let len = self.grant.range.end.saturating_sub(self.grant.range.start);
        match self.state() {
            Some(GrantStatus::Progress { delivered }) => delivered,
            Some(GrantStatus::Delivered) => len,
            Some(GrantStatus::Lost { code, missing }) => len.saturating_sub(Lost { code, missing }.missing_bytes()),
            None => 0,
        }
    }

    /// Takes the range back. [`delivered`](Self::delivered) then tells which of its bytes are missing.
    ///
    /// # Errors
    /// [`DelegateError`], when the delegation is over already or the session ended.
    pub fn revoke(&self) -> Result<(), DelegateError> {
        let revoked = self.stream.session.command(|session, _| session.revoke(self.grant.grant));
        revoked.unwrap_or(Err(DelegateError::SessionClosed))
    }

    /// The path of the server that writes.
    #[must_use]
    pub fn path(&self) -> PathId {
        self.path
    }

    /// The bytes of the stream.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.grant.range.clone()
    }

    /// The stream.
    #[must_use]
    pub fn stream_id(&self) -> StreamId {
        self.stream.id
    }

    fn state(&self) -> Option<GrantStatus> {
        self.stream.session.look(|session| session.delegation(self.grant.grant)).flatten()
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        contained(|| {
            let _waiter = self.stream.session.command(|session, waiters| {
                session.forget_delegation(self.grant.grant);
                waiters.delegations.remove(&self.grant.grant)
            });
        });
    }
}

impl fmt::Debug for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delegation")
            .field("stream", &self.stream.id)
            .field("path", &self.path)
            .field("range", &self.grant.range)
            .finish_non_exhaustive()
    }
}
