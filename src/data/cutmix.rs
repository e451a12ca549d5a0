//! CutMix: batches of images with a box of another one.

use super::{
    BatchTransform,
    batch_transform::{blend_with_partners, partner},
    beta::{beta, check_alpha},
};
use crate::{Error, Result, Rng, Tensor};
use std::ops::Range;

/// Pastes a box of the image before it into every image of a batch, and blends their targets by the
/// area (Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with
/// localizable features", equation 1), as torchvision's `CutMix` does.
///
/// All images of a batch have the same box. Its sides are `sqrt(1 - lambda)` of those of the image,
/// with lambda from Beta(alpha, alpha), and its center is anywhere, so that the edge may cut it
/// off. The weight of an image's own target is the fraction of its area that is left.
///
/// ```
/// use skipgrad::{Tensor, data::CutMix};
/// let mut images = Tensor::new([2, 1, 4, 1], [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0])?;
/// let mut targets = Tensor::new([2, 2], [1.0, 0.0, 0.0, 1.0])?;
/// CutMix::mix(&mut images, &mut targets, [0..1, 3..4])?;
/// assert_eq!(images.data(), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 1.0]);
/// assert_eq!(targets.data(), [0.75, 0.25, 0.25, 0.75]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CutMix {
    /// Both parameters of the beta distribution of lambda, above 0; torchvision's references have
    /// 1, with which lambda is distributed uniformly.
    pub alpha: f32,
}

impl CutMix {
    /// Creates the transform with these parameters of the beta distribution.
    pub fn new(alpha: f32) -> CutMix {
        CutMix { alpha }
    }

    /// Draws the rows and the columns of the box for one batch of images of `h` rows and `w`
    /// columns. The box may be empty.
    pub fn draw(&self, [h, w]: [usize; 2], rng: &mut Rng) -> [Range<usize>; 2] {
        let half = 0.5 * (1.0 - beta(self.alpha, rng)).sqrt();
        [h, w].map(|size| {
            let (center, half) = (rng.below(size), (half * size as f64) as usize);
            center.saturating_sub(half)..(center + half).min(size)
        })
    }

    /// Pastes a given box, rows and columns within the images `[N, H, W, C]`, and blends the
    /// targets `[N, K]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the images are not of that form, and [`Error::Argument`] if the
    /// box is not within them.
    pub fn mix(images: &mut Tensor, targets: &mut Tensor, [rows, columns]: [Range<usize>; 2]) -> Result<()> {
        let [n, h, w, c] = images.shape().nhwc("cutmix", "images")?;
        if rows.start > rows.end || columns.start > columns.end || rows.end > h || columns.end > w {
            let expected = format!("rows and columns within {h} and {w}");
            let found = format!("{rows:?} and {columns:?}");
            return Err(Error::argument("cutmix", "box", expected, found));
        }
        let before = images.to_vec();
        let image_len = h * w * c;
        for (i, image) in images.data_mut().chunks_exact_mut(image_len.max(1)).enumerate() {
            let other = &before[partner(i, n) * image_len..][..image_len];
            for row in rows.clone() {
                let pasted = (row * w + columns.start) * c..(row * w + columns.end) * c;
                image[pasted.clone()].copy_from_slice(&other[pasted]);
            }
        }
        let pasted = (rows.len() * columns.len()) as f64 / (h * w).max(1) as f64;
        blend_with_partners(targets, (1.0 - pasted) as f32);
        Ok(())
    }
}

impl BatchTransform for CutMix {
    fn apply(&self, images: &mut Tensor, targets: &mut Tensor, rng: &mut Rng) -> Result<()> {
        let [_, h, w, _] = images.shape().nhwc("cutmix", "images")?;
        CutMix::mix(images, targets, self.draw([h, w], rng))
    }

    fn check(&self) -> Result<()> {
        check_alpha("cutmix", self.alpha)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_the_area_that_lambda_leaves() {
        let mut rng = Rng::seed(2);
        let count = 4000;
        let (mut areas, mut smallest, mut largest) = (0.0, 1.0f64, 0.0f64);
        for _ in 0..count {
            let [rows, columns] = CutMix::new(1.0).draw([400, 600], &mut rng);
            assert!(rows.end <= 400 && columns.end <= 600);
            let area = (rows.len() * columns.len()) as f64 / 240_000.0;
            areas += area / f64::from(count);
            (smallest, largest) = (smallest.min(area), largest.max(area));
        }
        // The part of a side s that the edge leaves of a box around a random center is s - s^2 / 4
        // of the whole on average; with s^2 distributed uniformly, the mean of its square is
        // 1/2 - 1/5 + 1/48.
        assert!((areas - 0.3208).abs() < 0.015, "{areas}");
        assert!(smallest < 0.01 && largest > 0.9, "{smallest} {largest}");
    }
}
