//! Random numbers that are seeded, splittable and the same on every machine.

use rand::{Rng as _, SeedableRng, rngs::ChaCha8Rng};

/// A stream of random numbers. There is no global generator: a stream is made from a seed and
/// passed on.
///
/// The generator is ChaCha with 8 rounds, so the numbers do not depend on the machine.
/// [`Rng::split`] and [`Rng::keyed`] make independent streams for parts of the work, so results do
/// not depend on the number of threads either.
///
/// ```
/// use skipgrad::Rng;
/// let (mut a, mut b) = (Rng::seed(42), Rng::seed(42));
/// assert_eq!(a.normal(), b.normal());
/// assert_ne!(a.split().uniform(), a.split().uniform());
/// ```
#[derive(Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// Makes the stream of a seed.
    pub fn seed(seed: u64) -> Rng {
        Rng(ChaCha8Rng::from_seed(key([seed, 0, 0, 0])))
    }

    /// Makes the stream of a seed and two keys, such as an epoch and the index of a sample. It is
    /// independent of the streams of other keys.
    pub fn keyed(seed: u64, first: u64, second: u64) -> Rng {
        Rng(ChaCha8Rng::from_seed(key([seed, first, second, 1])))
    }

    /// Makes a new stream, independent of the further numbers of this one.
    pub fn split(&mut self) -> Rng {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        Rng(ChaCha8Rng::from_seed(bytes))
    }

    /// Returns 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number distributed uniformly in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Returns a number distributed uniformly between the two numbers of a range.
    ///
    /// ```
    /// use skipgrad::Rng;
    /// assert!((-0.5..=2.0).contains(&Rng::seed(7).uniform_in([-0.5, 2.0])));
    /// ```
    pub fn uniform_in(&mut self, [low, high]: [f32; 2]) -> f32 {
        (low + (high - low) * self.uniform()).min(high)
    }

    /// Returns `true` with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Returns a number distributed uniformly in `0..n`, or 0 for `n` = 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Returns a number with the standard normal distribution (Box and Muller, computed in `f64`).
    pub fn normal(&mut self) -> f32 {
        let grid = 1.0 / (1u64 << 53) as f64;
        let radius = ((self.0.next_u64() >> 11) as f64 + 1.0) * grid;
        let angle = (self.0.next_u64() >> 11) as f64 * grid;
        ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
    }

    /// Shuffles a slice (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Returns the state of the stream, so that a later run can continue it: seed (32 bytes),
    /// stream, position.
    pub fn to_bytes(&self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..32].copy_from_slice(&self.0.get_seed());
        bytes[32..40].copy_from_slice(&self.0.get_stream().to_le_bytes());
        bytes[40..].copy_from_slice(&self.0.get_word_pos().to_le_bytes());
        bytes
    }

    /// Restores a stream from the result of [`Rng::to_bytes`].
    ///
    /// ```
    /// use skipgrad::Rng;
    /// let mut rng = Rng::seed(1);
    /// rng.normal();
    /// let mut later = Rng::from_bytes(&rng.to_bytes());
    /// assert_eq!(later.bits(), rng.bits());
    /// ```
    pub fn from_bytes(bytes: &[u8; 56]) -> Rng {
        let mut seed = [0; 32];
        let mut stream = [0; 8];
        let mut position = [0; 16];
        seed.copy_from_slice(&bytes[..32]);
        stream.copy_from_slice(&bytes[32..40]);
        position.copy_from_slice(&bytes[40..]);
        let mut rng = ChaCha8Rng::from_seed(seed);
        rng.set_stream(u64::from_le_bytes(stream));
        rng.set_word_pos(u128::from_le_bytes(position));
        Rng(rng)
    }
}

/// Returns the key of the cipher for four numbers. (`seed_from_u64` of `rand` may change with a
/// version of that crate; this must not.)
fn key(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        let mut rng = Rng::seed(42);
        assert_eq!([rng.bits(), rng.bits()], [6_424_161_053_832_095_879, 5_270_208_426_312_333_099]);
    }

    #[test]
    fn moments_and_ranges() {
        let mut rng = Rng::seed(0);
        let n = 100_000;
        let normals: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[rng.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.uniform())));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn keys_give_streams_of_their_own() {
        let firsts: std::collections::BTreeSet<u64> =
            (0..10).flat_map(|a| (0..10).map(move |b| Rng::keyed(1, a, b).bits())).collect();
        assert_eq!(firsts.len(), 100);
    }
}
