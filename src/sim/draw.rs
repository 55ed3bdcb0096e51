//! Randomness: one counter-based generator per (seed, CPU, actor), and exponential gaps in integers.
//!
//! ChaCha8 with the seed as key and (CPU, actor) as stream: a draw depends on nothing but how many the same actor
//! made before. A gap is `mean * -ln(u)` in 32.32 fixed point; `-ln` comes from a table of 1,025 entries that is
//! itself computed in integers, interpolated linearly (relative error below 1e-6 of the mean).

use std::sync::LazyLock;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use crate::kernel::step::Cpu;

/// The draws of one actor on one CPU.
#[derive(Clone, Debug)]
pub struct Draws(ChaCha8Rng);

impl Draws {
    /// A named stream.
    pub fn new(seed: u64, cpu: Cpu, actor: u16) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(cpu) << 16 | u64::from(actor));
        Draws(rng)
    }

    /// Uniform over all 64-bit words.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform below `n` (n > 0): the high half of a 128-bit product.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(n)) >> 64) as u64
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let e = neg_ln(self.word());
        ((u128::from(mean) * u128::from(e)) >> 32) as u64
    }

    /// How many words were drawn: what a checkpoint keeps.
    pub fn position(&self) -> u128 {
        self.0.get_word_pos()
    }

    /// Back to a position.
    pub fn seek(&mut self, position: u128) {
        self.0.set_word_pos(position);
    }
}

/// ln 2 in 32.32 fixed point.
const LN_2: u64 = 2_977_044_472;

const STEPS: u64 = 1024;

/// `log2(1 + i/1024)` in 0.32 fixed point, by repeated squaring of a 1.62 number: integers only.
static LOG2: LazyLock<[u64; STEPS as usize + 1]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let mut x = (1u64 << 62) + ((i as u64) << 52);
        let mut out = 0u64;
        if i as u64 == STEPS {
            return 1 << 32;
        }
        for bit in (0..32).rev() {
            let square = (u128::from(x) * u128::from(x)) >> 62;
            if square >= 1 << 63 {
                out |= 1 << bit;
                x = (square >> 1) as u64;
            } else {
                x = square as u64;
            }
        }
        out
    })
});

/// `-ln(max(word, 1) / 2^64)` in 32.32 fixed point.
pub fn neg_ln(word: u64) -> u64 {
    let u = word.max(1);
    let zeros = u64::from(u.leading_zeros());
    let mantissa = (u << zeros) & (u64::MAX >> 1); // 63 bits below the leading one
    let (i, rest) = ((mantissa >> 53) as usize, mantissa & ((1 << 53) - 1));
    let (a, b) = (LOG2[i], LOG2[i + 1]);
    let frac = a + ((u128::from(b - a) * u128::from(rest)) >> 53) as u64;
    // -log2(u / 2^64) = 64 - (63 - zeros) - frac
    let bits = ((1 + zeros) << 32) - frac;
    ((u128::from(bits) * u128::from(LN_2)) >> 32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_within_a_millionth() {
        for word in
            [1u64, 2, 3, 1 << 20, 1 << 40, u64::MAX / 3, u64::MAX / 2, u64::MAX - 5, 0x1234_5678_9abc_def0]
        {
            let exact = -((word as f64) / 2f64.powi(64)).ln();
            let ours = neg_ln(word) as f64 / 2f64.powi(32);
            assert!((ours - exact).abs() < 1e-6 * exact.max(1.0), "{word}: {ours} against {exact}");
        }
    }

    #[test]
    fn exponential_gaps_have_their_mean_and_are_the_same_everywhere() {
        let mut d = Draws::new(1, 3, 2);
        let sum: u64 = (0..100_000).map(|_| d.exponential(1_000_000)).sum();
        assert!((95_000_000_000..105_000_000_000).contains(&sum), "{sum}");
        let first: Vec<u64> = {
            let mut d = Draws::new(1, 0, 0);
            (0..3).map(|_| d.exponential(1_000_000_000)).collect()
        };
        let again: Vec<u64> = {
            let mut d = Draws::new(1, 0, 0);
            (0..3).map(|_| d.exponential(1_000_000_000)).collect()
        };
        assert_eq!(first, again);
        assert_ne!(first[0], Draws::new(1, 1, 0).exponential(1_000_000_000));
        assert_ne!(first[0], Draws::new(2, 0, 0).exponential(1_000_000_000));
    }

    #[test]
    fn a_position_can_be_sought() {
        let mut d = Draws::new(7, 0, 0);
        d.word();
        let at = d.position();
        let next = d.word();
        d.seek(at);
        assert_eq!(d.word(), next);
    }
}
