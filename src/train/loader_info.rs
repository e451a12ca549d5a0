//! What a checkpoint records of a loader, so that a resumed training can tell another one.

use super::{Change, hash::Fnv1a};
use crate::{
    Error, Result,
    data::{Dataset, Loader},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The sizes of a loader, and what else its batches depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoaderInfo {
    /// Number of images in an epoch.
    pub(crate) images: usize,
    pub(crate) batch_size: usize,
    /// Checkpoints of the formats 1 and 2 have the sizes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Details>,
}

/// What the batches of a loader depend on, besides its sizes. The number of workers is not part of
/// it, since the batches do not depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Details {
    pub(crate) shuffle: bool,
    pub(crate) seed: u64,
    pub(crate) drop_last: bool,
    pub(crate) transform: String,
    /// Older checkpoints have none.
    #[serde(default = "no_batch_transform")]
    pub(crate) batch_transform: String,
    pub(crate) classes: Vec<String>,
    pub(crate) image_shape: [usize; 3],
    /// A hash of a few images and their labels.
    pub(super) fingerprint: u64,
}

fn no_batch_transform() -> String {
    "none".to_string()
}

impl LoaderInfo {
    /// Describes a loader. This reads a few images.
    pub(super) fn of(loader: &Loader) -> LoaderInfo {
        let data = loader.dataset();
        let details = Details {
            shuffle: loader.is_shuffled(),
            seed: loader.seed(),
            drop_last: loader.drops_last(),
            transform: format!("{:?}", loader.transforms()),
            batch_transform: loader.batch_transforms().map_or_else(no_batch_transform, |t| format!("{t:?}")),
            classes: data.classes().to_vec(),
            image_shape: data.image_shape(),
            fingerprint: fingerprint(data),
        };
        LoaderInfo { images: loader.num_samples(), batch_size: loader.batch_size(), details: Some(details) }
    }

    /// Compares the training loader with the one before the training was stopped, and returns what
    /// differs and does not matter for which images the rest of the epoch has.
    ///
    /// # Errors
    /// [`Error::Argument`] for other sizes, another order of the images and other classes: the
    /// training would go on with other batches, or with labels of another meaning.
    pub(super) fn resumed_by(&self, now: &LoaderInfo) -> Result<Vec<Change>> {
        if (self.images, self.batch_size) != (now.images, now.batch_size) {
            let before = format!("{} images in batches of {}", self.images, self.batch_size);
            let found = format!("{} in batches of {}", now.images, now.batch_size);
            return Err(refused(before, found));
        }
        let (Some(before), Some(now)) = (&self.details, &now.details) else { return Ok(vec![]) };
        if before.shuffle != now.shuffle {
            let order = |shuffle| if shuffle { "shuffled images" } else { "images in the dataset's order" };
            return Err(refused(order(before.shuffle), order(now.shuffle)));
        }
        if before.seed != now.seed {
            return Err(refused(format_args!("a loader of seed {}", before.seed), now.seed));
        }
        if before.drop_last != now.drop_last {
            let drop_last = |on| format!("drop_last({on})");
            return Err(refused(drop_last(before.drop_last), drop_last(now.drop_last)));
        }
        if before.classes != now.classes {
            return Err(refused(listed(&before.classes), listed(&now.classes)));
        }
        Ok(before.changes(now, "training"))
    }

    /// Returns how the test loader differs from the one before the training was stopped. Its
    /// metrics cannot be compared with the earlier ones then, but the training is the same.
    pub(super) fn test_changes(&self, now: &LoaderInfo) -> Vec<Change> {
        let mut changes = vec![];
        if self.images != now.images {
            changes.push(Change::new("number of test images", self.images, now.images));
        }
        if let (Some(before), Some(now)) = (&self.details, &now.details) {
            changes.extend(before.changes(now, "test"));
        }
        changes
    }
}

impl Details {
    /// Returns the differences between the images that two loaders read.
    fn changes(&self, now: &Details, of: &str) -> Vec<Change> {
        let mut changes = vec![];
        if self.image_shape != now.image_shape {
            let [before, now] = [self.image_shape, now.image_shape].map(|shape| format!("{shape:?}"));
            changes.push(Change::new(format!("shape of the {of} images"), before, now));
        } else if self.fingerprint != now.fingerprint {
            let [before, now] = [self.fingerprint, now.fingerprint].map(|hash| format!("{hash:016x}"));
            changes.push(Change::new(format!("fingerprint of the {of} images"), before, now));
        }
        if self.transform != now.transform {
            changes.push(Change::new(format!("{of} transform"), &self.transform, &now.transform));
        }
        if self.batch_transform != now.batch_transform {
            let (before, now) = (&self.batch_transform, &now.batch_transform);
            changes.push(Change::new(format!("{of} batch transform"), before, now));
        }
        changes
    }
}

