//! The two residual blocks of He et al. 2015, figure 5.

use super::{ConvNorm, Shortcut, ShortcutKind};
use crate::{
    Error, Result, Rng,
    autograd::{Mode, State, Var},
    nn::{Conv2dBuilder, Module, conv1x1, conv3x3, init::Fan},
    ops::expect_drop_probability,
};

/// The settings of a residual block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockOptions {
    pub(super) stride: usize,
    pub(super) shortcut: ShortcutKind,
    pub(super) zero_init_residual: bool,
    pub(super) drop_path: f32,
    pub(super) fan: Fan,
    pub(super) groups: usize,
    pub(super) width_per_group: usize,
}

impl Default for BlockOptions {
    fn default() -> BlockOptions {
        BlockOptions {
            stride: 1,
            shortcut: ShortcutKind::default(),
            zero_init_residual: false,
            drop_path: 0.0,
            fan: Fan::default(),
            groups: 1,
            width_per_group: 64,
        }
    }
}

/// The setters that the builders of all residual blocks have.
macro_rules! residual_setters {
    () => {
        /// Sets the stride of the block's first 3x3 convolution, in rows and in columns; 1 by
        /// default.
        pub fn stride(mut self, stride: usize) -> Self {
            self.options.stride = stride;
            self
        }

        /// Sets whether the block begins as its shortcut, its last scale being zero (Goyal et al.
        /// 2017, section 5.1).
        pub fn zero_init_residual(mut self, yes: bool) -> Self {
            self.options.zero_init_residual = yes;
            self
        }

        /// Sets how the convolutions are initialized; by fan-out by default.
        pub fn fan(mut self, fan: Fan) -> Self {
            self.options.fan = fan;
            self
        }
    };
    (drop_path) => {
        $crate::blocks::residual::residual_setters!();

        /// Sets the probability in [0, 1) that training skips the block for a sample (Huang et al.
        /// 2016, "Deep networks with stochastic depth"); 0 by default.
        pub fn drop_path(mut self, probability: f32) -> Self {
            self.options.drop_path = probability;
            self
        }
    };
}
pub(super) use residual_setters;

/// The setter of a builder whose block may have any kind of shortcut.
macro_rules! shortcut_setter {
    () => {
        /// Sets the kind of the shortcut where the shape changes, a projection by default, or that
        /// there is none anywhere ([`ShortcutKind::None`]).
        pub fn shortcut(mut self, kind: ShortcutKind) -> Self {
            self.options.shortcut = kind;
            self
        }
    };
}
pub(super) use shortcut_setter;

/// The setters of a builder whose block may be a bottleneck.
macro_rules! bottleneck_setters {
    () => {
        /// Sets the number of groups of a bottleneck's 3x3 convolution, the cardinality of Xie et
        /// al. 2017, "Aggregated residual transformations for deep neural networks"; 1 by default.
        pub fn groups(mut self, groups: usize) -> Self {
            self.options.groups = groups;
            self
        }

        /// Sets the channels of each group of a bottleneck's 3x3 convolution where the block has
        /// 256 output channels, and in proportion elsewhere: 64 by default, 4 with 32 groups
        /// (ResNeXt), 128 in a wide network.
        pub fn width_per_group(mut self, width: usize) -> Self {
            self.options.width_per_group = width;
            self
        }
    };
}
pub(super) use bottleneck_setters;

