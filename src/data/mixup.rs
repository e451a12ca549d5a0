//! Mixup: batches of blended images.

use super::{
    BatchTransform,
    batch_transform::blend_with_partners,
    beta::{beta, check_alpha},
};
use crate::{Result, Rng, Tensor};

/// Blends every image of a batch with the one before it, and their targets alike (Zhang et al.
/// 2018, "mixup: beyond empirical risk minimization", equation 2), as torchvision's `MixUp` does:
///
/// ```text
/// x[i] <- lambda x[i] + (1 - lambda) x[i - 1]        lambda from Beta(alpha, alpha)
/// ```
///
/// All images of a batch have the same lambda. The first one is blended with the last.
///
/// ```
/// use skipgrad::{Tensor, data::Mixup};
/// let mut images = Tensor::new([2, 1, 1, 1], [0.0, 1.0])?;
/// let mut targets = Tensor::new([2, 2], [1.0, 0.0, 0.0, 1.0])?;
/// Mixup::mix(&mut images, &mut targets, 0.75);
/// assert_eq!(images.data(), [0.25, 0.75]);
/// assert_eq!(targets.data(), [0.75, 0.25, 0.25, 0.75]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mixup {
    /// Both parameters of the beta distribution of lambda, above 0; torchvision's references have
    /// 0.2 for ImageNet. With 1, lambda is distributed uniformly.
    pub alpha: f32,
}

impl Mixup {
    /// Creates the transform with these parameters of the beta distribution.
    pub fn new(alpha: f32) -> Mixup {
        Mixup { alpha }
    }

    /// Draws lambda, in [0, 1], for one batch.
    pub fn draw(&self, rng: &mut Rng) -> f32 {
        beta(self.alpha, rng) as f32
    }

    /// Blends the rows of images `[N, H, W, C]` and of targets `[N, K]` with a given lambda, in
    /// [0, 1].
    pub fn mix(images: &mut Tensor, targets: &mut Tensor, lambda: f32) {
        blend_with_partners(images, lambda);
        blend_with_partners(targets, lambda);
    }
}

impl BatchTransform for Mixup {
    fn apply(&self, images: &mut Tensor, targets: &mut Tensor, rng: &mut Rng) -> Result<()> {
        Mixup::mix(images, targets, self.draw(rng));
        Ok(())
    }

    fn check(&self) -> Result<()> {
        check_alpha("mixup", self.alpha)
    }
}
