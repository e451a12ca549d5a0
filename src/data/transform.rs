//! Variations of training images, and the normalization that test images get as well.

use super::Dataset;
use crate::{Error, Result, Rng, Shape};
use std::{fmt, sync::Arc};

/// One step of a [`Compose`]: changes an image `[H, W, C]` in place.
///
/// ```
/// use skipgrad::{Rng, data::{Transform, Compose}};
///
/// /// Turns an image into its negative, half of the time.
/// #[derive(Debug)]
/// struct Negative;
///
/// impl Transform for Negative {
///     fn apply(&self, pixels: &mut [f32], _shape: [usize; 3], rng: &mut Rng) {
///         if rng.chance(0.5) {
///             pixels.iter_mut().for_each(|x| *x = 1.0 - *x);
///         }
///     }
/// }
///
/// let mut pixels = [0.25; 4];
/// Compose::new().then(Negative).then(Negative).eval().apply(&mut pixels, [2, 2, 1], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.25; 4], "nothing random happens to test images");
/// ```
pub trait Transform: fmt::Debug + Send + Sync {
    /// Changes the pixels. `shape` is `[H, W, C]`, none of them 0, and there are as many pixels as it says; everything
    /// random comes from `rng`.
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng);

    /// Whether the step varies images, and so has no place in evaluation. True unless it says otherwise.
    fn is_random(&self) -> bool {
        true
    }

    /// Whether the step can be applied to images of this shape. Anything can unless it says otherwise.
    ///
    /// # Errors
    /// [`Error::Argument`] that says what does not fit.
    fn check(&self, _shape: [usize; 3]) -> Result<()> {
        Ok(())
    }
}

/// Steps that are applied one after the other to every image.
///
/// The order is yours, and matters: padding and cutting out write zeros, so in front of [`Normalize`] they write black
/// (the recipe of He et al. 2015, section 4.2, as its public implementations run it), and behind it the mean color.
///
/// ```
/// use skipgrad::data::{RandomHorizontalFlip, Normalize, RandomCrop, Compose};
/// let train = Compose::new().then(RandomCrop(4)).then(RandomHorizontalFlip).then(Normalize::cifar10());
/// let test = train.eval();
/// assert_eq!((train.len(), test.len()), (3, 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Compose(Vec<Arc<dyn Transform>>);

impl Compose {
    /// No steps: images stay as they are.
    pub fn new() -> Compose {
        Compose::default()
    }

    /// The pipeline with one more step at its end.
    #[must_use]
    pub fn then(mut self, step: impl Transform + 'static) -> Compose {
        self.0.push(Arc::new(step));
        self
    }

    /// The pipeline for evaluation: the same without its random steps.
    #[must_use]
    pub fn eval(&self) -> Compose {
        Compose(self.0.iter().filter(|step| !step.is_random()).cloned().collect())
    }

    /// Applies every step to an image `[H, W, C]`.
    pub fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        self.0.iter().for_each(|step| step.apply(pixels, shape, rng));
    }

    /// Whether every step can be applied to images of this shape, `[H, W, C]`.
    ///
    /// # Errors
    /// The first step's that cannot.
    pub fn check(&self, shape: [usize; 3]) -> Result<()> {
        self.0.iter().try_for_each(|step| step.check(shape))
    }

    /// The number of steps.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Pads the image with this many zeros on each side and crops it to its size again, at a random place: the image is
/// shifted by up to so many pixels along each axis, every shift equally likely (He et al. 2015, section 4.2, with 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomCrop(
    /// The most an image is shifted, in pixels.
    pub usize,
);

impl Transform for RandomCrop {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        let offset = |rng: &mut Rng| rng.below(2 * self.0 + 1) as isize - self.0 as isize;
        let (rows, columns) = (offset(rng), offset(rng));
        shift(pixels, shape, rows, columns);
    }

    fn check(&self, [h, w, _]: [usize; 3]) -> Result<()> {
        if self.0 >= h.min(w) {
            let expected = format!("a padding below {}, the size of the image", h.min(w));
            return Err(Error::argument("pad_crop", "padding", expected, self.0));
        }
        Ok(())
    }
}

