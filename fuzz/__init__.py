"""Fuzzing: `fuzz.soak` through Python on any Rust, `fuzz_targets` with cargo-fuzz."""
