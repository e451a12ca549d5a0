//! Synthetic images: a classification task that needs no download.

mod figure;
mod scene;

use super::{Images, Splits, memory::with_byte_capacity};
use crate::{Result, Rng};
use rayon::prelude::*;

/// Height and width of an image, in pixels.
const SIDE: usize = 32;
/// Bytes of an image.
const IMAGE_LEN: usize = SIDE * SIDE * 3;

/// Synthetic images of ten classes of shapes and textures, 32 x 32 pixels with three channels.
///
/// The position, size, rotation and colors of the shape, the background, the lines before and
/// behind the shape, and the noise are random and independent of the class. So a linear classifier
/// of the pixels learns almost nothing, and a network must learn edges, corners and patterns at any
/// position. Image `i` has the class `i % 10`.
///
/// A seed gives the same bytes with any number of threads, on every machine with IEEE arithmetic:
/// all computations are additions, multiplications, divisions, square roots and roundings, whose
/// results the standard specifies.
///
/// ```
/// use skipgrad::data::SyntheticShapes;
/// let data = SyntheticShapes::with_sizes(20, 10, 42)?;
/// assert_eq!((data.train().len(), data.test().len()), (20, 10));
/// assert_eq!(data.train().classes()[data.train().labels(0..20)?[15]], "star");
/// let fewer = SyntheticShapes::with_sizes(0, 1, 42)?;
/// assert_eq!(data.test().images(0..1)?, fewer.test().images(0..1)?);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SyntheticShapes(Splits);

