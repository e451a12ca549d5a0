//! Images that the library draws itself: a task to train on where no data is at hand.

mod figure;
mod scene;

use super::{Images, Splits};
use crate::{Error, Result, Rng};
use rayon::prelude::*;

/// The side of an image, in pixels.
const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE * 3;

/// Ten classes of shapes and textures, 32 x 32 pixels in three channels, drawn from a seed.
///
/// Where the figure is, how large, how it is turned, its colours, what is behind and in front of it, and the noise over
/// everything are random and say nothing about the class; so a linear classifier of the pixels learns next to nothing,
/// and a network has to learn edges, corners and patterns, wherever they are. Image `i` is of class `i % 10`.
///
/// The same seed gives the same bytes on every machine with IEEE arithmetic and with any number of threads: the drawing
/// adds, multiplies, divides, takes square roots and rounds, whose results the standard fixes, and nothing else.
///
/// ```
/// use skipgrad::data::Drawn;
/// let data = Drawn::with_sizes(20, 10, 42)?;
/// assert_eq!((data.train().len(), data.test().len()), (20, 10));
/// assert_eq!(data.train().classes()[data.train().labels(0..20)?[15]], "star");
/// assert_eq!(data.test().images(0..1)?, Drawn::with_sizes(0, 1, 42)?.test().images(0..1)?);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Drawn(Splits);

impl Drawn {
    /// The names of the classes.
    pub const CLASSES: [&'static str; 10] = figure::NAMES;

    /// The number of training and of test images that [`Drawn::new`] draws.
    pub const SIZES: [usize; 2] = [6000, 2000];

    /// The images of a seed, in the default number.
    pub fn new(seed: u64) -> Drawn {
        let [train, test] = Drawn::SIZES.map(|count| vec![0; count * PIXELS]);
        Drawn::on(train, test, seed)
    }

    /// The images of a seed: so many to learn from, so many to judge by. A smaller number gives the first ones of a larger.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the images do not fit the memory.
    pub fn with_sizes(train: usize, test: usize, seed: u64) -> Result<Drawn> {
        Ok(Drawn::on(canvases(train)?, canvases(test)?, seed))
    }

    /// Draws over bytes, as many images as they hold.
    fn on(train: Vec<u8>, test: Vec<u8>, seed: u64) -> Drawn {
        Drawn(Splits::new(draw(train, seed, 0), draw(test, seed, 1)))
    }

    /// The images to learn from.
    pub fn train(&self) -> Images {
        self.0.train()
    }

    /// The images to judge by.
    pub fn test(&self) -> Images {
        self.0.test()
    }
}

impl From<Drawn> for Splits {
    fn from(data: Drawn) -> Splits {
        data.0
    }
}

/// Bytes for so many images.
fn canvases(count: usize) -> Result<Vec<u8>> {
    let bytes = count.saturating_mul(PIXELS);
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    pixels.resize(bytes, 0);
    Ok(pixels)
}

/// Draws the images of a split. Each has a stream of its own, so it does not matter which thread draws it.
fn draw(mut pixels: Vec<u8>, seed: u64, split: u64) -> Images {
    let class = |index: usize| index % Drawn::CLASSES.len();
    pixels.par_chunks_exact_mut(PIXELS).enumerate().for_each(|(index, pixels)| {
        scene::draw(class(index), &mut Rng::keyed(seed, STREAMS + split, index as u64), pixels);
    });
    let count = pixels.len() / PIXELS;
    match Images::from_bytes([count, SIDE, SIDE, 3], pixels, (0..count).map(class).collect(), Drawn::CLASSES)
    {
        Ok(images) => images,
        Err(error) => unreachable!("sizes and labels are right by construction: {error}"),
    }
}

/// The first key of the streams, apart from the epochs that a loader with the same seed counts.
const STREAMS: u64 = 1 << 63;