/// Two 3x3 convolutions and a shortcut (He et al. 2015, figure 5 left): `relu(F(x) + shortcut(x))`,
/// or with [`Shortcut::None`] `relu(F(x))`.
///
/// Maps `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. Its state is `conv1`, `bn1`,
/// `conv2`, `bn2` and `downsample`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::BasicBlock, nn::Module};
/// let mut rng = Rng::seed(0);
/// let block = BasicBlock::builder(4, 4).zero_init_residual(true).build(&mut rng)?;
/// let tape = Tape::train(Rng::seed(1));
/// let x = tape.input(Tensor::uniform([2, 5, 5, 4], 0.0, 1.0, &mut rng)?);
/// assert_eq!(block.forward(&x)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct BasicBlock {
    /// The first convolution, which strides, and its norm.
    #[state(flatten(conv = "conv1", norm = "bn1"))]
    pub conv1: ConvNorm,
    /// The second convolution and its norm.
    #[state(flatten(conv = "conv2", norm = "bn2"))]
    pub conv2: ConvNorm,
    /// The shortcut.
    pub downsample: Shortcut,
    /// The probability in [0, 1) that training skips the block for a sample.
    #[state(skip)]
    pub drop_path: f32,
}

impl Module for BasicBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            let y = self.conv1.forward_relu(x)?;
            let shortcut = forward_shortcut(&self.downsample, x)?;
            join_shortcut(&self.conv2, &y, shortcut, self.drop_path)
        })
    }
}

impl BasicBlock {
    /// Makes a block of stride 1 with the default settings.
    ///
    /// # Errors
    /// As [`BasicBlockBuilder::build`].
    pub fn new(in_channels: usize, out_channels: usize, rng: &mut Rng) -> Result<BasicBlock> {
        BasicBlock::builder(in_channels, out_channels).build(rng)
    }

    /// Begins a block with settings other than those of [`BasicBlock::new`].
    pub fn builder(in_channels: usize, out_channels: usize) -> BasicBlockBuilder {
        BasicBlockBuilder { in_channels, out_channels, options: BlockOptions::default() }
    }

    pub(super) fn with(
        in_channels: usize,
        out_channels: usize,
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<BasicBlock> {
        let BlockOptions { stride, shortcut, drop_path, fan, .. } = *options;
        expect_no_groups("basic_block", options)?;
        expect_shortcut("basic_block", options)?;
        Ok(BasicBlock {
            conv1: ConvNorm::new(conv3x3(in_channels, out_channels).stride(stride).fan(fan), rng)?,
            conv2: last_conv(conv3x3(out_channels, out_channels), options, rng)?,
            downsample: Shortcut::new(shortcut, [in_channels, out_channels], stride, fan, rng)?,
            drop_path,
        })
    }
}

/// The settings of a [`BasicBlock`]; see [`BasicBlock::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the block"]
pub struct BasicBlockBuilder {
    in_channels: usize,
    out_channels: usize,
    options: BlockOptions,
}

impl BasicBlockBuilder {
    residual_setters!(drop_path);
    shortcut_setter!();

    /// Makes the block.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, the drop probability is not in [0, 1), the shortcut
    /// would have to drop channels, or there is no shortcut and a setting needs one: a drop
    /// probability, or [`zero_init_residual`](Self::zero_init_residual).
    pub fn build(self, rng: &mut Rng) -> Result<BasicBlock> {
        BasicBlock::with(self.in_channels, self.out_channels, &self.options, rng)
    }
}

/// A 1x1 convolution to fewer channels, a 3x3, a 1x1 to all channels, and a shortcut, if any (He et
/// al. 2015, figure 5 right).
///
/// The 3x3 has a quarter of the output channels, or more in a wide network; see
/// [`BottleneckBuilder::width_per_group`]. The stride is that of the 3x3, as in torchvision and
/// fb.resnet.torch, and not that of the first 1x1, as in the paper.
///
/// Maps `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. Its state is `conv1`, `bn1`,
/// `conv2`, `bn2`, `conv3`, `bn3` and `downsample`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::Bottleneck, nn::Module};
/// let block = Bottleneck::builder(8, 16).stride(2).build(&mut Rng::seed(0))?;
/// assert_eq!(block.export()["conv2.weight"].shape(), [4, 4, 3, 3]);
/// let tape = Tape::eval();
/// let y = block.forward(&tape.input(Tensor::zeros([2, 7, 7, 8])?))?;
/// assert_eq!(y.shape(), [2, 4, 4, 16]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct Bottleneck {
    /// The 1x1 convolution to fewer channels, and its norm.
    #[state(flatten(conv = "conv1", norm = "bn1"))]
    pub conv1: ConvNorm,
    /// The 3x3 convolution, which strides, and its norm.
    #[state(flatten(conv = "conv2", norm = "bn2"))]
    pub conv2: ConvNorm,
    /// The 1x1 convolution to all channels, and its norm.
    #[state(flatten(conv = "conv3", norm = "bn3"))]
    pub conv3: ConvNorm,
    /// The shortcut.
    pub downsample: Shortcut,
    /// The probability in [0, 1) that training skips the block for a sample.
    #[state(skip)]
    pub drop_path: f32,
}