/// Moves the window by so many rows down and columns to the right, in place; what comes into it is zero.
fn shift(pixels: &mut [f32], [h, w, c]: [usize; 3], rows: isize, columns: isize) {
    let stride = w * c;
    let kept = w.saturating_sub(columns.unsigned_abs()) * c;
    let (from, to) = if columns >= 0 { (stride - kept, 0) } else { (0, stride - kept) };
    let mut row = |y: usize| {
        let start = y * stride;
        match y.checked_add_signed(rows).filter(|&source| source < h) {
            Some(source) => {
                let source = source * stride + from;
                pixels.copy_within(source..source + kept, start + to);
                pixels[start..start + to].fill(0.0);
                pixels[start + to + kept..start + stride].fill(0.0);
            }
            None => pixels[start..start + stride].fill(0.0),
        }
    };
    // A row must be read before it is written: the order follows the direction.
    if rows >= 0 { (0..h).for_each(&mut row) } else { (0..h).rev().for_each(&mut row) }
}

/// Mirrors the image, left to right, with probability one half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomHorizontalFlip;

impl Transform for RandomHorizontalFlip {
    fn apply(&self, pixels: &mut [f32], [_, w, c]: [usize; 3], rng: &mut Rng) {
        if rng.chance(0.5) {
            pixels.chunks_exact_mut(w * c).for_each(|row| mirror(row, c));
        }
    }
}

/// Reverses the order of a row's pixels of `c` channels.
fn mirror(row: &mut [f32], c: usize) {
    let w = row.len() / c;
    let (left, right) = row.split_at_mut(w / 2 * c);
    for (a, b) in left.chunks_exact_mut(c).zip(right.rchunks_exact_mut(c)) {
        a.swap_with_slice(b);
    }
}

/// Sets a square of this side, centered at a random pixel and cut off at the image's edge, to zero (DeVries and Taylor
/// 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"; they take 16 for CIFAR-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutout(
    /// The side of the square, in pixels.
    pub usize,
);

impl Transform for Cutout {
    fn apply(&self, pixels: &mut [f32], [h, w, c]: [usize; 3], rng: &mut Rng) {
        let span = |size: usize, rng: &mut Rng| {
            let center = rng.below(size);
            center.saturating_sub(self.0 / 2)..center.saturating_add(self.0.div_ceil(2)).min(size)
        };
        let (rows, columns) = (span(h, rng), span(w, rng));
        for row in pixels.chunks_exact_mut(w * c).take(rows.end).skip(rows.start) {
            row[columns.start * c..columns.end * c].fill(0.0);
        }
    }
}

/// Brings every channel to mean 0 and standard deviation 1: `(x - mean) / std`. Not random: test images get it too.
///
/// ```
/// use skipgrad::{Rng, data::{Transform, Normalize}};
/// let mut pixels = [0.5, 0.5, 0.5];
/// let step = Normalize { mean: vec![0.5, 0.25, 0.0], std: vec![1.0, 0.25, 0.5] };
/// step.apply(&mut pixels, [1, 1, 3], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.0, 1.0, 1.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// The mean of each channel, `C` of them.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, `C` of them, above 0.
    pub std: Vec<f32>,
}

impl Normalize {
    /// CIFAR-10's training images: mean 0.4914, 0.4822, 0.4465 and deviation 0.2470, 0.2435, 0.2616.
    pub fn cifar10() -> Normalize {
        Normalize { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] }
    }

    /// CIFAR-100's training images: mean 0.5071, 0.4865, 0.4409 and deviation 0.2673, 0.2564, 0.2762.
    pub fn cifar100() -> Normalize {
        Normalize { mean: vec![0.5071, 0.4865, 0.4409], std: vec![0.2673, 0.2564, 0.2762] }
    }

    /// ImageNet's training images: mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225.
    pub fn imagenet() -> Normalize {
        Normalize { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// What the images of a dataset need, measured over all their pixels.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no images, and whatever reading them gives.
    ///
    /// ```
    /// use skipgrad::{Tensor, data::{Images, Normalize}};
    /// let images = Images::new(Tensor::new([2, 1, 1, 1], [0.25, 0.75])?, vec![0, 0], ["grey"])?;
    /// assert_eq!(Normalize::measure(&images)?, Normalize { mean: vec![0.5], std: vec![0.25] });
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn measure(data: &dyn Dataset) -> Result<Normalize> {
        let shape @ [h, w, c] = data.image_shape();
        let size = Shape::new(&shape)?.num_elements();
        if data.is_empty() || size == 0 {
            let found = format!("{} images of {shape:?}", data.len());
            return Err(Error::argument("normalize", "data", "at least one image with pixels", found));
        }
        let mut pixels = vec![0.0; size];
        let mut sums = vec![[0.0f64; 2]; c];
        let mut images = 0;
        for index in 0..data.len() {
            match data.read(index, &mut pixels) {
                Err(error) if data.should_skip(&error) => continue,
                read => read?,
            };
            images += 1;
            for pixel in pixels.chunks_exact(c) {
                for ([sum, squares], &x) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(x);
                    *squares += f64::from(x) * f64::from(x);
                }
            }
        }
        if images == 0 {
            return Err(Error::argument("normalize", "data", "an image that can be read", "none"));
        }
        let count = (images * h * w) as f64;
        let deviation =
            |&[sum, squares]: &[f64; 2]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt();
        Ok(Normalize {
            mean: sums.iter().map(|[sum, _]| (sum / count) as f32).collect(),
            std: sums.iter().map(|moments| deviation(moments) as f32).collect(),
        })
    }
}

