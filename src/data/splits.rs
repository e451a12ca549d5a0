//! A training and a test split.

use super::Images;

/// The training and the test split of a data source, whichever source it is.
///
/// ```
/// use skipgrad::data::{SyntheticShapes, Splits};
/// let data = Splits::from(SyntheticShapes::with_sizes(20, 10, 42)?);
/// assert_eq!((data.train().len(), data.test().len()), (20, 10));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Splits {
    train: Images,
    test: Images,
}

impl Splits {
    /// Combines a training and a test split.
    pub fn new(train: Images, test: Images) -> Splits {
        Splits { train, test }
    }

    /// Returns the training images. The clone shares the pixels.
    pub fn train(&self) -> Images {
        self.train.clone()
    }

    /// Returns the test images. The clone shares the pixels.
    pub fn test(&self) -> Images {
        self.test.clone()
    }
}
