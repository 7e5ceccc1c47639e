//! How a session and its paths begin and end.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::{
    error::{ErrorCode, cut_reason, received_reason},
    id::{PathId, SessionId},
    limits::{CLOSE_REASON_BYTES_MAX, CREDENTIAL_BYTES_MAX, TICKET_BYTES_MAX},
    wire::{
        Params, WireError,
        coding::{Decoder, Field, fields_in_order, put_bytes},
    },
};

/// Client → primary: begins a session.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u64,
    pub(crate) params: Params,
    /// The key of this session, to which tickets are bound.
    pub(crate) client_key: [u8; 32],
    /// The client's signature that binds its key to this connection.
    pub(crate) proof: [u8; 64],
    /// What the application shows of itself, at most [`CREDENTIAL_BYTES_MAX`].
    pub(crate) credential: Bytes,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The credential is a secret of the application.
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("params", &self.params)
            .field("client_key", &self.client_key)
            .field("credential_bytes", &self.credential.len())
            .finish_non_exhaustive()
    }
}

impl Field for Hello {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self {
            version: from.field()?,
            params: from.field()?,
            client_key: from.field()?,
            proof: from.field()?,
            credential: from.bytes(CREDENTIAL_BYTES_MAX)?,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.credential.len() <= CREDENTIAL_BYTES_MAX);
        self.version.put(out);
        self.params.put(out);
        self.client_key.put(out);
        self.proof.put(out);
        put_bytes(out, &self.credential);
    }
}

/// Client → secondary: joins a session the primary began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) version: u64,
    pub(crate) params: Params,
    /// What the primary signed, at most [`TICKET_BYTES_MAX`].
    pub(crate) ticket: Bytes,
    /// The client's signature that binds the ticket to this connection.
    pub(crate) proof: [u8; 64],
}

impl Field for Join {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Self {
            version: from.field()?,
            params: from.field()?,
            ticket: from.bytes(TICKET_BYTES_MAX)?,
            proof: from.field()?,
        })
    }

    fn put(&self, out: &mut BytesMut) {
        debug_assert!(self.ticket.len() <= TICKET_BYTES_MAX);
        self.version.put(out);
        self.params.put(out);
        put_bytes(out, &self.ticket);
        self.proof.put(out);
    }
}

/// Server → client: the path is part of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) session: SessionId,
    pub(crate) path: PathId,
    pub(crate) params: Params,
    pub(crate) identity: [u8; 32],
    /// The identity's signature over this connection.
    pub(crate) signature: [u8; 64],
}

/// Ends the session on a primary's path, and the path on a secondary's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: ErrorCode,
    /// For people. Cut to [`CLOSE_REASON_BYTES_MAX`] bytes when it is sent.
    pub(crate) reason: String,
}

impl Field for Close {
    fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let code = from.field()?;
        let reason = from.bytes(CLOSE_REASON_BYTES_MAX)?;
        Ok(Self { code, reason: received_reason(&reason) })
    }

    fn put(&self, out: &mut BytesMut) {
        self.code.put(out);
        put_bytes(out, cut_reason(&self.reason).as_bytes());
    }
}

fields_in_order! {
    Welcome { session, path, params, identity, signature }
}
