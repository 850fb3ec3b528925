//! Randomness, passed in: seeded from the operating system in a real process, from a number in tests and simulations.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// A cryptographically strong source of random numbers that many parts of a process hold. Clones draw from the same stream.
#[derive(Clone)]
pub struct Randomness(Arc<Mutex<StdRng>>);

impl Randomness {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self::new(StdRng::from_os_rng())
    }

    /// The same numbers for the same seed. Never for a real deployment.
    pub fn from_seed(seed: u64) -> Self {
        Self::new(StdRng::seed_from_u64(seed))
    }

    fn new(rng: StdRng) -> Self {
        Self(Arc::new(Mutex::new(rng)))
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.with(|rng| rng.fill_bytes(&mut bytes));
        bytes
    }

    /// A random number.
    pub fn u64(&self) -> u64 {
        self.with(RngCore::next_u64)
    }

    /// A random number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.with(|rng| rng.random_range(0..bound)) }
    }

    /// An independent source whose numbers follow from this one's, for a part that draws in an order of its own.
    pub fn fork(&self) -> Self {
        Self::new(self.with(StdRng::from_rng))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        // A panic elsewhere cannot leave a generator in a bad state.
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Randomness")
    }
}

impl RngCore for Randomness {
    fn next_u32(&mut self) -> u32 {
        self.with(RngCore::next_u32)
    }

    fn next_u64(&mut self) -> u64 {
        self.u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.with(|rng| rng.fill_bytes(dest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (a, b) = (Randomness::from_seed(1), Randomness::from_seed(1));
        assert_eq!(a.bytes::<32>(), b.bytes::<32>());
        assert_eq!(a.fork().u64(), b.fork().u64());
        assert_ne!(a.u64(), Randomness::from_seed(2).u64());
        assert_eq!(a.below(0), 0);
    }
}
