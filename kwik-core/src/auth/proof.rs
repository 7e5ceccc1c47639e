use sha2::{Digest, Sha256};

use super::{
    AuthError, SIGNATURE_BYTES,
    identity::{Identity, Label, PublicIdentity},
};
use crate::id::{PathId, SessionId};

/// The label under which both ends of a connection derive the 32 bytes that only they know (RFC 8446 §7.5).
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-kwik-1";

/// The client's proof that it holds its key, good on the connection of `exporter` alone: nobody can pass on the key of
/// another as its own.
pub(crate) fn hello_proof(client_key: &Identity, exporter: &[u8; 32]) -> [u8; SIGNATURE_BYTES] {
    client_key.sign(Label::Hello, &[exporter])
}

/// Checks what [`hello_proof`] made.
///
/// # Errors
///
/// [`AuthError::Proof`] if the holder of `client_key` did not sign exactly this.
pub(crate) fn verify_hello(
    client_key: &PublicIdentity,
    proof: &[u8; SIGNATURE_BYTES],
    exporter: &[u8; 32],
) -> Result<(), AuthError> {
    if client_key.verify(Label::Hello, &[exporter], proof) { Ok(()) } else { Err(AuthError::Proof) }
}

/// The client's proof that it holds the key `ticket` names, good on the connection of `exporter` alone.
pub(crate) fn join_proof(client_key: &Identity, exporter: &[u8; 32], ticket: &[u8]) -> [u8; SIGNATURE_BYTES] {
    client_key.sign(Label::JoinProof, &[exporter, &Sha256::digest(ticket)])
}

/// Checks what [`join_proof`] made.
pub(super) fn verify_join_proof(
    client_key: &PublicIdentity,
    proof: &[u8; SIGNATURE_BYTES],
    exporter: &[u8; 32],
    ticket: &[u8],
) -> Result<(), AuthError> {
    let valid = client_key.verify(Label::JoinProof, &[exporter, &Sha256::digest(ticket)], proof);
    if valid { Ok(()) } else { Err(AuthError::Proof) }
}

/// The server's proof that it holds `identity`, good on the connection of `exporter` alone, for one path of one session
/// of the client with `client_key`.
pub(crate) fn welcome_proof(
    identity: &Identity,
    exporter: &[u8; 32],
    session: SessionId,
    path: PathId,
    client_key: &PublicIdentity,
) -> [u8; SIGNATURE_BYTES] {
    identity.sign(Label::Welcome, &[exporter, &session.0, &path.0.to_be_bytes(), client_key.as_bytes()])
}

/// Checks what [`welcome_proof`] made.
///
/// # Errors
///
/// [`AuthError::Welcome`] if `identity` did not sign exactly this.
pub(crate) fn verify_welcome(
    identity: &PublicIdentity,
    proof: &[u8; SIGNATURE_BYTES],
    exporter: &[u8; 32],
    session: SessionId,
    path: PathId,
    client_key: &PublicIdentity,
) -> Result<(), AuthError> {
    let parts: [&[u8]; 4] = [exporter, &session.0, &path.0.to_be_bytes(), client_key.as_bytes()];
    if identity.verify(Label::Welcome, &parts, proof) { Ok(()) } else { Err(AuthError::Welcome) }
}
