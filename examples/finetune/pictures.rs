//! The folders of pictures to train on and to evaluate with.

use crate::Options;
use image::RgbImage;
use skipgrad::data::{ImageFolder, ImageFolderOptions, SyntheticShapes};
use std::{collections::BTreeMap, error::Error, fs, path::Path};

/// Opens the training and the test pictures, and prints how the folder was taken.
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
    let folder = ImageFolderOptions::new(options.size)
        .strict(options.strict)
        .natural_order(options.natural_order)
        .split(options.part, seed);
    let parts = folder.open_parts(&root)?;
    for note in &parts.notes {
        println!("{}: {note}", root.display());
    }
    let ignored = parts.train.ignored_files().iter().chain(parts.evaluation().ignored_files());
    // The two parts of a split share the list.
    let ignored: BTreeMap<_, _> = ignored.map(|(path, reason)| (path, reason)).collect();
    for (path, reason) in ignored.iter().take(LISTED) {
        println!("ignored: {}: {reason}", path.display());
    }
    if ignored.len() > LISTED {
        println!("ignored: {} files more", ignored.len() - LISTED);
    }
    let evaluation = parts.evaluation().clone();
    Ok((parts.train, evaluation))
}

/// Most ignored files that are printed.
const LISTED: usize = 10;

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
