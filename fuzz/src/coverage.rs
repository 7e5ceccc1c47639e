//! What was reached: a counter for each edge of the instrumented code, laid out by the compiler.

#[cfg(kwik_coverage)]
mod counters {
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    /// The counters that the compiler told of: so many regions, which are never moved or freed.
    static REGIONS: [(AtomicPtr<u8>, AtomicUsize); 64] =
        [const { (AtomicPtr::new(std::ptr::null_mut()), AtomicUsize::new(0)) }; 64];
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    /// Called before `main` for each object with counters.
    ///
    /// # Safety
    /// Between `start` and `stop` are the counters of one object, for as long as the program runs.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
        let place = COUNT.load(Ordering::Relaxed);
        let known = REGIONS[..place].iter().any(|(known, _)| known.load(Ordering::Relaxed) == start);
        if !known && place < REGIONS.len() {
            REGIONS[place].0.store(start, Ordering::Relaxed);
            REGIONS[place].1.store(stop as usize - start as usize, Ordering::Relaxed);
            COUNT.store(place + 1, Ordering::Relaxed);
        }
    }

    /// Lends every counter, in an order that does not change.
    pub(crate) fn each(mut use_counter: impl FnMut(usize, &mut u8)) {
        let mut at = 0;
        for (start, len) in &REGIONS[..COUNT.load(Ordering::Relaxed)] {
            let (start, len) = (start.load(Ordering::Relaxed), len.load(Ordering::Relaxed));
            for index in 0..len {
                // SAFETY: the counters lie there for the life of the program, and one thread runs what counts.
                use_counter(at, unsafe { &mut *start.add(index) });
                at += 1;
            }
        }
    }
}

#[cfg(not(kwik_coverage))]
mod counters {
    pub(crate) fn each(_: impl FnMut(usize, &mut u8)) {}
}

/// What was ever reached, and about how often at once.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    /// For each counter a bit for each magnitude.
    seen: Vec<u8>,
}

impl Coverage {
    /// Begins a run.
    pub(crate) fn clear() {
        counters::each(|_, counter| *counter = 0);
    }

    /// Takes what a run reached. Returns whether any of it is new.
    pub(crate) fn take(&mut self) -> bool {
        let mut is_new = false;
        let seen = &mut self.seen;
        counters::each(|at, counter| {
            if *counter > 0 {
                if seen.len() <= at {
                    seen.resize(at + 1, 0);
                }
                let bit = 1 << (7 - counter.leading_zeros().min(7));
                is_new |= seen[at] & bit == 0;
                seen[at] |= bit;
            }
        });
        is_new
    }

    /// How many edges were reached.
    pub(crate) fn edges(&self) -> usize {
        self.seen.iter().filter(|bits| **bits > 0).count()
    }
}
