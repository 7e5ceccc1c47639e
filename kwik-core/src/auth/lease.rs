use std::time::Duration;

use super::{
    AuthError, SIGNATURE_BYTES,
    identity::{Identity, Label, PublicIdentity},
    ticket::CLOCK_SKEW,
    time::UnixTime,
};
use crate::id::{PathId, SessionId};

/// The primary's statement that `path` of `session` was still wanted at the time `issued`.
pub(crate) fn sign_lease(
    primary: &Identity,
    session: SessionId,
    path: PathId,
    issued: UnixTime,
) -> [u8; SIGNATURE_BYTES] {
    primary.sign(Label::Lease, &lease_parts(&session, &path.0.to_be_bytes(), &issued.as_millis().to_be_bytes()))
}

/// How long the primary wants a path, as far as the secondary knows. A statement counts from the time it was made, so
/// that neither a slow line nor a client that keeps it for later lengthens it.
#[derive(Debug)]
pub(crate) struct LeaseTerm {
    issuer: PublicIdentity,
    session: SessionId,
    path: PathId,
    /// How long each statement is good for.
    pub(crate) span: Duration,
    last: UnixTime,
}

impl LeaseTerm {
    /// A term that the ticket began, which was issued at `since`.
    pub(crate) fn new(
        issuer: PublicIdentity,
        session: SessionId,
        path: PathId,
        span: Duration,
        since: UnixTime,
    ) -> Self {
        Self { issuer, session, path, span, last: since }
    }

    /// How long the path may live from `now` on, if a statement renews the term. One that is not new, or of the future,
    /// or that no time is left of, is none.
    ///
    /// # Errors
    /// [`AuthError::Payload`] if the issuer did not make it.
    pub(crate) fn renew(
        &mut self,
        issued: UnixTime,
        signature: &[u8; SIGNATURE_BYTES],
        now: UnixTime,
    ) -> Result<Option<Duration>, AuthError> {
        // Statements to be ignored are found first, so that no signature is verified for them ([P-4.14]).
        let left = issued.saturating_add(self.span).checked_since(now).filter(|left| !left.is_zero());
        let Some(left) = left.filter(|_| issued > self.last && issued <= now.saturating_add(CLOCK_SKEW)) else {
            return Ok(None);
        };
        let (path, at) = (self.path.0.to_be_bytes(), issued.as_millis().to_be_bytes());
        if !self.issuer.verify(Label::Lease, &lease_parts(&self.session, &path, &at), signature) {
            return Err(AuthError::Payload);
        }
        self.last = issued;
        // The primary's clock may be ahead of this one, which must not lengthen the lease.
        Ok(Some(left.min(self.span)))
    }
}

fn lease_parts<'a>(session: &'a SessionId, path: &'a [u8; 4], issued: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [&session.0, path, issued]
}
