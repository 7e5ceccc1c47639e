//! Endpoints that share one port: each has connections, sessions and a turn of its own, and they have in common what
//! bounds strangers, sessions and memory.

use std::sync::Arc;
use std::time::Instant;

use rand::RngCore;
use ring::{hkdf, hmac};

use super::Endpoint;
use super::admission::Entrance;
use super::memory::{Memory, Pool};
use super::routing::Routing;
use super::seeded::Entropy;
use crate::config::{ConfigError, EndpointConfig};
use crate::limits::WORKERS_MAX;

/// What an endpoint has in common with the other workers of its port, and what it has alone.
pub(super) struct Part {
    pub(super) entropy: Entropy,
    pub(super) index: u16,
    pub(super) common: Common,
}

/// What all workers of a port have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) workers: u16,
    pub(super) entrance: Arc<Entrance>,
    pub(super) pool: Arc<Pool>,
    /// `None` for an endpoint that is alone: it draws its own when it needs them.
    pub(super) secrets: Option<Secrets>,
}

/// Keys with which each worker judges what another gave out.
#[derive(Clone)]
pub(super) struct Secrets {
    pub(super) routing: Routing,
    pub(super) reset_key: Arc<hmac::Key>,
    pub(super) token_key: Arc<hkdf::Prk>,
}

impl Part {
    /// The part of an endpoint that is alone on its port.
    pub(super) fn alone(config: &mut EndpointConfig, now: Instant) -> Result<Self, ConfigError> {
        let common = Common::new(config, now, 1)?;
        Ok(Self { entropy: Entropy::new(&config.rng_seed.take()), index: 0, common })
    }
}

impl Common {
    fn new(config: &mut EndpointConfig, now: Instant, workers: u16) -> Result<Self, ConfigError> {
        config.limits.check()?;
        config.transport.check()?;
        let limits = &mut config.limits;
        let memory_max = limits.endpoint_memory_max;
        limits.unauthenticated_max = limits.unauthenticated_max.min(Memory::unauthenticated_max(memory_max));
        let entrance = Arc::new(Entrance::new(now, limits, workers));
        Ok(Self { workers, entrance, pool: Arc::new(Pool::new(memory_max, workers)), secrets: None })
    }
}

impl Secrets {
    fn draw(entropy: &mut Entropy, workers: u16) -> Self {
        let keys = std::array::from_fn(|_| entropy.rng().next_u32());
        let routing = Routing::new(workers, keys);
        Self { routing, reset_key: entropy.reset_key(), token_key: entropy.token_key() }
    }
}

impl Endpoint {
    /// Endpoints that begin at `now` and share one port: as many as `count` says, 1 to
    /// [`WORKERS_MAX`]. Each is to be driven on its own, on any thread.
    ///
    /// A datagram is for the endpoint that [`Routing::owner`] names, or for whichever the system chose for its source
    /// address. The limits of an endpoint hold for all of them together: used tickets, the places and allowances of
    /// strangers, [`sessions_max`](crate::Limits::sessions_max) and
    /// [`endpoint_memory_max`](crate::Limits::endpoint_memory_max). Session handles are unique among them. One that needs
    /// the place of a stranger at another, or waits for memory that another gave back, has it with the next turn there.
    ///
    /// # Errors
    /// If the limits, or the settings of QUIC, cannot work.
    pub fn workers(mut config: EndpointConfig, count: u16, now: Instant) -> Result<(Vec<Self>, Routing), ConfigError> {
        let workers = count.clamp(1, WORKERS_MAX);
        let mut entropy = Entropy::new(&config.rng_seed.take());
        let mut common = Common::new(&mut config, now, workers)?;
        let secrets = Secrets::draw(&mut entropy, workers);
        let routing = secrets.routing;
        common.secrets = Some(secrets);
        let endpoints = (0..workers).map(|index| {
            let (entropy, common) = (Entropy::new(&entropy.seed()), common.clone());
            Self::with_part(config.clone(), now, Part { entropy, index, common })
        });
        Ok((endpoints.collect::<Result<_, _>>()?, routing))
    }
}
