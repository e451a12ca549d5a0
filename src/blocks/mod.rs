//! The building blocks of the papers.
//!
//! Residual networks (He et al. 2015, "Deep residual learning for image recognition") are made of
//! [`ConvNorm`], [`Shortcut`], [`BasicBlock`], [`Bottleneck`], [`PreActBlock`] and the stage of
//! such blocks, [`ResBlock`]; densely connected networks (Huang et al. 2017, "Densely connected
//! convolutional networks") of [`NormConv`], [`DenseLayer`], [`DenseBlock`] and [`Transition`].
//! Both begin with a [`Stem`].
//!
//! All of them are modules with public parts, and their state has torchvision's names. They combine
//! to networks of your own:
//!
//! ```
//! use skipgrad::blocks::{DenseBlock, ResBlock, Stem, Transition};
//! use skipgrad::{Result, Rng, Tensor, autograd::{State, Tape}};
//! use skipgrad::nn::{GlobalAvgPool, Linear, Module, Sequential};
//!
//! fn net(rng: &mut Rng) -> Result<Sequential> {
//!     let dense = DenseBlock::bottleneck(32, 8, 4).build(rng)?;
//!     let transition = Transition::new(dense.out_channels(), 32, rng)?;
//!     Ok(Sequential::new()
//!         .push(Stem::cifar(3, 16).build(rng)?)
//!         .push(ResBlock::basic(16, 32, 2).stride(2).build(rng)?)
//!         .push(dense)
//!         .push(transition)
//!         .push(GlobalAvgPool)
//!         .named("fc", Linear::new(32, 10, rng)?)?)
//! }
//!
//! let net = net(&mut Rng::seed(0))?;
//! let tape = Tape::train(Rng::seed(1));
//! let logits = net.forward(&tape.input(Tensor::zeros([2, 16, 16, 3])?))?;
//! assert_eq!(logits.shape(), [2, 10]);
//! assert!(net.export().contains_key("1.0.downsample.0.weight"));
//! assert!(net.export().contains_key("2.denselayer4.norm1.running_mean"));
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod conv_norm;
mod custom;
mod dense;
mod dense_layer;
mod norms;
mod preact;
mod res_block;
mod residual;
mod shortcut;
mod stem;

pub use conv_norm::{ConvNorm, NormConv};
pub use custom::{BlockFactory, BlockSettings, CustomBlock};
pub use dense::{DenseBlock, DenseBlockBuilder, Transition};
pub use dense_layer::{DenseLayer, DenseLayerBuilder};
pub(crate) use norms::Norms;
pub use preact::{PreActBlock, PreActBlockBuilder};
pub use res_block::{BlockKind, ResBlock, ResBlockBuilder, ResidualUnit};
pub use residual::{BasicBlock, BasicBlockBuilder, Bottleneck, BottleneckBuilder};
pub use shortcut::{Shortcut, ShortcutKind};
pub use stem::{Stem, StemBuilder, StemKind, StemLayer, StemLayers};

use crate::autograd::displayed_as_tree;

displayed_as_tree!(ConvNorm, NormConv, BasicBlock, Bottleneck, PreActBlock, ResidualUnit, ResBlock, Shortcut);
displayed_as_tree!(debug: CustomBlock);
displayed_as_tree!(Stem, DenseLayer, DenseBlock, Transition);
