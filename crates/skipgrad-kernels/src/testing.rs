//! The harness that the tests of all kernels share.

use super::{Bf16, Isa};
use proptest::prelude::ProptestConfig;
use rand::{Rng as _, SeedableRng, rngs::ChaCha8Rng};
use std::ops::{Deref, DerefMut};

/// Lengths with every remainder of every vector, and one that is more than a thread takes at once.
pub(super) const LENGTHS: [usize; 28] = [
    0,
    1,
    2,
    3,
    5,
    7,
    8,
    9,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    23,
    24,
    25,
    27,
    29,
    31,
    32,
    33,
    63,
    64,
    65,
    1000,
    super::parallel::PIECE + 1,
];

/// Returns the configuration of property tests that run every case on every instruction set.
pub(super) fn few_cases() -> ProptestConfig {
    ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() }
}

/// Returns every instruction set that this processor has, and stand-ins for others.
pub(super) fn each_isa() -> Vec<Isa> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut all = Isa::available();
    #[cfg(target_arch = "x86_64")]
    if all.contains(&Isa::Avx2) {
        all.extend([Isa::FourLanes, Isa::SixteenLanes]);
    }
    all
}

/// Returns `n` values from the standard normal distribution, the same for the same seed.
pub(super) fn normals(n: usize, seed: u64) -> Vec<f32> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    // This is the transform of Box and Muller, in f64.
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (0..n)
        .map(|_| {
            let (radius, angle) = (uniform() + 1.0 / (1u64 << 53) as f64, uniform());
            ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
        })
        .collect()
}

/// Asserts that `f` returns the same bits on 1, 2, 3 and 8 threads.
pub(super) fn same_on_any_threads(f: impl Fn() -> Vec<f32> + Sync) {
    let results = [1, 2, 3, 8].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let result = pool.install(&f);
        result.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    });
    assert!(results[1..].iter().all(|bits| *bits == results[0]), "the number of threads changed a result");
}

/// Returns the bits of every f64, as two f32.
pub(super) fn bits(x: &[f64]) -> Vec<f32> {
    x.iter().flat_map(|x| [x.to_bits() as u32, (x.to_bits() >> 32) as u32].map(f32::from_bits)).collect()
}

/// The number of canaries on each side.
const GUARD: usize = 64;

/// An element that has a canary: a NaN, so that a read outside of the input shows in the result.
pub(super) trait Canary: Copy {
    const CANARY: Self;
    fn is_canary(self) -> bool;
}

impl Canary for f32 {
    const CANARY: f32 = f32::from_bits(0x7fc0_1234);
    fn is_canary(self) -> bool {
        self.to_bits() == f32::CANARY.to_bits()
    }
}

/// A NaN that no rounding makes.
impl Canary for Bf16 {
    const CANARY: Bf16 = Bf16::from_bits(0x7fab);
    fn is_canary(self) -> bool {
        self.to_bits() == Bf16::CANARY.to_bits()
    }
}

/// The input or output of a kernel, with canaries on both sides, which are checked when it is
/// dropped.
pub(super) struct Guarded<T: Canary = f32>(Vec<T>);

impl<T: Canary> From<&Vec<T>> for Guarded<T> {
    fn from(x: &Vec<T>) -> Guarded<T> {
        let canaries = [T::CANARY; GUARD];
        Guarded([&canaries[..], x, &canaries].concat())
    }
}

impl Guarded {
    /// Returns an output of `n` elements, which are NaN until the kernel writes them.
    pub(super) fn new(n: usize) -> Guarded {
        Guarded::filled(n, f32::NAN)
    }

    /// Returns `n` elements of the same value.
    pub(super) fn filled(n: usize, value: f32) -> Guarded {
        Guarded::from(&vec![value; n])
    }

    /// Returns an input of `n` values in [-1, 1), the same for the same seed.
    pub(super) fn uniform(n: usize, seed: u64) -> Guarded {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = vec![0.0; n];
        values.fill_with(|| (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
        Guarded::from(&values)
    }
}

impl<T: Canary> Deref for Guarded<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0[GUARD..self.0.len() - GUARD]
    }
}

impl<T: Canary> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let end = self.0.len() - GUARD;
        &mut self.0[GUARD..end]
    }
}

impl<T: Canary> Drop for Guarded<T> {
    fn drop(&mut self) {
        let n = self.0.len();
        let intact = self.0[..GUARD].iter().chain(&self.0[n - GUARD..]).all(|x| x.is_canary());
        assert!(intact || std::thread::panicking(), "a kernel wrote outside of its output");
    }
}

/// Asserts that every element is within `tolerance` of the wanted value, absolute for values below
/// 1 and relative above.
#[track_caller]
pub(super) fn assert_close(got: &[f32], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (i, (&got, &wanted)) in got.iter().zip(wanted).enumerate() {
        let error = (f64::from(got) - wanted).abs();
        assert!(error <= tolerance * wanted.abs().max(1.0), "{what} [{i}]: {got}, wanted {wanted}");
    }
}
