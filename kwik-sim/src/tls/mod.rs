//! The cryptography of a world: real TLS whose randomness is seeded, or none at all.

mod null;
mod seeded;

pub(crate) use null::{NullClient, NullServer};
pub(crate) use seeded::{ed25519_key, seeded_provider};

/// How endpoints of a world protect their connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// TLS as in production; its random numbers follow from a seed.
    #[default]
    Real,
    /// A handshake in the clear, and packets with a checksum instead of encryption: fast. Corrupted and misdirected
    /// packets are found as with TLS; nothing is secret, and nobody proves a certificate.
    Null,
}
