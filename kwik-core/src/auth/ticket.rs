use std::time::Duration;

use bytes::Bytes;

use super::{
    AuthError, SIGNATURE_BYTES,
    identity::{Identity, Label, PublicIdentity},
    proof::verify_join_proof,
    time::{UnixTime, millis},
};
use crate::{
    id::{Epoch, PathId, SessionId},
    limits::{SERVER_NAME_BYTES_MAX, TICKET_BYTES_MAX},
};

/// How long after its issue a ticket may be used to authenticate.
pub(crate) const TICKET_LIFETIME: Duration = Duration::from_secs(60);
/// How far the clocks of a primary and a secondary may differ.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(30);
/// The longest lease: signing cuts to it and decoding refuses more, so that adding one to a clock cannot overflow.
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const VERSION: u8 = 1;
/// Everything but the server name: version, session, path, epoch, three keys, the name's length, three times.
const CLAIMS_BYTES_FIXED: usize = 1 + 16 + 4 + 8 + 3 * 32 + 2 + 3 * 8;
const _: () = assert!(CLAIMS_BYTES_FIXED + SERVER_NAME_BYTES_MAX + SIGNATURE_BYTES <= TICKET_BYTES_MAX);

/// A primary's statement that one client may join one session, as one path, at one secondary (PROTOCOL.md §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// The session that is joined.
    pub(crate) session: SessionId,
    /// The path the connection becomes.
    pub(crate) path: PathId,
    /// The epoch of the command that made the path.
    pub(crate) epoch: Epoch,
    /// The primary.
    pub(crate) issuer: PublicIdentity,
    /// The server that may be joined.
    pub(crate) secondary: PublicIdentity,
    /// The name the secondary was dialled by: 1 to 255 visible ASCII characters.
    pub(crate) server_name: String,
    /// The key the client must hold.
    pub(crate) client_key: PublicIdentity,
    /// When the primary signed.
    pub(crate) issued_at: UnixTime,
    /// When the ticket ends to be good for authentication.
    pub(crate) expires_at: UnixTime,
    /// How long the path may live once it is joined. Milliseconds on the wire, at most [`LEASE_MAX`].
    pub(crate) lease: Duration,
}

impl Ticket {
    /// The encoding of the claims and the signature of `issuer`, who must be the one the claims name.
    ///
    /// A ticket with an illegal server name encodes to bytes that nobody accepts.
    pub(crate) fn sign(&self, issuer: &Identity) -> Bytes {
        let mut out = self.encode_claims();
        let signature = issuer.sign(Label::Ticket, &[&out]);
        out.extend_from_slice(&signature);
        out.into()
    }

    /// Reads a ticket from its one encoding. Neither the signature nor the time is looked at.
    pub(crate) fn decode(bytes: &[u8]) -> Result<UnverifiedTicket<'_>, AuthError> {
        let (encoded, signature) = bytes.split_last_chunk().ok_or(AuthError::Malformed("too short"))?;
        let mut reader = Reader(encoded);
        if reader.array()? != [VERSION] {
            return Err(AuthError::Malformed("unknown version"));
        }
        let claims = Self {
            session: SessionId(reader.array()?),
            path: PathId(u32::from_be_bytes(reader.array()?)),
            epoch: Epoch(reader.number()?),
            issuer: PublicIdentity::from_bytes(&reader.array()?)?,
            secondary: PublicIdentity::from_bytes(&reader.array()?)?,
            client_key: PublicIdentity::from_bytes(&reader.array()?)?,
            server_name: reader.server_name()?,
            issued_at: UnixTime::from_millis(reader.number()?),
            expires_at: UnixTime::from_millis(reader.number()?),
            lease: reader.lease()?,
        };
        // A ticket has exactly one encoding ([P-4.3]).
        if !reader.0.is_empty() {
            return Err(AuthError::Malformed("too long"));
        }
        Ok(UnverifiedTicket { claims, encoded, signature, bytes })
    }

    fn encode_claims(&self) -> Vec<u8> {
        let name = self.server_name.as_bytes();
        let mut out = Vec::with_capacity(CLAIMS_BYTES_FIXED + name.len() + SIGNATURE_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.session.0);
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        for key in [&self.issuer, &self.secondary, &self.client_key] {
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(name);
        for time in [self.issued_at.as_millis(), self.expires_at.as_millis(), millis(self.lease.min(LEASE_MAX))] {
            out.extend_from_slice(&time.to_be_bytes());
        }
        out
    }

    /// The clocks of the primary and of this end may differ by the skew, but the lifetime is measured by one clock, so
    /// exactly.
    fn check_time(&self, now: UnixTime) -> Result<(), AuthError> {
        let lifetime = self.expires_at.checked_since(self.issued_at).ok_or(AuthError::Time)?;
        let from = self.issued_at.saturating_sub(CLOCK_SKEW);
        let until = self.expires_at.saturating_add(CLOCK_SKEW);
        if lifetime <= TICKET_LIFETIME && from <= now && now <= until { Ok(()) } else { Err(AuthError::Time) }
    }
}