impl Module for Bottleneck {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            let y = self.conv2.forward_relu(&self.conv1.forward_relu(x)?)?;
            let shortcut = forward_shortcut(&self.downsample, x)?;
            join_shortcut(&self.conv3, &y, shortcut, self.drop_path)
        })
    }
}

impl Bottleneck {
    /// The ratio of output channels to the channels of the 3x3 convolution.
    pub const EXPANSION: usize = 4;

    /// Makes a block of stride 1 with the default settings.
    ///
    /// # Errors
    /// As [`BottleneckBuilder::build`].
    pub fn new(in_channels: usize, out_channels: usize, rng: &mut Rng) -> Result<Bottleneck> {
        Bottleneck::builder(in_channels, out_channels).build(rng)
    }

    /// Begins a block with settings other than those of [`Bottleneck::new`].
    pub fn builder(in_channels: usize, out_channels: usize) -> BottleneckBuilder {
        BottleneckBuilder { in_channels, out_channels, options: BlockOptions::default() }
    }

    pub(super) fn with(
        in_channels: usize,
        out_channels: usize,
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<Bottleneck> {
        let BlockOptions { stride, shortcut, drop_path, fan, groups, .. } = *options;
        let width = bottleneck_width(out_channels, options)?;
        expect_shortcut("bottleneck", options)?;
        let conv2 = conv3x3(width, width).stride(stride).groups(groups).fan(fan);
        Ok(Bottleneck {
            conv1: ConvNorm::new(conv1x1(in_channels, width).fan(fan), rng)?,
            conv2: ConvNorm::new(conv2, rng)?,
            conv3: last_conv(conv1x1(width, out_channels), options, rng)?,
            downsample: Shortcut::new(shortcut, [in_channels, out_channels], stride, fan, rng)?,
            drop_path,
        })
    }
}

/// The settings of a [`Bottleneck`]; see [`Bottleneck::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the block"]
pub struct BottleneckBuilder {
    in_channels: usize,
    out_channels: usize,
    options: BlockOptions,
}

impl BottleneckBuilder {
    residual_setters!(drop_path);
    shortcut_setter!();
    bottleneck_setters!();

