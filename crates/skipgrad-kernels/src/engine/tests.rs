//! Compares all engines with the definition, bit for bit.

use super::*;
use crate::testing::{each_isa, normals};

/// Returns every engine that this processor has, and stand-ins for others.
pub(crate) fn each_engine() -> Vec<Engine> {
    let amx = Engine::available().into_iter().filter(|engine| *engine == Engine::Amx);
    each_isa().into_iter().map(Engine::Simd).chain(amx).collect()
}

/// Operands of a block of some taps and steps.
struct Operands {
    a: Vec<Bf16>,
    b: Vec<Bf16>,
    taps: usize,
    walk: Walk,
}

impl Operands {
    fn new(taps: usize, steps: usize, value: impl Fn(f32, usize) -> Bf16) -> Operands {
        let walk = Walk { steps, row: steps * STEP };
        let make = |len, seed| normals(len, seed).into_iter().enumerate().map(|(i, x)| value(x, i)).collect();
        Operands { a: make(taps * BLOCK * walk.row, 1), b: make(taps * steps * STEP * BLOCK, 2), taps, walk }
    }

    fn taps(&self) -> Vec<Tap> {
        let (a, b) = (BLOCK * self.walk.row, self.walk.steps * STEP * BLOCK);
        let a = |tap, half| self.a[tap * a + half * TILE * self.walk.row..].as_ptr();
        (0..self.taps).map(|tap| Tap { a: [a(tap, 0), a(tap, 1)], b: self.b[tap * b..].as_ptr() }).collect()
    }

    /// Computes the block twice, the second time adding to the first, and returns the bits.
    fn bits(&self, engine: Engine, first: &Sums) -> Vec<u32> {
        let mut sums = first.clone();
        let session = engine.begin();
        for add in [false, true] {
            // SAFETY: A has two halves of `TILE` rows of all steps for each tap, and B all steps.
            unsafe { session.block(&self.taps(), self.walk, &mut sums, add) };
        }
        bits(&sums)
    }

    /// Computes the same as it is defined.
    fn expected(&self) -> Vec<u32> {
        let mut sums = Sums::ZERO;
        for tap in (0..self.taps).chain(0..self.taps) {
            for step in 0..self.walk.steps {
                for i in 0..BLOCK {
                    for j in 0..BLOCK {
                        let mut parity = [0.0f32; 2];
                        for k in 0..STEP {
                            let a = self.a[(tap * BLOCK + i) * self.walk.row + step * STEP + k];
                            let pair = ((tap * self.walk.steps + step) * 2 + j / TILE) * STEP / 2 + k / 2;
                            let b = self.b[(pair * TILE + j % TILE) * 2 + k % 2];
                            parity[k % 2] =
                                flush(flush(a.to_f32()).mul_add(flush(b.to_f32()), parity[k % 2]));
                        }
                        let sum = &mut sums.0[i / TILE][j / TILE][i % TILE][j % TILE];
                        *sum = flush(*sum + flush(parity[0] + parity[1]));
                    }
                }
            }
        }
        bits(&sums)
    }
}

fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0f32.copysign(x) } else { x }
}

/// Returns the bits of all sums, of which any NaN is the same.
fn bits(sums: &Sums) -> Vec<u32> {
    let all = sums.0.iter().flatten().flatten().flatten();
    all.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

fn check(operands: &Operands) {
    let expected = operands.expected();
    for engine in each_engine() {
        assert!(operands.bits(engine, &Sums([[[[f32::NAN; 16]; 16]; 2]; 2])) == expected, "{engine:?}");
    }
}

#[test]
fn engines_have_the_bits_of_the_definition() {
    for (taps, steps) in [(1, 1), (3, 2), (2, 5)] {
        check(&Operands::new(taps, steps, |x, _| Bf16::from_f32(x)));
        check(&Operands::new(taps, steps, |x, i| Bf16::from_f32(if i % 3 == 0 { 0.0 } else { x.max(0.0) })));
    }
}

#[test]
fn engines_agree_on_numbers_near_both_ends() {
    // Products that are denormal, sums that cancel to denormal ones, and products beyond the
    // largest number, whose sum would be below it.
    for scale in [1e-19, 3e-20, 1e-30, 1e-38, 1e19, 1.5e19] {
        check(&Operands::new(2, 2, |x, _| Bf16::from_f32(x * scale)));
    }
    check(&Operands::new(1, 2, |x, i| Bf16::from_f32(x * [1.0, 1e-25, 1e-37, 1e20][i % 4])));
    check(&Operands::new(2, 1, |x, i| {
        if i % 5 == 0 { Bf16::from_bits(i as u16 & 0x807f) } else { Bf16::from_f32(x) }
    }));
}

#[test]
fn infinite_and_nan_operands_reach_their_sums_only() {
    check(&Operands::new(1, 2, |x, i| Bf16::from_f32(if i == 40 { f32::INFINITY } else { x })));
    check(&Operands::new(1, 2, |x, i| Bf16::from_f32(if i == 70 { f32::NAN } else { x })));
}

#[test]
fn the_last_k_of_a_tap_and_the_last_columns_are_zeros() {
    // Two taps in one of 2 * 20 k, of 33 columns.
    let data: Vec<f32> = (1..=2 * 20 * 33).map(|i| i as f32).collect();
    let b = crate::pack::UnpackedB { data: &data, taps: vec![0, 20 * 33], depth: 20, row: 33, column: 1 };
    let mut packed = vec![Bf16::from_f32(-1.0); packed_len(1, 2, 33)];
    pack(&b, 2, 33, &mut packed);
    let at = |k: usize, j: usize| {
        let (panel, j) = (j / BLOCK * panel_len(1, 2), j % BLOCK);
        packed
            [panel + (k / STEP * 2 + j / TILE) * STEP * TILE + k % STEP / 2 * 2 * TILE + j % TILE * 2 + k % 2]
    };
    for (k, j) in (0..64).flat_map(|k| (0..64).map(move |j| (k, j))) {
        let expected = if k < 40 && j < 33 { data[k * 33 + j] } else { 0.0 };
        assert_eq!(at(k, j).to_bits(), Bf16::from_f32(expected).to_bits(), "{k} {j}");
    }
}
