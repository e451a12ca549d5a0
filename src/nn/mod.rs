//! Layers: named state and its initialization; the arithmetic is in [`ops`](crate::ops).
//!
//! A [`Module`] maps a value to a value and does not change while it does: what training learns comes back as
//! [`Updates`](crate::autograd::Updates). A network of one's own is a struct of modules, with
//! [`state!`](crate::state) for the names and `forward` for the arithmetic, or a [`Sequential`]:
//!
//! ```
//! use skipgrad::{Result, Rng, Tensor, autograd::{State, Tape, Var}, nn::{Conv2d, Linear, Module}, state};
//!
//! struct Tiny { conv: Conv2d, fc: Linear }
//! state!(Tiny { conv, fc });
//!
//! impl Module for Tiny {
//!     fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
//!         let maps = self.conv.forward(x)?.relu();
//!         self.fc.forward(&maps.global_avg_pool()?)
//!     }
//! }
//!
//! let mut rng = Rng::seed(0);
//! let net = Tiny { conv: Conv2d::builder(3, 8, 3).padding(1).build(&mut rng)?, fc: Linear::new(8, 10, &mut rng)? };
//! assert_eq!(net.num_parameters(), 3 * 3 * 3 * 8 + 8 * 10 + 10);
//! let tape = Tape::eval();
//! let logits = net.forward(&tape.input(Tensor::zeros([2, 5, 6, 3])?))?;
//! assert_eq!(logits.shape(), [2, 10]);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod activation;
mod batch_norm;
mod conv;
mod feature_maps;
pub mod init;
mod linear;
mod plan;
mod pool;
mod sequential;
mod summary;

pub use activation::{Dropout, Flatten, Relu};
pub use batch_norm::BatchNorm2d;
pub use conv::{Conv2d, Conv2dBuilder, Pair, conv1x1, conv3x3};
pub use linear::Linear;
pub use plan::Plan;
pub use pool::{AvgPool2d, GlobalAvgPool, MaxPool2d};
pub use sequential::Sequential;
pub use summary::{LayerSummary, Summary};

use crate::{
    Result,
    autograd::{Mode, State, Var},
};

/// A layer, a block, a network: something with named state that maps a value to a value.
///
/// The mode of the tape decides between training and evaluation; see [`Tape`](crate::autograd::Tape). A container runs a child
/// under the child's name, by [`Tape::scope`](crate::autograd::Tape::scope), so that an error says where in the network it
/// arose, and [`Module::feature_maps`] finds what the child gave.
pub trait Module: State + Send + Sync {
    /// The output for an input `[N, H, W, C]`, or `[N, C]` behind the pooling.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the input does not fit.
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>>;