impl SyntheticShapes {
    /// Names of the classes; a label is an index into them.
    pub const CLASSES: [&'static str; 10] = figure::NAMES;

    /// Number of training and of test images of [`SyntheticShapes::new`].
    pub const SIZES: [usize; 2] = [8000, 2000];

    /// Generates the default number of images, [`SyntheticShapes::SIZES`], from a seed.
    pub fn new(seed: u64) -> SyntheticShapes {
        let [train, test] = SyntheticShapes::SIZES.map(|count| vec![0; count * IMAGE_LEN]);
        SyntheticShapes::draw(train, test, seed)
    }

    /// Generates `train` training images and `test` test images from a seed. The first images do
    /// not depend on how many are generated.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the images do not fit in memory.
    pub fn with_sizes(train: usize, test: usize, seed: u64) -> Result<SyntheticShapes> {
        Ok(SyntheticShapes::draw(blank_images(train)?, blank_images(test)?, seed))
    }

    /// Draws the images of both splits into their bytes.
    fn draw(train: Vec<u8>, test: Vec<u8>, seed: u64) -> SyntheticShapes {
        SyntheticShapes(Splits::new(draw_split(train, seed, 0), draw_split(test, seed, 1)))
    }

    /// Returns the training images.
    pub fn train(&self) -> Images {
        self.0.train()
    }

    /// Returns the test images.
    pub fn test(&self) -> Images {
        self.0.test()
    }
}

impl From<SyntheticShapes> for Splits {
    fn from(data: SyntheticShapes) -> Splits {
        data.0
    }
}

/// Allocates the bytes of `count` images.
fn blank_images(count: usize) -> Result<Vec<u8>> {
    let bytes = count.saturating_mul(IMAGE_LEN);
    let mut pixels = with_byte_capacity(bytes)?;
    pixels.resize(bytes, 0);
    Ok(pixels)
}

/// Draws the images of a split. Each image has its own random stream, so it does not matter which
/// thread draws it.
fn draw_split(mut pixels: Vec<u8>, seed: u64, split: u64) -> Images {
    let class = |index: usize| index % SyntheticShapes::CLASSES.len();
    pixels.par_chunks_exact_mut(IMAGE_LEN).enumerate().for_each(|(index, pixels)| {
        scene::draw(class(index), &mut Rng::keyed(seed, FIRST_STREAM + split, index as u64), pixels);
    });
    let count = pixels.len() / IMAGE_LEN;
    match Images::from_bytes(
        [count, SIDE, SIDE, 3],
        pixels,
        (0..count).map(class).collect(),
        SyntheticShapes::CLASSES,
    ) {
        Ok(images) => images,
        Err(error) => unreachable!("sizes and labels fit by construction: {error}"),
    }
}

/// Key of the random streams of the first split. It is apart from the keys of a loader with the
/// same seed, which are epochs.
const FIRST_STREAM: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, data::Dataset};
    use std::collections::BTreeSet;

    /// FNV-1a, 64 bits.
    fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
        bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    fn bytes(images: &Images) -> Vec<u8> {
        images.images(0..images.len()).unwrap().data().iter().map(|x| (x * 255.0).round() as u8).collect()
    }

    #[test]
    fn the_images_never_change() {
        let data = SyntheticShapes::with_sizes(10, 10, 42).unwrap();
        let hashes = [data.train(), data.test()].map(|images| hash(bytes(&images)));
        assert_eq!(
            hashes,
            [11_381_785_088_326_193_590, 11_521_895_643_663_454_936],
            "a change of the drawing changes every accuracy that was ever written down"
        );
    }

    #[test]
    fn any_number_of_threads_draws_the_same() {
        let with_threads = |count| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
            bytes(&pool.install(|| SyntheticShapes::with_sizes(40, 0, 7)).unwrap().train())
        };
        let one = with_threads(1);
        assert!([2, 3, 8].into_iter().all(|count| with_threads(count) == one));
    }

    #[test]
    fn seeds_splits_and_indices_give_different_images_and_the_classes_take_turns() {
        let (a, b) = (
            SyntheticShapes::with_sizes(30, 30, 1).unwrap(),
            SyntheticShapes::with_sizes(30, 30, 2).unwrap(),
        );
        let images = [a.train(), a.test(), b.train(), b.test()];
        let all: BTreeSet<Vec<u8>> = images
            .iter()
            .flat_map(|i| bytes(i).chunks(IMAGE_LEN).map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect();
        assert_eq!(all.len(), 120);
        assert_eq!(a.train().labels(8..12).unwrap(), [8, 9, 0, 1]);
        assert_eq!(bytes(&a.train().take(7)), bytes(&SyntheticShapes::with_sizes(7, 0, 1).unwrap().train()));
    }

    #[test]
    fn overflowing_sizes_are_an_error() {
        for count in [usize::MAX, usize::MAX / IMAGE_LEN, 1 << 50] {
            assert!(matches!(SyntheticShapes::with_sizes(count, 0, 0), Err(Error::OutOfMemory { .. })));
        }
    }

    /// Only the shape tells the class: the mean image of every class is the same gray.
    #[test]
    fn colors_and_brightness_say_nothing_about_the_class() {
        let train = SyntheticShapes::with_sizes(4000, 0, 3).unwrap().train();
        let mut pixels = vec![0.0; IMAGE_LEN];
        let mut means = [[0.0f64; 3]; 10];
        for index in 0..train.len() {
            let class = train.read(index, &mut pixels).unwrap();
            for (i, &x) in pixels.iter().enumerate() {
                means[class][i % 3] += f64::from(x) / (400 * SIDE * SIDE) as f64;
            }
        }
        // The mean of a channel has a standard deviation of about 0.25 over images, and so of
        // 0.0125 over the mean of 400 images; the bound is four times that.
        assert!(means.as_flattened().iter().all(|mean| (mean - 0.5).abs() < 0.05), "{means:?}");
    }

    /// Softmax regression of the pixels by stochastic gradient descent: the best test accuracy of
    /// any epoch is low, although the training images are fitted.
    #[test]
    fn a_linear_classifier_stays_under_60_percent() {
        let data = SyntheticShapes::new(42);
        let (train, test) = (data.train(), data.test());
        let mut weights = vec![[0.0f32; 10]; IMAGE_LEN + 1];
        let mut pixels = vec![0.0; IMAGE_LEN];
        let logits = |weights: &[[f32; 10]], pixels: &[f32]| {
            let mut sums = weights[IMAGE_LEN];
            for (row, &x) in weights.iter().zip(pixels) {
                sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += (x - 0.5) * w);
            }
            sums
        };
        let accuracy = |weights: &[[f32; 10]], images: &Images, pixels: &mut [f32]| {
            let right = (0..images.len()).filter(|&index| {
                let label = images.read(index, pixels).unwrap();
                let logits = logits(weights, pixels);
                logits.iter().all(|&other| other <= logits[label])
            });
            right.count() as f64 / images.len() as f64
        };
        let mut best = 0.0f64;
        for epoch in 0..16 {
            let rate = 0.006 / (1.0 + epoch as f32 / 2.0);
            let mut order: Vec<usize> = (0..train.len()).collect();
            Rng::keyed(1, epoch, 0).shuffle(&mut order);
            for index in order {
                let label = train.read(index, &mut pixels).unwrap();
                let logits = logits(&weights, &pixels);
                let largest = logits.into_iter().fold(f32::MIN, f32::max);
                let powers = logits.map(|x| (x - largest).exp());
                let sum: f32 = powers.iter().sum();
                let mut slope = powers.map(|x| -rate * x / sum);
                slope[label] += rate;
                for (row, &x) in weights.iter_mut().zip(&pixels) {
                    row.iter_mut().zip(slope).for_each(|(w, d)| *w += (x - 0.5) * d);
                }
                weights[IMAGE_LEN].iter_mut().zip(slope).for_each(|(w, d)| *w += d);
            }
            best = best.max(accuracy(&weights, &test, &mut pixels));
        }
        let fitted = accuracy(&weights, &train, &mut pixels);
        assert!(fitted > 0.4, "it has not learned even the training images: {fitted}");
        assert!(best < 0.6, "{best} of the test images, {fitted} of the training images");
    }
}
