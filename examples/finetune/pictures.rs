//! The folders of pictures to train on and to evaluate with.

use crate::Options;
use image::RgbImage;
use skipgrad::{
    Rng,
    data::{ImageFolder, ImageFolderOptions, SyntheticShapes},
};
use std::{error::Error, fs, path::Path};

/// Opens the training and the test pictures.
pub(crate) fn open(options: &Options, seed: u64) -> Result<(ImageFolder, ImageFolder), Box<dyn Error>> {
    let root = match &options.data {
        Some(root) => root.clone(),
        None => {
            let root = options.out.join("pictures");
            println!("no folder named: drawing pictures into {}", root.display());
            draw(&root, seed)?;
            root
        }
    };
    let open = |folder: &Path| ImageFolderOptions::new(options.size).strict(options.strict).open(folder);
    let test = ["val", "test"].map(|name| root.join(name)).into_iter().find(|folder| folder.is_dir());
    let Some(test) = test.filter(|_| root.join("train").is_dir()) else {
        return Ok(open(&root)?.split(options.part, Rng::seed(seed))?);
    };
    let (training, evaluation) = (open(&root.join("train"))?, open(&test)?);
    if training.classes() != evaluation.classes() {
        let train = root.join("train");
        return Err(format!("{} has other classes than {}", test.display(), train.display()).into());
    }
    Ok((training, evaluation))
}

/// The classes of the synthetic folder, and the number of pictures of each class.
const CLASSES: [usize; 4] = [0, 3, 5, 8];
const PER_CLASS: usize = 100;

/// Draws pictures of some classes of the synthetic images into folders, and adds a file that is not
/// a picture, since real folders contain such files.
fn draw(root: &Path, seed: u64) -> Result<(), Box<dyn Error>> {
    let images = SyntheticShapes::with_sizes(10 * PER_CLASS, 0, seed ^ 1)?.train();
    for class in CLASSES {
        let folder = root.join(&images.classes()[class]);
        fs::create_dir_all(&folder)?;
        for i in (class..images.len()).step_by(10) {
            let bytes = images.images(i..i + 1)?.data().iter().map(|x| (x * 255.0).round() as u8).collect();
            let picture = RgbImage::from_raw(32, 32, bytes).ok_or("a synthetic image is 32 x 32")?;
            picture.save(folder.join(format!("{i:04}.png")))?;
        }
    }
    fs::write(root.join(&images.classes()[CLASSES[0]]).join("broken.jpg"), "truncated")?;
    Ok(())
}
