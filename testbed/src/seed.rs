//! One seed for everything random in a test, printed so that a run can be repeated.

use std::env;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Name of the environment variable that fixes the seed.
pub const SEED_VARIABLE: &str = "CONCORDAT_SEED";

/// The seed of this run: [`SEED_VARIABLE`] if it is set, else drawn. Printed with the command that repeats the run.
pub fn seed(test: &str) -> u64 {
    let seed = match env::var(SEED_VARIABLE) {
        Ok(text) => {
            text.trim().parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE} must be a number, got `{text}`"))
        }
        Err(_) => rand::random::<u32>().into(),
    };
    eprintln!("{test}: seed {seed} (repeat with {SEED_VARIABLE}={seed})");
    seed
}

/// Random numbers for one part of a test: each `part` has its own, so that parts do not disturb one another.
pub fn rng(seed: u64, part: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(part);
    rng
}
