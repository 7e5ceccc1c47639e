//! How fast a server is, if it is to be slower than it could be.

use std::{
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// A rate that all of a server's sessions share.
#[derive(Debug)]
pub(crate) struct Limit {
    rate: Rate,
    /// When the next bytes may pass.
    next: Mutex<Instant>,
}

/// MiB a second; 0 for no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate(u32);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("`{text}` is no rate: write MiB a second, or 0 for no limit"))
    }
}

impl Limit {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, next: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may pass.
    pub(crate) async fn pass(&self, bytes: u64) {
        if self.rate.0 > 0 {
            sleep_until(self.reserve(Instant::now(), bytes)).await;
        }
    }

    /// When the last of so many bytes may pass, after those of all who came before.
    fn reserve(&self, now: Instant, bytes: u64) -> Instant {
        let rate = f64::from(self.rate.0) * 1024.0 * 1024.0;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = now.max(*next) + Duration::from_secs_f64(bytes as f64 / rate);
        *next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_who_share_a_limit_take_their_time() {
        let (limit, now) = (Limit::new("2".parse().unwrap()), Instant::now() + Duration::from_secs(1));
        let after = |bytes| (limit.reserve(now, bytes) - now).as_millis();
        assert_eq!((after(1 << 20), after(1 << 20)), (500, 1000));
        assert!("fast".parse::<Rate>().is_err());
    }
}
