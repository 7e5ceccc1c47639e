//! Who may do what: identities, tickets, proofs and signatures (PROTOCOL.md §4).
//!
//! Everything here is a pure function of its arguments. It knows no clock, no connection and no frame: bytes and the
//! time come in, a verdict goes out.

mod identity;
mod lease;
mod proof;
mod signed;
mod ticket;
mod time;

#[cfg(test)]
mod tests;

pub use identity::{Identity, IdentityError, PublicIdentity};
pub(crate) use lease::{LeaseTerm, sign_lease};
pub(crate) use proof::{EXPORTER_LABEL, hello_proof, join_proof, verify_hello, verify_welcome, welcome_proof};
pub(crate) use signed::{
    ReplayWindow, SignatureContext, sign_grant, sign_raw, verify_forwarded_ticket, verify_grant, verify_raw,
};
pub(crate) use ticket::{CLOCK_SKEW, LEASE_MAX, TICKET_LIFETIME, Ticket, read_join};
pub use time::UnixTime;

use crate::error::TransportCode;

/// The length of an Ed25519 signature, in bytes.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Why a peer was not believed. Logs show the cause; the wire shows only [`AuthError::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthError {
    /// The bytes are not the one encoding of a ticket.
    #[error("not a ticket: {0}")]
    Malformed(&'static str),
    /// A key in the ticket is not acceptable.
    #[error("a key in the ticket is refused: {0}")]
    Key(#[from] IdentityError),
    /// The ticket names another secondary.
    #[error("the ticket is for another server")]
    Audience,
    /// The ticket's issuer is not one that is believed here.
    #[error("the issuer of the ticket is not trusted")]
    Issuer,
    /// The ticket is for another session or path.
    #[error("the ticket is for another session or path")]
    Scope,
    /// The ticket is used outside its time, or claims too long a time.
    #[error("the ticket is used outside its time")]
    Time,
    /// The issuer did not sign these claims.
    #[error("the signature of the ticket is wrong")]
    Signature,
    /// The client of that key does not speak on this connection.
    #[error("the proof of possession is wrong")]
    Proof,
    /// The server does not prove its identity on this connection.
    #[error("the welcome is not signed by the identity it names")]
    Welcome,
    /// The signed bytes, or what surrounds them, are not what was signed.
    #[error("the signature of the payload is wrong")]
    Payload,
    /// The signed payload was used before, or a later one was.
    #[error("the signed payload was used before or is out of order")]
    Replayed,
}

impl AuthError {
    /// The code for the peer: it shows that its clock differs, or nothing but that authentication failed.
    pub(crate) fn code(self) -> TransportCode {
        match self {
            Self::Time => TransportCode::AUTH_TIME,
            _ => TransportCode::AUTH_FAILED,
        }
    }
}
