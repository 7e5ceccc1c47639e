//! The randomness of a world: SplitMix64, whose numbers will never change with a new version of a dependency.

use std::time::Duration;

/// A generator. Parts of a world have one each, so that what one draws does not shift the fortunes of another.
#[derive(Debug, Clone)]
pub(crate) struct SimRng(u64);

impl SimRng {
    /// The generator of the part that `path` names below `seed`.
    pub(crate) fn new(seed: u64, path: &[u64]) -> Self {
        Self(path.iter().fold(finish(seed ^ 0x6B77_696B), |state, part| finish(state ^ finish(part.wrapping_add(1)))))
    }

    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finish(self.0)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let word = self.draw().to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }

    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }

    /// Less than `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.draw()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// As [`Self::below`], for a place in memory.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap_or(0)
    }

    /// One of some; `None` if there are none.
    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.index(from.len()))
    }

    /// Puts them in any order.
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.index(last + 1));
        }
    }

    /// At most `span`.
    pub(crate) fn within(&mut self, span: Duration) -> Duration {
        if span.is_zero() { span } else { span.mul_f64(self.fraction()) }
    }

    /// From 0 to less than 1.
    fn fraction(&mut self) -> f64 {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.draw() >> 11) as f64 * UNIT
    }
}

/// SplitMix64's output function: every bit of the input reaches every bit of the output.
pub(crate) fn finish(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix64() {
        let mut rng = SimRng(1_234_567);
        let drawn: Vec<_> = (0..3).map(|_| rng.draw()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn parts_differ_and_bounds_hold() {
        let first = |path: &[u64]| SimRng::new(7, path).draw();
        assert_ne!(first(&[0]), first(&[1]));
        assert_ne!(first(&[0, 1]), first(&[1, 0]));
        let mut rng = SimRng::new(7, &[]);
        let hits = (0..10_000).filter(|_| rng.chance(0.25)).count();
        assert!((2_200..2_800).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| rng.below(6) < 6));
        assert_eq!(rng.below(0), 0);
    }
}
