use std::ops::Range;

use super::{
    AuthError, SIGNATURE_BYTES,
    identity::{Identity, Label, PublicIdentity},
    ticket::Ticket,
};
use crate::id::{GrantId, PathId, SessionId, StreamId};

/// Where signed bytes belong: one place in the sequence from one server of a session to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignatureContext {
    /// The session.
    pub(crate) session: SessionId,
    /// The path of the server that signs.
    pub(crate) from: PathId,
    /// The path of the server that is to believe.
    pub(crate) to: PathId,
    /// Larger for each signature of one kind from `from` to `to`.
    pub(crate) sequence: u64,
}

impl SignatureContext {
    /// The context as one part of the message: four fixed-width fields.
    fn to_bytes(self) -> Vec<u8> {
        let (from, to, sequence) = (self.from.0.to_be_bytes(), self.to.0.to_be_bytes(), self.sequence.to_be_bytes());
        [&self.session.0[..], &from, &to, &sequence].concat()
    }
}

/// The signature of the primary `identity` on a grant: the range of the stream that `context.to` may write, and the request.
pub(crate) fn sign_grant(
    identity: &Identity,
    context: SignatureContext,
    grant: GrantId,
    stream: StreamId,
    range: Range<u64>,
    request: &[u8],
) -> [u8; SIGNATURE_BYTES] {
    identity.sign(Label::Grant, &[&context.to_bytes(), &grant_bytes(grant, stream, &range), request])
}

/// Checks what [`sign_grant`] made.
///
/// # Errors
///
/// [`AuthError::Payload`] if `issuer` did not sign exactly this.
pub(crate) fn verify_grant(
    issuer: &PublicIdentity,
    signed: &[u8; SIGNATURE_BYTES],
    context: SignatureContext,
    grant: GrantId,
    stream: StreamId,
    range: Range<u64>,
    request: &[u8],
) -> Result<(), AuthError> {
    let parts: [&[u8]; 3] = [&context.to_bytes(), &grant_bytes(grant, stream, &range), request];
    if issuer.verify(Label::Grant, &parts, signed) { Ok(()) } else { Err(AuthError::Payload) }
}

/// The signature of the server `identity` on a raw packet.
pub(crate) fn sign_raw(identity: &Identity, context: SignatureContext, payload: &[u8]) -> [u8; SIGNATURE_BYTES] {
    identity.sign(Label::Raw, &[&context.to_bytes(), payload])
}

/// Checks what [`sign_raw`] made.
///
/// # Errors
///
/// [`AuthError::Payload`] if `sender` did not sign exactly this.
pub(crate) fn verify_raw(
    sender: &PublicIdentity,
    signed: &[u8; SIGNATURE_BYTES],
    context: SignatureContext,
    payload: &[u8],
) -> Result<(), AuthError> {
    let valid = sender.verify(Label::Raw, &[&context.to_bytes(), payload], signed);
    if valid { Ok(()) } else { Err(AuthError::Payload) }
}

/// Who stands behind `path` of `session`, on the word of the primary `issuer`: the secondary its ticket names. The time
/// does not matter here, since the lease of the path governs how long the path lives.
///
/// # Errors
///
/// Those of [`Ticket::decode`], then [`AuthError::Issuer`], [`AuthError::Scope`] or [`AuthError::Signature`].
pub(crate) fn verify_forwarded_ticket(
    ticket: &[u8],
    session: SessionId,
    path: PathId,
    issuer: &PublicIdentity,
) -> Result<PublicIdentity, AuthError> {
    let unverified = Ticket::decode(ticket)?;
    let claims = unverified.claims();
    if claims.issuer != *issuer {
        return Err(AuthError::Issuer);
    }
    if (claims.session, claims.path) != (session, path) {
        return Err(AuthError::Scope);
    }
    Ok(unverified.check_signature()?.secondary)
}

/// Lets each signature of one sequence through once and in order. Gaps are legal: not every signed packet arrives.
#[derive(Debug, Default)]
pub(crate) struct ReplayWindow {
    last: Option<u64>,
}

impl ReplayWindow {
    /// Whether `sequence` is not used up. To be asked before the signature is looked at, because it is cheap.
    pub(crate) fn is_new(&self, sequence: u64) -> bool {
        self.last.is_none_or(|last| sequence > last)
    }

    /// Uses up `sequence`. To be called only after the signature was found good, or a liar could use up them all.
    ///
    /// # Errors
    ///
    /// [`AuthError::Replayed`] if this sequence number, or a later one, was used before.
    pub(crate) fn accept(&mut self, sequence: u64) -> Result<(), AuthError> {
        if !self.is_new(sequence) {
            return Err(AuthError::Replayed);
        }
        self.last = Some(sequence);
        Ok(())
    }
}

/// What a grant allows, as one part of the message: four fixed-width numbers.
fn grant_bytes(grant: GrantId, stream: StreamId, range: &Range<u64>) -> Vec<u8> {
    [grant.0, stream.0, range.start, range.end].map(u64::to_be_bytes).concat()
}
