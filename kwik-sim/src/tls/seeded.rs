//! TLS by ring, except for what ring draws by itself: random numbers and X25519 keys come from a seed.

use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{KeyPair, PKCS_ED25519};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{Error, NamedGroup, PeerMisbehaved};

use crate::rng::SimRng;

/// A provider that draws from `rng`. `rustls` wants its parts to live for ever: each provider leaks some hundred bytes.
pub(crate) fn seeded_provider(rng: SimRng) -> Arc<CryptoProvider> {
    let random: &'static SeededRandom = Box::leak(Box::new(SeededRandom(Mutex::new(rng))));
    let exchange: &'static SeededX25519 = Box::leak(Box::new(SeededX25519(random)));
    let mut provider = rustls::crypto::ring::default_provider();
    provider.secure_random = random;
    provider.kx_groups = vec![exchange];
    Arc::new(provider)
}

/// A signing key from its seed. Signatures of this kind need no randomness and have one length.
pub(crate) fn ed25519_key(seed: [u8; 32]) -> KeyPair {
    /// PKCS #8 around 32 bytes (RFC 8410 §7).
    const PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = [&PREFIX[..], &seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .expect("any 32 bytes are a key")
}

#[derive(Debug)]
struct SeededRandom(Mutex<SimRng>);

impl SeededRandom {
    fn draw(&self, buf: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(buf);
    }
}

impl SecureRandom for SeededRandom {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.draw(buf);
        Ok(())
    }
}

#[derive(Debug)]
struct SeededX25519(&'static SeededRandom);

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; 32];
        self.0.draw(&mut secret);
        let public = x25519_dalek::x25519(secret, x25519_dalek::X25519_BASEPOINT_BYTES);
        Ok(Box::new(X25519Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct X25519Exchange {
    secret: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for X25519Exchange {
    fn complete(self: Box<Self>, peer_pub_key: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::from(PeerMisbehaved::InvalidKeyShare);
        let peer = <[u8; 32]>::try_from(peer_pub_key).map_err(|_| invalid())?;
        let shared = x25519_dalek::x25519(self.secret, peer);
        // RFC 7748 §6.1: a point of small order gives zero.
        if shared == [0; 32] {
            return Err(invalid());
        }
        Ok(SharedSecret::from(&shared[..]))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_shares_and_both_ends_one_secret() {
        let share = |seed| {
            let provider = seeded_provider(SimRng::new(seed, &[]));
            let client = provider.kx_groups[0].start().unwrap();
            let server = provider.kx_groups[0].start().unwrap();
            let (to_server, to_client) = (client.pub_key().to_vec(), server.pub_key().to_vec());
            let secret = client.complete(&to_client).unwrap();
            assert_eq!(secret.secret_bytes(), server.complete(&to_server).unwrap().secret_bytes());
            (to_server, to_client, secret.secret_bytes().to_vec())
        };
        assert_eq!(share(1), share(1));
        assert_ne!(share(1), share(2));
    }

    #[test]
    fn shares_of_small_order_or_wrong_length_are_refused() {
        let provider = seeded_provider(SimRng::new(1, &[]));
        for share in [&[0; 32][..], &[1; 31]] {
            assert!(provider.kx_groups[0].start().unwrap().complete(share).is_err());
        }
    }
}
