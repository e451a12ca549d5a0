//! The options, and the folder for the pictures.

use clap::Parser;
use skipgrad::{Error, Result, io};
use std::{fs, path::PathBuf};

/// Builds the lecture's ResNet-18, prints its parameters, and draws it.
#[derive(Parser)]
pub(crate) struct Options {
    /// Number of classes; the lecture's images are those of CIFAR-100.
    #[arg(long, default_value_t = 100)]
    pub(crate) classes: usize,
    /// Output folder.
    #[arg(long, default_value = "runs/lecture_resnet")]
    pub(crate) out: PathBuf,
}

impl Options {
    /// Writes a picture to the output folder.
    pub(crate) fn write(&self, name: &str, svg: &str) -> Result<()> {
        fs::create_dir_all(&self.out).map_err(|error| Error::io(&self.out, "create", error))?;
        let path = self.out.join(name);
        io::write_atomically(&path, svg.as_bytes())?;
        println!("written: {}", path.display());
        Ok(())
    }
}