    /// Makes the block.
    ///
    /// # Errors
    /// As [`BasicBlockBuilder::build`], and if the number of output channels is not a multiple of
    /// [`Bottleneck::EXPANSION`].
    pub fn build(self, rng: &mut Rng) -> Result<Bottleneck> {
        Bottleneck::with(self.in_channels, self.out_channels, &self.options, rng)
    }
}

/// Returns the channels of a bottleneck's 3x3 convolution.
pub(super) fn bottleneck_width(out_channels: usize, options: &BlockOptions) -> Result<usize> {
    if !out_channels.is_multiple_of(Bottleneck::EXPANSION) {
        return Err(Error::argument("bottleneck", "outputs", "a multiple of 4", out_channels));
    }
    // The width of a group is rounded down before it is multiplied, as in torchvision.
    let of_group = (out_channels / Bottleneck::EXPANSION).saturating_mul(options.width_per_group) / 64;
    Ok(of_group.saturating_mul(options.groups))
}

/// Rejects the settings that only a bottleneck has.
pub(super) fn expect_no_groups(op: &'static str, options: &BlockOptions) -> Result<()> {
    match (options.groups, options.width_per_group) {
        (1, 64) => Ok(()),
        (1, width) => Err(Error::argument(op, "width_per_group", "64, it is a bottleneck's", width)),
        (groups, _) => Err(Error::argument(op, "groups", "1, they are a bottleneck's", groups)),
    }
}

/// Makes the block's last convolution and its norm.
fn last_conv(conv: Conv2dBuilder, options: &BlockOptions, rng: &mut Rng) -> Result<ConvNorm> {
    let mut conv = ConvNorm::new(conv.fan(options.fan), rng)?;
    expect_drop_probability("drop_path", options.drop_path)?;
    if options.zero_init_residual {
        conv.norm.weight.value_mut().data_mut().fill(0.0);
    }
    Ok(conv)
}

/// Rejects settings that only have a sense beside a shortcut: they skip the branch of a block, for
/// some samples or at first, and without a shortcut nothing else goes on.
fn expect_shortcut(op: &'static str, options: &BlockOptions) -> Result<()> {
    let BlockOptions { shortcut, zero_init_residual, drop_path, .. } = *options;
    if shortcut == ShortcutKind::None && zero_init_residual {
        return Err(Error::argument(op, "zero_init_residual", "false without a shortcut", true));
    }
    if shortcut == ShortcutKind::None && drop_path > 0.0 {
        return Err(Error::argument(op, "drop_path", "0 without a shortcut", drop_path));
    }
    Ok(())
}

/// Runs a shortcut, which may have no parameters that its name could be found by.
fn forward_shortcut<'t>(downsample: &Shortcut, x: &Var<'t>) -> Result<Option<Var<'t>>> {
    match downsample {
        Shortcut::None => Ok(None),
        _ => x.tape().scope("downsample", || downsample.forward(x)).map(Some),
    }
}