fn refused(before: impl fmt::Display, found: impl fmt::Display) -> Error {
    let expected = format!("{before}, as before the training was stopped");
    Error::argument("train", "train", expected, found)
}

/// Lists the first classes.
fn listed(classes: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = if classes.len() > SHOWN { ", ..." } else { "" };
    format!("{} classes: {}{more}", classes.len(), classes[..classes.len().min(SHOWN)].join(", "))
}

/// The number of images that a fingerprint is made of.
const FINGERPRINT_IMAGES: usize = 4;

/// Returns a hash of the shape, the number of images, and a few images with their labels, evenly
/// spread over the dataset. An image that cannot be read counts as one without pixels.
fn fingerprint(data: &dyn Dataset) -> u64 {
    let (len, shape) = (data.len(), data.image_shape());
    let mut hash = Fnv1a::new();
    shape.into_iter().chain([len]).for_each(|size| hash.add(&(size as u64).to_le_bytes()));
    let mut pixels = vec![0.0; shape.iter().product()];
    let count = FINGERPRINT_IMAGES.min(len);
    for i in 0..count {
        let index = i * (len - 1) / (count - 1).max(1);
        if let Ok(label) = data.read(index, &mut pixels) {
            hash.add(&(label as u64).to_le_bytes());
            pixels.iter().for_each(|x| hash.add(&u64::from(x.to_bits()).to_le_bytes()));
        }
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Compose, Normalize, SyntheticShapes};

    fn loader(seed: u64) -> Loader {
        Loader::new(SyntheticShapes::with_sizes(20, 0, seed).unwrap().train(), 8).shuffle(3)
    }

    fn error(before: &Loader, now: &Loader) -> String {
        LoaderInfo::of(before).resumed_by(&LoaderInfo::of(now)).unwrap_err().to_string()
    }

    #[test]
    fn the_same_loader_has_the_same_info() {
        let (before, now) = (LoaderInfo::of(&loader(1)), LoaderInfo::of(&loader(1).num_workers(3)));
        assert_eq!(before, now);
        assert!(before.resumed_by(&now).unwrap().is_empty() && before.test_changes(&now).is_empty());
        let json = serde_json::to_string(&before).unwrap();
        assert_eq!(serde_json::from_str::<LoaderInfo>(&json).unwrap(), before);
    }

    #[test]
    fn another_order_is_an_error_by_name() {
        let data = || SyntheticShapes::with_sizes(20, 0, 1).unwrap().train();
        let suffix = ", as before the training was stopped, found ";
        let check = |now: Loader, before: &str, found: &str| {
            assert_eq!(error(&loader(1), &now), format!("train: train: expected {before}{suffix}{found}"));
        };
        check(loader(1).shuffle(4), "a loader of seed 3", "4");
        check(Loader::new(data(), 8), "shuffled images", "images in the dataset's order");
        check(Loader::new(data(), 5).shuffle(3), "20 images in batches of 8", "20 in batches of 5");
        check(Loader::new(data().take(16), 8).shuffle(3), "20 images in batches of 8", "16 in batches of 8");
        let whole = |drop_last| Loader::new(data().take(16), 8).shuffle(3).drop_last(drop_last);
        let dropped = error(&whole(false), &whole(true));
        assert!(
            dropped.contains("drop_last(false)") && dropped.contains("found drop_last(true)"),
            "{dropped}"
        );
    }

    #[test]
    fn other_images_and_transforms_are_said() {
        let names = |changes: Vec<Change>| changes.into_iter().map(|change| change.name).collect::<Vec<_>>();
        let before = LoaderInfo::of(&loader(1));
        let other = LoaderInfo::of(&loader(2));
        assert_eq!(names(before.resumed_by(&other).unwrap()), ["fingerprint of the training images"]);
        let normalized = LoaderInfo::of(&loader(1).transform(Compose::new().then(Normalize::cifar10())));
        assert_eq!(names(before.resumed_by(&normalized).unwrap()), ["training transform"]);
        let fewer = Loader::new(SyntheticShapes::with_sizes(10, 0, 1).unwrap().train(), 8).shuffle(3);
        assert_eq!(
            names(before.test_changes(&LoaderInfo::of(&fewer))),
            ["number of test images", "fingerprint of the test images"]
        );
    }

    #[test]
    fn sizes_alone_are_compared_with_an_old_checkpoint() {
        let old: LoaderInfo = serde_json::from_str("{\"images\":20,\"batch_size\":8}").unwrap();
        assert!(old.resumed_by(&LoaderInfo::of(&loader(2))).unwrap().is_empty());
        assert!(old.test_changes(&LoaderInfo::of(&loader(2))).is_empty());
    }
}
