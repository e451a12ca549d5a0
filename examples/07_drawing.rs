//! Draws networks: a ResNet's shortcuts and a DenseNet's connections.
//!
//! `cargo run --release --example 07_drawing` writes `resnet18.svg` and `densenet.svg` to the
//! folder for temporary files, or to the one that is given.

use skipgrad::{
    Result, Rng,
    graph::Graph,
    io,
    models::{DenseNet, DenseNetConfig, ResNet},
};
use std::{env, path::PathBuf};

fn main() -> Result<()> {
    let folder = env::args_os().nth(1).map_or_else(env::temp_dir, PathBuf::from);
    let rng = &mut Rng::seed(0);

    let resnet = Graph::trace(&ResNet::imagenet(18, 1000, rng)?, &[1, 224, 224, 3])?;
    let config = DenseNetConfig::bc(22, 12, 10)?.layers([5, 5]);
    let densenet = Graph::trace(&DenseNet::new(&config, rng)?, &[1, 32, 32, 3])?;

    // At depth 3, the layers of blocks are boxes.
    for (graph, name) in [(resnet, "resnet18.svg"), (densenet, "densenet.svg")] {
        let path = folder.join(name);
        io::write_atomically(&path, graph.to_svg(3).as_bytes())?;
        println!("{} operations: {}", graph.nodes().len(), path.display());
    }
    Ok(())
}
