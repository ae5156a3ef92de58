//! How many cases the property tests make, and from which seed.

use proptest::test_runner::{Config, RngSeed};

/// `TOOLZZ_FUZZ_SEED`: a number, otherwise the same cases every time. `PROPTEST_CASES` makes it more; `make fuzz`.
pub fn config() -> Config {
    let seed = match std::env::var("TOOLZZ_FUZZ_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("TOOLZZ_FUZZ_SEED={text:?} is no number")),
        Err(_) => 1,
    };
    Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}
