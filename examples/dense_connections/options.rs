//! The options, and the folder for the pictures.

use clap::Parser;
use skipgrad::{Error, Result, io};
use std::{fs, path::PathBuf};

/// Draws the connections of dense blocks, and which of them a trained network uses.
#[derive(Parser)]
pub(crate) struct Options {
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    pub(crate) data: Option<PathBuf>,
    /// Number of layers of a dense block.
    #[arg(long, default_value_t = 6)]
    pub(crate) layers: usize,
    /// Channels of the input of the dense block whose connections are drawn.
    #[arg(long, default_value_t = 16)]
    pub(crate) channels: usize,
    /// Growth rate: the new channels of each layer, k in the paper.
    #[arg(long, default_value_t = 12)]
    pub(crate) growth: usize,
    /// Number of training steps.
    #[arg(long, default_value_t = 400)]
    pub(crate) steps: usize,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    pub(crate) batch: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 0.1)]
    pub(crate) lr: f32,
    /// Weight decay, which lets weights fade that the loss does not need.
    #[arg(long, default_value_t = 1e-3)]
    pub(crate) weight_decay: f32,
    /// Number of test images.
    #[arg(long, default_value_t = 1000)]
    pub(crate) test_images: usize,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Output folder.
    #[arg(long, default_value = "runs/dense_connections")]
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