/// Returns `relu(last(y) + shortcut)`, in training without `last(y)` for a random part of the
/// samples; without a shortcut `relu(last(y))`.
fn join_shortcut<'t>(
    last: &ConvNorm,
    y: &Var<'t>,
    shortcut: Option<Var<'t>>,
    drop_path: f32,
) -> Result<Var<'t>> {
    let Some(shortcut) = shortcut else {
        return last.forward_relu(y);
    };
    if drop_path == 0.0 || y.tape().mode() == Mode::Eval {
        return last.forward_add_relu(y, &shortcut);
    }
    Ok(last.forward(y)?.drop_path(drop_path)?.add(&shortcut)?.relu())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tensor,
        autograd::{Tape, gradient_check},
    };

    fn images(rng: &mut Rng) -> Tensor {
        Tensor::uniform([64, 3, 3, 4], 0.0, 1.0, rng).unwrap()
    }

    #[test]
    fn stochastic_depth_drops_whole_samples_in_training_only() {
        let mut rng = Rng::seed(5);
        let block = BasicBlock::builder(4, 4).drop_path(0.5).build(&mut rng).unwrap();
        let x = images(&mut rng);
        let tape = Tape::train(Rng::seed(0));
        let y = block.forward(&tape.input(x.clone())).unwrap();
        let skipped = (0..64)
            .filter(|&n| y.value().slice_rows(n..n + 1).unwrap() == x.slice_rows(n..n + 1).unwrap())
            .count();
        assert!((20..44).contains(&skipped), "{skipped} of 64");

        let whole = BasicBlock { drop_path: 0.0, ..block.clone() };
        let tape = Tape::eval();
        let [a, b] = [&block, &whole].map(|b| b.forward(&tape.input(x.clone())).unwrap().value().clone());
        assert_eq!(a, b);
    }

    #[test]
    fn a_block_that_is_always_skipped_is_rejected() {
        assert!(BasicBlock::builder(4, 4).drop_path(1.0).build(&mut Rng::seed(0)).is_err());
        assert!(Bottleneck::builder(4, 4).drop_path(1.0).build(&mut Rng::seed(0)).is_err());
    }

    #[test]
    fn a_plain_block_is_its_branch() {
        let mut rng = Rng::seed(7);
        let plain = |stride| BasicBlock::builder(4, 4).stride(stride).shortcut(ShortcutKind::None);
        for stride in [1, 2] {
            let block = plain(stride).build(&mut rng).unwrap();
            assert!(!block.export().keys().any(|name| name.starts_with("downsample")));
            let tape = Tape::train(Rng::seed(0));
            let x = tape.input(images(&mut rng));
            let y = block.conv1.forward(&x).unwrap().relu();
            let expected = block.conv2.forward(&y).unwrap().relu();
            assert_eq!(block.forward(&x).unwrap().value(), expected.value());
        }
        let block = Bottleneck::builder(4, 8).shortcut(ShortcutKind::None).build(&mut rng).unwrap();
        let tape = Tape::eval();
        let x = tape.input(images(&mut rng));
        let y = block.conv1.forward_relu(&x).and_then(|y| block.conv2.forward_relu(&y)).unwrap();
        let expected = block.conv3.forward_relu(&y).unwrap();
        assert_eq!(block.forward(&x).unwrap().value(), expected.value());
    }

    #[test]
    fn the_gradient_of_a_plain_block() {
        let rng = &mut Rng::seed(3);
        let plain = BasicBlock::builder(2, 3).stride(2).shortcut(ShortcutKind::None);
        let mut block = plain.build(rng).unwrap();
        // Far from the kinks of the ReLUs, with channels on both sides.
        for norm in [&mut block.conv1.norm, &mut block.conv2.norm] {
            norm.bias.value_mut().data_mut().copy_from_slice(&[6.0, -6.0, 6.0]);
        }
        let x = Tensor::normal([3, 4, 4, 2], 1.0, rng).unwrap();
        let check = gradient_check(&[x], |v| block.forward(&v[0])).unwrap();
        check.within(1e-3).unwrap();
    }

    #[test]
    fn what_skips_the_branch_needs_a_shortcut() {
        let plain = || BasicBlock::builder(4, 4).shortcut(ShortcutKind::None);
        let error = |block: BasicBlockBuilder| block.build(&mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(
            error(plain().zero_init_residual(true)),
            "basic_block: zero_init_residual: expected false without a shortcut, found true"
        );
        assert_eq!(
            error(plain().drop_path(0.5)),
            "basic_block: drop_path: expected 0 without a shortcut, found 0.5"
        );
        let bottleneck = Bottleneck::builder(4, 4).shortcut(ShortcutKind::None).drop_path(0.5);
        assert!(bottleneck.build(&mut Rng::seed(0)).is_err());
    }

    #[test]
    fn cardinality_and_width() {
        let rng = &mut Rng::seed(0);
        let grouped = |out| Bottleneck::builder(64, out).groups(32).width_per_group(4);
        let block = grouped(256).build(rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 4, 128]);
        let block = grouped(512).build(rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 8, 256]);
        let block = Bottleneck::builder(64, 256).width_per_group(128).build(rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 128, 128]);
        assert!(Bottleneck::builder(64, 256).groups(0).build(rng).is_err());
    }

    #[test]
    fn errors_say_which_convolution() {
        let block = Bottleneck::new(8, 8, &mut Rng::seed(0)).unwrap();
        let tape = Tape::eval();
        let error = block.forward(&tape.input(Tensor::zeros([1, 4, 4, 7]).unwrap())).err().unwrap();
        assert_eq!(error.path(), Some("conv1"));
        let error = Bottleneck::new(8, 10, &mut Rng::seed(0)).unwrap_err();
        assert_eq!(error.to_string(), "bottleneck: outputs: expected a multiple of 4, found 10");
    }
}
