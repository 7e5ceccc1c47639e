use std::{cmp::Ordering, fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{Zeroize, Zeroizing};

use super::SIGNATURE_BYTES;

/// A server's long-lived Ed25519 key, or a client's key for one session. It is erased from memory when dropped.
#[derive(Clone)]
pub struct Identity(SigningKey);

impl Identity {
    /// The identity of a 32-byte secret seed. The same seed gives the same identity.
    #[must_use]
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let identity = Self(SigningKey::from_bytes(&seed));
        seed.zeroize();
        identity
    }

    /// A new identity. `rng` must be unpredictable, or the identity is not secret.
    pub(crate) fn generate(rng: &mut impl rand::RngCore) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(*seed)
    }

    /// What others know this identity by.
    #[must_use]
    pub fn public(&self) -> PublicIdentity {
        PublicIdentity(self.0.verifying_key())
    }

    /// Signs `parts` as a statement of the kind `label`.
    pub(crate) fn sign(&self, label: Label, parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(&message(label, parts)).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(secret of {})", self.public())
    }
}

/// The public half of an [`Identity`]: a sound Ed25519 key, never a weak one. Its text is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicIdentity(VerifyingKey);

impl PublicIdentity {
    /// The identity whose key is encoded in `bytes`.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if the bytes encode no point of the curve, encode it in a way that is not the canonical one,
    /// or encode one of the eight points of small order, under which a signature proves nothing.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, IdentityError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| IdentityError::Undecodable)?;
        // The decoder takes several encodings of some points; one identity must have one.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(IdentityError::NonCanonical);
        }
        if key.is_weak() {
            return Err(IdentityError::SmallOrder);
        }
        Ok(Self(key))
    }

    /// The canonical encoding of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether this identity signed `parts` as a statement of the kind `label`.
    #[must_use]
    pub(crate) fn verify(&self, label: Label, parts: &[&[u8]], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.0.verify_strict(&message(label, parts), &Signature::from_bytes(signature)).is_ok()
    }
}

impl Ord for PublicIdentity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for PublicIdentity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({self})")
    }
}

impl FromStr for PublicIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| IdentityError::NotHex)?;
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            for digit in digits {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    b'A'..=b'F' => digit - b'A' + 10,
                    _ => return Err(IdentityError::NotHex),
                };
                *byte = *byte << 4 | value;
            }
        }
        Self::from_bytes(&bytes)
    }
}

/// Why bytes or text are not a [`PublicIdentity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is not 64 hexadecimal digits.
    #[error("an identity is 64 hexadecimal digits")]
    NotHex,
    /// The bytes encode no point of the curve.
    #[error("the bytes are no Ed25519 key")]
    Undecodable,
    /// The bytes are a second encoding of a key.
    #[error("the bytes are not the canonical encoding of the key")]
    NonCanonical,
    /// The key is one under which signatures prove nothing.
    #[error("the key is of small order")]
    SmallOrder,
}

/// The kinds of statement an identity signs. A signature of one kind never serves as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// A primary lets a client join a session at a secondary.
    Ticket,
    /// A client shows on its connection that it holds the key it names.
    Hello,
    /// A client shows on its connection that it is the one a ticket names.
    JoinProof,
    /// A server shows on its connection that it holds its identity.
    Welcome,
    /// A primary lets a path live on.
    Lease,
    /// A primary grants a path a range of a stream.
    Grant,
    /// A server sends bytes to another through the client.
    Raw,
}

impl Label {
    #[cfg(test)]
    pub(super) const ALL: [Self; 7] =
        [Self::Ticket, Self::Hello, Self::JoinProof, Self::Welcome, Self::Lease, Self::Grant, Self::Raw];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ticket => "kwik/1 ticket",
            Self::Hello => "kwik/1 hello",
            Self::JoinProof => "kwik/1 join proof",
            Self::Welcome => "kwik/1 welcome",
            Self::Lease => "kwik/1 lease",
            Self::Grant => "kwik/1 grant",
            Self::Raw => "kwik/1 raw",
        }
    }
}

/// The bytes that are signed: the label and every part, each after its length, so that no two statements share bytes.
pub(super) fn message(label: Label, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum::<usize>() + 32);
    put_part(&mut out, label.text().as_bytes());
    for part in parts {
        put_part(&mut out, part);
    }
    out
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    let len =
        u32::try_from(part.len()).expect("signed parts are bounded by the frames that carry them, far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(part);
}