    /// What modules inside give when this one runs on `x`, in the order of `names`: paths as in weights files (`layer3`,
    /// `layer2.0.conv1`), or their last parts where only one path ends so (`denseblock2` for `features.denseblock2`), and `""`
    /// for this module's own output. Maps are `[N, H, W, C]`. Of a module that runs more than once it is the last output.
    ///
    /// A value is the module's own output, also where evaluation otherwise folds it into what follows, and it lies on the tape of
    /// `x`: on one that records, gradients flow through it, and [`Updates::grad_of`](crate::autograd::Updates::grad_of) tells its own.
    ///
    /// # Errors
    /// [`Error::UnknownModule`](crate::Error::UnknownModule), with the nearest names, before anything is computed; otherwise as
    /// [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, models::ResNet, nn::Module};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let images = Tensor::zeros([2, 32, 32, 3])?;
    /// let tape = Tape::eval();
    /// let maps = model.feature_maps(&tape.input(images.clone()), &["layer2", "layer3.0.conv1", "linear"])?;
    /// assert_eq!(maps[0].shape(), [2, 16, 16, 32]);
    /// assert_eq!(maps[1].shape(), [2, 8, 8, 64]);
    ///
    /// let tape = Tape::eval().recording(true);
    /// let maps = model.feature_maps(&tape.input(images.clone()), &["layer3", "linear"])?;
    /// let updates = maps[1].sum().backward()?;
    /// assert_eq!(updates.grad_of(&maps[0]).unwrap().shape(), maps[0].shape());
    ///
    /// let error = model.feature_maps(&tape.input(images), &["layr2"]).unwrap_err();
    /// assert!(error.to_string().starts_with("no single module \"layr2\"; nearest are: layer2, "));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn feature_maps<'t>(&self, x: &Var<'t>, names: &[&str]) -> Result<Vec<Var<'t>>> {
        feature_maps::feature_maps(self, x, names)
    }

    /// Whether a training pass of an input of this shape would go through, without computing anything.
    ///
    /// # Errors
    /// [`Error::Faults`](crate::Error::Faults), which lists every operation that refuses its arguments, with the path of its
    /// module and both shapes. Behind a fault the pass goes on with the shape that the output would have if all fitted. A fault
    /// that no operation reports, but a module itself, ends the list.
    ///
    /// ```
    /// use skipgrad::{Rng, nn::{conv3x3, Linear, GlobalAvgPool, Module, Sequential}};
    /// let mut rng = Rng::seed(0);
    /// let net = Sequential::new()
    ///     .named("first", conv3x3(3, 8).build(&mut rng)?)?
    ///     .named("second", conv3x3(16, 32).build(&mut rng)?)?
    ///     .push(GlobalAvgPool)
    ///     .named("head", Linear::new(8, 10, &mut rng)?)?;
    /// assert_eq!(
    ///     net.check(&[1, 32, 32, 3]).unwrap_err().to_string(),
    ///     "2 faults: \
    ///     second: conv2d: input: expected [N, H, W, 16] for the weight [3, 3, 16, 32], found [1, 32, 32, 8]; \
    ///     head: linear: weight: expected [32, out], found [8, 10]",
    /// );
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn check(&self, shape: &[usize]) -> Result<()> {
        plan::check(self, shape)
    }

    /// What a training pass of an input of this shape is made of, operation by operation, without computing anything.
    ///
    /// # Errors
    /// As [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, models::ResNet, nn::Module};
    /// let summary = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?.summary(&[1, 32, 32, 3])?;
    /// println!("{summary}");
    /// assert_eq!((summary.parameters, summary.multiply_adds), (269_722, 40_551_040));
    /// assert_eq!(summary.layers[0].name, "conv1");
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn summary(&self, shape: &[usize]) -> Result<Summary> {
        summary::summary(self, shape)
    }

    /// The memory that a pass of an input of this shape takes, without computing anything: in training forward and backward from a
    /// number, in evaluation the first pass. What kernels use besides, and only while they run, is not in it: a few MiB for every
    /// thread.
    ///
    /// # Errors
    /// As [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::Mode, models::ResNet, nn::Module};
    /// let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0))?;
    /// let plan = model.plan(&[32, 224, 224, 3], Mode::Train)?;
    /// let with_momentum = plan.peak(1);
    /// assert_eq!(with_momentum >> 20, 489);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn plan(&self, shape: &[usize], mode: Mode) -> Result<Plan> {
        plan::plan(self, shape, mode)
    }

    /// The largest number of inputs of a shape whose plan `fits`, at most 2^20; 0 if there is none.
    ///
    /// # Errors
    /// As [`Module::plan`].
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::Mode, models::ResNet, nn::Module};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let budget = 256 << 20;
    /// let batch = model.largest_batch(&[32, 32, 3], Mode::Train, &|plan| plan.peak(1) <= budget)?;
    /// assert!(model.plan(&[batch, 32, 32, 3], Mode::Train)?.peak(1) <= budget);
    /// assert!(model.plan(&[batch + 1, 32, 32, 3], Mode::Train)?.peak(1) > budget);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn largest_batch(&self, image: &[usize], mode: Mode, fits: &dyn Fn(&Plan) -> bool) -> Result<usize> {
        plan::largest_batch(self, image, mode, fits)
    }
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        (**self).forward(x)
    }
}
