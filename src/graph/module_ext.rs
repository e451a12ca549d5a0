//! What can be asked of any module.

use super::{Plan, Summary, feature_maps, plan, summary};
use crate::{
    Result,
    autograd::{Mode, Var},
    nn::Module,
};

/// What can be asked of any [`Module`]: whether it fits an input, what it consists of, how much
/// memory it takes, and what its parts return.
pub trait ModuleExt: Module {
    /// Returns the outputs of modules inside of this one as it runs on `x`, in the order of
    /// `names`.
    ///
    /// A name is a path as in weights files (`layer3`, `layer2.0.conv1`), or its last segments
    /// where only one path ends so (`denseblock2` for `features.denseblock2`), or `""` for the
    /// module's own output. Maps are `[N, H, W, C]`. A module that runs more than once gives its
    /// last output.
    ///
    /// Each is the module's own output, even where evaluation otherwise folds it into what follows,
    /// and lies on the tape of `x`: on a tape that records, gradients flow through it, and
    /// [`Updates::grad_of`](crate::autograd::Updates::grad_of) returns its own.
    ///
    /// # Errors
    /// [`Error::UnknownModule`](crate::Error::UnknownModule), with the nearest names, before
    /// anything is computed; otherwise those of [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, models::ResNet, graph::ModuleExt};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let images = Tensor::zeros([2, 32, 32, 3])?;
    /// let tape = Tape::eval();
    /// let names = ["layer2", "layer3.0.conv1", "fc"];
    /// let maps = model.feature_maps(&tape.input(images.clone()), &names)?;
    /// assert_eq!(maps[0].shape(), [2, 16, 16, 32]);
    /// assert_eq!(maps[1].shape(), [2, 8, 8, 64]);
    ///
    /// let tape = Tape::eval().recording(true);
    /// let maps = model.feature_maps(&tape.input(images.clone()), &["layer3", "fc"])?;
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

    /// Checks whether a training pass of an input of this shape succeeds, without computing
    /// anything.
    ///
    /// # Errors
    /// [`Error::Faults`](crate::Error::Faults), which lists every operation that rejects its
    /// arguments, with the path of its module and both shapes. After a fault, the pass goes on with
    /// the shape that the output would have had. An error that arises outside of operations ends
    /// the list. At its end are the trainable parameters and the observed buffers that the pass met
    /// and the module does not name ([`Error::NotInState`](crate::Error::NotInState)).
    ///
    /// ```
    /// use skipgrad::{Rng, graph::ModuleExt, nn::{conv3x3, Linear, GlobalAvgPool, Sequential}};
    /// let mut rng = Rng::seed(0);
    /// let net = Sequential::new()
    ///     .named("first", conv3x3(3, 8).build(&mut rng)?)?
    ///     .named("second", conv3x3(16, 32).build(&mut rng)?)?
    ///     .push(GlobalAvgPool)
    ///     .named("head", Linear::new(8, 10, &mut rng)?)?;
    /// assert_eq!(
    ///     net.check(&[1, 32, 32, 3]).unwrap_err().to_string(),
    ///     "2 faults: \
    ///     second: conv2d: input: expected [N, H, W, 16] for the weight [3, 3, 16, 32], \
    ///     found [1, 32, 32, 8]; \
    ///     head: linear: weight: expected [32, out], found [8, 10]",
    /// );
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn check(&self, shape: &[usize]) -> Result<()> {
        plan::check(self, shape)
    }

    /// Lists the operations of a training pass of an input of this shape, without computing
    /// anything.
    ///
    /// # Errors
    /// Returns those of [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, models::ResNet, graph::ModuleExt};
    /// let summary = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?.summary(&[1, 32, 32, 3])?;
    /// println!("{summary}");
    /// assert_eq!((summary.parameters, summary.multiply_adds), (269_722, 40_551_040));
    /// assert_eq!(summary.layers[0].name, "conv1");
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn summary(&self, shape: &[usize]) -> Result<Summary> {
        summary::summary(self, shape)
    }

    /// Returns the memory that a pass of an input of this shape takes, without computing anything:
    /// in training a forward and a backward pass, in evaluation a pass on a tape. It leaves out a
    /// few MiB for every thread, which kernels use while they run.
    /// [`InferenceModel::memory`](crate::inference::InferenceModel::memory) is the memory of a
    /// compiled network.
    ///
    /// # Errors
    /// Returns those of [`Module::forward`], and
    /// [`Error::NotInState`](crate::Error::NotInState) for a trainable parameter that the pass met
    /// and the module does not name.
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::Mode, models::ResNet, graph::ModuleExt};
    /// let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0))?;
    /// let plan = model.plan(&[32, 224, 224, 3], Mode::Train)?;
    /// let with_momentum = plan.peak(1);
    /// assert_eq!(with_momentum >> 20, 489);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn plan(&self, shape: &[usize], mode: Mode) -> Result<Plan> {
        plan::plan(self, shape, mode)
    }

    /// Returns the largest batch of inputs of a shape whose plan `fits`: at most 2^20, and 0 if
    /// there is none.
    ///
    /// # Errors
    /// Returns those of [`ModuleExt::plan`].
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::Mode, models::ResNet, graph::ModuleExt};
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

impl<M: Module + ?Sized> ModuleExt for M {}
