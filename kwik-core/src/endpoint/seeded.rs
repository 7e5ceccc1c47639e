//! Everything an endpoint draws comes from one seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use ring::hmac;
use zeroize::Zeroizing;

use super::routing::Routing;
use crate::id::SessionId;

/// A generator whose state is a secret: overwritten when it is dropped.
struct SecretRng(StdRng);

impl SecretRng {
    fn new(seed: &[u8; 32]) -> Self {
        Self(StdRng::from_seed(*seed))
    }

    fn forget(&mut self) {
        self.0 = StdRng::from_seed([0; 32]);
        // Whoever looks at it keeps the compiler from leaving the overwriting out.
        std::hint::black_box(&mut self.0);
    }
}

impl Drop for SecretRng {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The endpoint's generator. Parts that outlive a borrow get generators of their own, seeded by this one.
pub(super) struct Entropy(SecretRng);

impl Entropy {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(SecretRng::new(seed))
    }

    pub(super) fn seed(&mut self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        self.rng().fill_bytes(&mut *seed);
        seed
    }

    pub(super) fn session_id(&mut self) -> SessionId {
        let mut id = [0; 16];
        self.rng().fill_bytes(&mut id);
        SessionId(id)
    }

    pub(super) fn rng(&mut self) -> &mut StdRng {
        &mut self.0.0
    }

    pub(super) fn reset_key(&mut self) -> Arc<hmac::Key> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*self.seed()))
    }

    pub(super) fn token_key(&mut self) -> Arc<ring::hkdf::Prk> {
        Arc::new(ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&*self.seed()))
    }

    /// A source of connection ids that may be shared with QUIC's configuration. They name a worker, if there are several.
    pub(super) fn connection_ids(&mut self, worker: Option<(Routing, u16)>) -> SeededIds {
        SeededIds { rng: Arc::new(Mutex::new(SecretRng::new(&self.seed()))), worker }
    }
}

/// Random connection ids from a seed.
#[derive(Clone)]
pub(super) struct SeededIds {
    rng: Arc<Mutex<SecretRng>>,
    worker: Option<(Routing, u16)>,
}

impl SeededIds {
    /// A destination for a client's first packet: longer, since it keys the handshake's first protection.
    pub(super) fn initial_destination(&self) -> ConnectionId {
        self.draw(16)
    }

    fn draw(&self, len: usize) -> ConnectionId {
        let mut bytes = [0; 20];
        let len = len.min(bytes.len());
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).0.fill_bytes(&mut bytes[..len]);
        ConnectionId::new(&bytes[..len])
    }
}

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        // Each draw names one of the workers with equal chance, so that this ends soon.
        loop {
            let id = self.draw(Routing::CONNECTION_ID_BYTES);
            if self.worker.is_none_or(|(routing, worker)| routing.is_named(worker, &id)) {
                return id;
            }
        }
    }

    fn cid_len(&self) -> usize {
        Routing::CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_that_was_dropped_knows_nothing_of_its_seed() {
        let mut secret = SecretRng::new(&[7; 32]);
        secret.0.next_u64();
        secret.forget();
        assert_eq!(secret.0.next_u64(), StdRng::from_seed([0; 32]).next_u64());
    }
}
