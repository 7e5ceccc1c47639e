//! Secret bytes that are never shown and do not stay in memory.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// What everything random at an endpoint follows from. Overwritten when it is dropped.
#[derive(Clone)]
pub(crate) struct Seed(Zeroizing<[u8; 32]>);

impl Seed {
    pub(crate) fn new(mut bytes: [u8; 32]) -> Self {
        let seed = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        seed
    }

    /// The bytes, which this seed forgets.
    pub(crate) fn take(&mut self) -> Zeroizing<[u8; 32]> {
        std::mem::take(&mut self.0)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_that_was_taken_is_gone() {
        let mut seed = Seed::new([7; 32]);
        assert_eq!(*seed.take(), [7; 32]);
        assert_eq!(*seed.take(), [0; 32]);
    }
}