/// A well-formed ticket that anybody may have written.
#[derive(Debug)]
pub(crate) struct UnverifiedTicket<'a> {
    claims: Ticket,
    encoded: &'a [u8],
    signature: &'a [u8; SIGNATURE_BYTES],
    bytes: &'a [u8],
}

impl UnverifiedTicket<'_> {
    /// What the ticket says. Not yet to be believed.
    pub(crate) fn claims(&self) -> &Ticket {
        &self.claims
    }

    /// The ticket, if the issuer it names signed it. Whether that issuer is to be believed is the caller's question,
    /// to be asked first because it is cheap.
    pub(crate) fn check_signature(self) -> Result<Ticket, AuthError> {
        if self.claims.issuer.verify(Label::Ticket, &[self.encoded], self.signature) {
            Ok(self.claims)
        } else {
            Err(AuthError::Signature)
        }
    }

    /// The ticket, if the issuer it names signed it and the client it names signed the `exporter` of this connection.
    pub(crate) fn verify(self, proof: &[u8; SIGNATURE_BYTES], exporter: &[u8; 32]) -> Result<Ticket, AuthError> {
        let bytes = self.bytes;
        let claims = self.check_signature()?;
        verify_join_proof(&claims.client_key, proof, exporter, bytes)?;
        Ok(claims)
    }
}

/// Checks all that a ticket in a JOIN at the secondary `me` claims and that costs nothing: its form, its audience, its
/// issuer, its time. What is left are its signatures.
pub(crate) fn read_join<'a>(
    ticket: &'a [u8],
    me: &PublicIdentity,
    now: UnixTime,
    trusts: impl FnOnce(&PublicIdentity) -> bool,
) -> Result<UnverifiedTicket<'a>, AuthError> {
    let unverified = Ticket::decode(ticket)?;
    let claims = unverified.claims();
    if claims.secondary != *me {
        return Err(AuthError::Audience);
    }
    if !trusts(&claims.issuer) {
        return Err(AuthError::Issuer);
    }
    claims.check_time(now)?;
    Ok(unverified)
}

/// Takes fixed big-endian fields off the front of a ticket.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], AuthError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(AuthError::Malformed("too short"))?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u64, AuthError> {
        self.array().map(u64::from_be_bytes)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], AuthError> {
        let (slice, rest) = self.0.split_at_checked(len).ok_or(AuthError::Malformed("too short"))?;
        self.0 = rest;
        Ok(slice)
    }

    fn server_name(&mut self) -> Result<String, AuthError> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        if !(1..=SERVER_NAME_BYTES_MAX).contains(&len) {
            return Err(AuthError::Malformed("server name of illegal length"));
        }
        let name = self.slice(len)?;
        if !name.iter().all(u8::is_ascii_graphic) {
            return Err(AuthError::Malformed("server name of illegal characters"));
        }
        Ok(name.iter().copied().map(char::from).collect())
    }

    fn lease(&mut self) -> Result<Duration, AuthError> {
        let lease = Duration::from_millis(self.number()?);
        if lease <= LEASE_MAX { Ok(lease) } else { Err(AuthError::Malformed("lease of illegal length")) }
    }
}
