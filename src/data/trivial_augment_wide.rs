//! One random operation of a random magnitude.

use super::{
    Affine, ImageOp, Interpolation, Transform,
    image_op::{apply_all, check_channels, check_fill},
    op_space::{Magnitude, NUM_OPS, Space, check_bins},
};
use crate::{Result, Rng};

/// Applies one random operation of a random magnitude (Müller and Hutter 2021, "TrivialAugment:
/// tuning-free yet state-of-the-art data augmentation", with the wide space), as torchvision's
/// `TrivialAugmentWide` does.
///
/// Each of 14 operations has the same probability: identity, shears up to 0.99, translations up to
/// 32 pixels, rotation up to 135 degrees, brightness, saturation, contrast and sharpness by factors
/// from 0.01 to 1.99, posterizing down to 2 bits, solarizing, `AutoContrast`, `Equalize`. So have
/// the magnitudes, and both directions. The transform comes before
/// [`Normalize`](super::Normalize), as every [`ImageOp`].
///
/// ```
/// use skipgrad::{Rng, data::{Compose, ImageOp, Normalize, TrivialAugmentWide}};
/// let train = Compose::new().then(TrivialAugmentWide::new()).then(Normalize::cifar10());
/// assert_eq!(train.eval().len(), 1);
/// let mut rng = Rng::seed(0);
/// let ops = (0..1400).map(|_| TrivialAugmentWide::new().draw(&mut rng));
/// let equalized = ops.filter(|op| *op == ImageOp::Equalize).count();
/// assert!((70..130).contains(&equalized), "{equalized}");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TrivialAugmentWide {
    /// Number of magnitudes, at least 2; 31 by default.
    pub num_magnitude_bins: usize,
    /// How pixels are read where an image is moved.
    pub interpolation: Interpolation,
    /// Gray level in [0, 1] of what comes from outside of the image.
    pub fill: f32,
}

impl TrivialAugmentWide {
    /// Creates the transform with 31 magnitudes, nearest pixels, and black outside.
    pub fn new() -> TrivialAugmentWide {
        TrivialAugmentWide { num_magnitude_bins: 31, interpolation: Interpolation::Nearest, fill: 0.0 }
    }

    /// Sets the number of magnitudes, at least 2.
    #[must_use]
    pub fn num_magnitude_bins(self, num_magnitude_bins: usize) -> TrivialAugmentWide {
        TrivialAugmentWide { num_magnitude_bins, ..self }
    }

    /// Sets how pixels are read where an image is moved.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> TrivialAugmentWide {
        TrivialAugmentWide { interpolation, ..self }
    }

    /// Sets the gray level in [0, 1] of what comes from outside of the image.
    #[must_use]
    pub fn fill(self, fill: f32) -> TrivialAugmentWide {
        TrivialAugmentWide { fill, ..self }
    }

    /// Draws the operation of one image.
    pub fn draw(&self, rng: &mut Rng) -> ImageOp {
        let space = Space { shear: 0.99, translate: [32.0; 2], degrees: 135.0, factor: 0.99, bits: 6.0 };
        let (bins, op) = (self.num_magnitude_bins, rng.below(NUM_OPS));
        let magnitude = Magnitude { bins, bin: rng.below(bins), is_negative: rng.chance(0.5) };
        space.op(op, magnitude, Affine::new().interpolation(self.interpolation).fill(self.fill))
    }
}

impl Default for TrivialAugmentWide {
    fn default() -> TrivialAugmentWide {
        TrivialAugmentWide::new()
    }
}

impl Transform for TrivialAugmentWide {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        apply_all(&[self.draw(rng)], pixels, shape);
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        check_channels("trivial_augment_wide", shape)?;
        check_bins("trivial_augment_wide", self.num_magnitude_bins)?;
        check_fill("trivial_augment_wide", self.fill)
    }
}
