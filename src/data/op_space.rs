//! The operations of TrivialAugment and RandAugment, and their magnitudes.

use super::{Affine, ImageOp};
use crate::{Error, Result};

/// The largest magnitudes of an op space.
pub(super) struct Space {
    pub(super) shear: f32,
    /// Pixels to the right and down.
    pub(super) translate: [f32; 2],
    pub(super) degrees: f32,
    /// How far a factor is from 1.
    pub(super) factor: f32,
    /// Number of bits that posterizing drops.
    pub(super) bits: f32,
}

/// Number of operations of a space.
pub(super) const NUM_OPS: usize = 14;

/// How many magnitudes there are, which of them an operation has, and how an image is moved.
#[derive(Clone, Copy)]
pub(super) struct Magnitude {
    pub(super) bins: usize,
    pub(super) bin: usize,
    pub(super) is_negative: bool,
}

impl Magnitude {
    /// Returns the bin of as many evenly spaced numbers from `first` to `last`, as `torch.linspace`
    /// computes them.
    fn between(self, first: f32, last: f32) -> f32 {
        let Magnitude { bins, bin, .. } = self;
        let step = (last - first) / (bins.max(2) - 1) as f32;
        let value = if bin < bins / 2 {
            step.mul_add(bin as f32, first)
        } else {
            (-step).mul_add((bins - 1 - bin) as f32, last)
        };
        if bins == 1 { first } else { value }
    }

    /// Returns the bin from 0 to `last`, with the sign.
    fn signed(self, last: f32) -> f32 {
        let value = self.between(0.0, last);
        // Not -0 for 0.
        if self.is_negative { 0.0 - value } else { value }
    }
}

impl Space {
    /// Returns an operation of the space, `op` below [`NUM_OPS`].
    pub(super) fn op(&self, op: usize, magnitude: Magnitude, base: Affine) -> ImageOp {
        let shear = || f64::from(magnitude.signed(self.shear)).atan().to_degrees();
        let pixels = |axis: usize| f64::from(magnitude.signed(self.translate[axis]).trunc());
        let factor = || 1.0 + magnitude.signed(self.factor);
        let corner = base.center([0.0; 2]);
        match op {
            0 => ImageOp::Identity,
            1 => ImageOp::Affine(corner.shear([shear(), 0.0])),
            2 => ImageOp::Affine(corner.shear([0.0, shear()])),
            3 => ImageOp::Affine(base.translate([pixels(0), 0.0])),
            4 => ImageOp::Affine(base.translate([0.0, pixels(1)])),
            5 => ImageOp::Affine(base.angle(0.0 - f64::from(magnitude.signed(self.degrees)))),
            6 => ImageOp::AdjustBrightness(factor()),
            7 => ImageOp::AdjustSaturation(factor()),
            8 => ImageOp::AdjustContrast(factor()),
            9 => ImageOp::AdjustSharpness(factor()),
            10 => {
                let bins_a_bit = (magnitude.bins.max(2) - 1) as f32 / self.bits;
                ImageOp::Posterize(8 - (magnitude.bin as f32 / bins_a_bit).round_ties_even() as u32)
            }
            11 => ImageOp::Solarize(magnitude.between(255.0, 0.0)),
            12 => ImageOp::AutoContrast,
            _ => ImageOp::Equalize,
        }
    }
}

/// Checks the number of magnitudes.
pub(super) fn check_bins(op: &'static str, bins: usize) -> Result<()> {
    if bins >= 2 { Ok(()) } else { Err(Error::argument(op, "num_magnitude_bins", "at least 2", bins)) }
}