impl Transform for Normalize {
    fn apply(&self, pixels: &mut [f32], [_, _, c]: [usize; 3], _rng: &mut Rng) {
        for pixel in pixels.chunks_exact_mut(c) {
            for ((x, mean), std) in pixel.iter_mut().zip(&self.mean).zip(&self.std) {
                *x = (*x - mean) / std;
            }
        }
    }

    fn is_random(&self) -> bool {
        false
    }

    fn check(&self, [_, _, c]: [usize; 3]) -> Result<()> {
        for (argument, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != c {
                let expected = format!("{c} values, one a channel");
                return Err(Error::argument("normalize", argument, expected, values.len()));
            }
        }
        if let Some(mean) = self.mean.iter().find(|x| !x.is_finite()) {
            return Err(Error::argument("normalize", "mean", "finite values", mean));
        }
        match self.std.iter().find(|&&x| !(x.is_finite() && x > 0.0)) {
            Some(std) => Err(Error::argument("normalize", "std", "finite values above 0", std)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;
    use std::collections::BTreeSet;

    /// An image whose pixel at row y, column x, channel k is 100 (y + 1) + 10 (x + 1) + k.
    fn numbered([h, w, c]: [usize; 3]) -> Vec<f32> {
        let pixel = |i: usize| 100 * (i / (w * c) + 1) + 10 * (i / c % w + 1) + i % c;
        (0..h * w * c).map(|i| pixel(i) as f32).collect()
    }

    #[test]
    fn a_shift_equals_padding_and_cropping_by_hand() {
        for shape @ [h, w, c] in [[3, 3, 1], [4, 5, 3], [5, 2, 2], [1, 7, 1]] {
            let image = numbered(shape);
            let pad = (h.min(w) - 1) as isize;
            for (rows, columns) in (-pad..=pad).flat_map(|y| (-pad..=pad).map(move |x| (y, x))) {
                let mut shifted = image.clone();
                shift(&mut shifted, shape, rows, columns);
                for (i, &value) in shifted.iter().enumerate() {
                    let (y, x) = ((i / (w * c)) as isize + rows, (i / c % w) as isize + columns);
                    let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                    let expected =
                        if inside { image[(y as usize * w + x as usize) * c + i % c] } else { 0.0 };
                    assert_eq!(value, expected, "{shape:?} by {rows}, {columns} at {i}");
                }
            }
        }
    }

    #[test]
    fn a_shift_of_a_small_image() {
        let mut image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        shift(&mut image, [3, 3, 1], 1, -1);
        assert_eq!(image, [0.0, 4.0, 5.0, 0.0, 7.0, 8.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn crops_reach_both_ends_and_everything_between() {
        let mut rng = Rng::seed(3);
        let mut seen = BTreeSet::new();
        for _ in 0..2000 {
            // The only bright pixel is in the middle of 9 x 9: where it goes tells the offsets.
            let mut image = vec![0.0; 81];
            image[40] = 1.0;
            RandomCrop(4).apply(&mut image, [9, 9, 1], &mut rng);
            seen.insert(image.iter().position(|&x| x == 1.0).unwrap());
        }
        assert_eq!(seen, (0..81).collect());
    }

    #[test]
    fn a_flip_reverses_pixels_and_keeps_channels() {
        let mut odd = numbered([1, 3, 2]);
        mirror(&mut odd, 2);
        assert_eq!(odd, [130.0, 131.0, 120.0, 121.0, 110.0, 111.0]);
        let mut even = [1.0, 2.0, 3.0, 4.0];
        mirror(&mut even, 1);
        assert_eq!(even, [4.0, 3.0, 2.0, 1.0]);
        let image = numbered([2, 3, 2]);
        let mut rng = Rng::seed(1);
        let flipped = (0..1000)
            .filter(|_| {
                let mut other = image.clone();
                RandomHorizontalFlip.apply(&mut other, [2, 3, 2], &mut rng);
                other != image
            })
            .count();
        assert!((440..560).contains(&flipped), "{flipped}");
    }

    #[test]
    fn a_cutout_is_a_square_that_the_edge_cuts_off() {
        let mut rng = Rng::seed(9);
        let mut sizes = BTreeSet::new();
        for _ in 0..500 {
            let mut image = vec![1.0; 7 * 5 * 2];
            Cutout(3).apply(&mut image, [7, 5, 2], &mut rng);
            let gone: Vec<usize> = (0..35).filter(|&i| image[2 * i] == 0.0).collect();
            assert!(gone.iter().all(|&i| image[2 * i + 1] == 0.0), "all channels");
            let rows: BTreeSet<usize> = gone.iter().map(|i| i / 5).collect();
            let columns: BTreeSet<usize> = gone.iter().map(|i| i % 5).collect();
            assert_eq!(gone.len(), rows.len() * columns.len(), "a rectangle");
            sizes.insert((rows.len(), columns.len()));
        }
        assert_eq!(sizes, [(2, 2), (2, 3), (3, 2), (3, 3)].into());
        let mut image = vec![1.0; 4];
        Cutout(usize::MAX).apply(&mut image, [2, 2, 1], &mut rng);
        assert_eq!(image, [0.0; 4]);
        Cutout(0).apply(&mut image, [2, 2, 1], &mut rng);
    }

    #[test]
    fn padding_before_normalizing_is_black() {
        let step = Normalize { mean: vec![0.5], std: vec![0.5] };
        let black = Compose::new().then(RandomCrop(1)).then(step.clone());
        let gray = Compose::new().then(step).then(RandomCrop(1));
        let corner = |pipeline: &Compose| {
            let mut values = BTreeSet::new();
            for seed in 0..20 {
                let mut image = [1.0; 9];
                pipeline.apply(&mut image, [3, 3, 1], &mut Rng::seed(seed));
                values.extend(image.map(|x| x as i32));
            }
            values
        };
        assert_eq!((corner(&black), corner(&gray)), ([-1, 1].into(), [0, 1].into()));
    }

    #[test]
    fn evaluation_keeps_the_normalization_only() {
        let train = Compose::new()
            .then(RandomCrop(1))
            .then(RandomHorizontalFlip)
            .then(Normalize::cifar10())
            .then(Cutout(1));
        assert_eq!(format!("{:?}", train.eval()), format!("Compose([{:?}])", Normalize::cifar10()));
    }

    #[test]
    fn a_measured_normalization_gives_mean_0_and_deviation_1() {
        let pixels = crate::Tensor::uniform([20, 4, 4, 3], 0.2, 0.9, &mut Rng::seed(2)).unwrap();
        let images = Images::new(pixels, vec![0; 20], ["noise"]).unwrap();
        let step = Normalize::measure(&images).unwrap();
        let mut normalized = images.images(0..20).unwrap().to_vec();
        step.apply(&mut normalized, [320, 1, 3], &mut Rng::seed(0));
        for k in 0..3 {
            let channel: Vec<f64> = normalized.iter().skip(k).step_by(3).map(|&x| f64::from(x)).collect();
            let mean = channel.iter().sum::<f64>() / 320.0;
            let variance = channel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 320.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
        assert!(Normalize::measure(&images.take(0)).is_err());
    }

    #[test]
    fn steps_that_do_not_fit_are_refused() {
        let check = |step: &dyn Transform| step.check([8, 6, 3]).unwrap_err().to_string();
        assert!(check(&RandomCrop(6)).contains("a padding below 6, the size of the image, found 6"));
        let normalize = |mean: &[f32], std: &[f32]| Normalize { mean: mean.into(), std: std.into() };
        assert!(check(&normalize(&[0.0], &[1.0; 3])).contains("mean: expected 3 values"));
        assert!(check(&normalize(&[0.0; 3], &[1.0; 4])).contains("std: expected 3 values"));
        assert!(check(&normalize(&[0.0; 3], &[1.0, 0.0, 1.0])).contains("finite values above 0, found 0"));
        assert!(check(&normalize(&[f32::NAN; 3], &[1.0; 3])).contains("finite values, found NaN"));
        assert!(Compose::new().then(RandomHorizontalFlip).then(RandomCrop(9)).check([8, 6, 3]).is_err());
        assert!(Compose::new().then(RandomCrop(4)).then(RandomHorizontalFlip).check([8, 6, 3]).is_ok());
    }
}
