//! Random operations of a given magnitude.

use super::{
    Affine, ImageOp, Interpolation, Transform,
    image_op::{apply_all, check_channels, check_fill},
    op_space::{Magnitude, NUM_OPS, Space, check_bins},
};
use crate::{Error, Result, Rng};

/// Applies random operations of a given magnitude, one after the other (Cubuk et al. 2020,
/// "RandAugment: practical automated data augmentation with a reduced search space"), as
/// torchvision's `RandAugment` does.
///
/// The operations are those of [`TrivialAugmentWide`](super::TrivialAugmentWide), in a smaller
/// space: shears up to 0.3, translations up to 0.45 of the image, rotation up to 30 degrees,
/// factors from 0.1 to 1.9, posterizing down to 4 bits. Each direction has the same probability.
///
/// ```
/// use skipgrad::{Rng, data::RandAugment};
/// let augment = RandAugment::new().num_ops(3).magnitude(15);
/// assert_eq!(augment.draw([32, 32], &mut Rng::seed(0)).len(), 3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandAugment {
    /// Number of operations on an image; 2 by default.
    pub num_ops: usize,
    /// Magnitude of all operations, below `num_magnitude_bins`; 9 by default.
    pub magnitude: usize,
    /// Number of magnitudes, at least 2; 31 by default.
    pub num_magnitude_bins: usize,
    /// How pixels are read where an image is moved.
    pub interpolation: Interpolation,
    /// Gray level in [0, 1] of what comes from outside of the image.
    pub fill: f32,
}

impl RandAugment {
    /// Creates the transform with two operations of magnitude 9 of 31, nearest pixels, and black
    /// outside.
    pub fn new() -> RandAugment {
        let interpolation = Interpolation::Nearest;
        RandAugment { num_ops: 2, magnitude: 9, num_magnitude_bins: 31, interpolation, fill: 0.0 }
    }

    /// Sets the number of operations on an image.
    #[must_use]
    pub fn num_ops(self, num_ops: usize) -> RandAugment {
        RandAugment { num_ops, ..self }
    }

    /// Sets the magnitude of all operations, below the number of magnitudes.
    #[must_use]
    pub fn magnitude(self, magnitude: usize) -> RandAugment {
        RandAugment { magnitude, ..self }
    }

    /// Sets the number of magnitudes, at least 2.
    #[must_use]
    pub fn num_magnitude_bins(self, num_magnitude_bins: usize) -> RandAugment {
        RandAugment { num_magnitude_bins, ..self }
    }

    /// Sets how pixels are read where an image is moved.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> RandAugment {
        RandAugment { interpolation, ..self }
    }

    /// Sets the gray level in [0, 1] of what comes from outside of the image.
    #[must_use]
    pub fn fill(self, fill: f32) -> RandAugment {
        RandAugment { fill, ..self }
    }

    /// Draws the operations of one image of `h` rows and `w` columns, in the order in which they
    /// are applied.
    pub fn draw(&self, [h, w]: [usize; 2], rng: &mut Rng) -> Vec<ImageOp> {
        let translate = [w, h].map(|size| (150.0 / 331.0 * size as f64) as f32);
        let space = Space { shear: 0.3, translate, degrees: 30.0, factor: 0.9, bits: 4.0 };
        let base = Affine::new().interpolation(self.interpolation).fill(self.fill);
        let (bins, bin) = (self.num_magnitude_bins, self.magnitude);
        let mut draw = |_| {
            let op = rng.below(NUM_OPS);
            space.op(op, Magnitude { bins, bin, is_negative: rng.chance(0.5) }, base)
        };
        (0..self.num_ops).map(&mut draw).collect()
    }
}

impl Default for RandAugment {
    fn default() -> RandAugment {
        RandAugment::new()
    }
}

impl Transform for RandAugment {
    fn apply(&self, pixels: &mut [f32], shape @ [h, w, _]: [usize; 3], rng: &mut Rng) {
        apply_all(&self.draw([h, w], rng), pixels, shape);
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        check_channels("rand_augment", shape)?;
        check_bins("rand_augment", self.num_magnitude_bins)?;
        if self.magnitude >= self.num_magnitude_bins {
            let expected = format!("below {}, the number of magnitudes", self.num_magnitude_bins);
            return Err(Error::argument("rand_augment", "magnitude", expected, self.magnitude));
        }
        check_fill("rand_augment", self.fill)
    }
}
