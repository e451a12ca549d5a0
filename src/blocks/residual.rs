//! The two residual blocks of He et al. 2015, figure 5.

use super::{ConvNorm, PreActNames, Shortcut, ShortcutKind};
use crate::{
    Error, Result, Rng,
    autograd::{Mode, Var},
    nn::{Module, conv1x1, conv3x3, init::Fan},
    ops::expect_drop_probability,
    state,
};

/// How a residual block is made; the default is stride 1, projection shortcuts, gamma 1, nothing dropped, fan-out, one
/// group.
#[derive(Clone, Copy, Debug)]
pub struct BlockOptions {
    /// Of the block's first 3x3 convolution, in rows and in columns.
    pub stride: usize,
    /// What the shortcut does where the shape changes.
    pub shortcut: ShortcutKind,
    /// Whether the last norm's gamma begins at 0, so that the block begins as its shortcut (Goyal et al. 2017, section 5.1).
    pub zero_init_residual: bool,
    /// The probability in [0, 1) that training skips the block for a sample (Huang et al. 2016, "Deep networks with
    /// stochastic depth").
    pub drop_path: f32,
    /// How the convolutions are initialized.
    pub fan: Fan,
    /// Groups of a bottleneck's 3x3 convolution (Xie et al. 2017, "Aggregated residual transformations for deep neural networks",
    /// their cardinality C); other blocks have 1.
    pub groups: usize,
    /// Channels of each group of a bottleneck's 3x3 convolution where the block has 256 outputs, and in proportion elsewhere:
    /// 64, with 32 groups 4 (ResNeXt, their d), twice that for a wide network; other blocks have 64.
    pub width_per_group: usize,
    /// What a pre-activation block's parts are called.
    pub names: PreActNames,
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
            names: PreActNames::default(),
        }
    }
}

/// Two 3x3 convolutions and the way around them (He et al. 2015, figure 5 left): `relu(F(x) + shortcut(x))`.
///
/// `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. State: `conv1`, `bn1`, `conv2`, `bn2`, `downsample`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::{BasicBlock, BlockOptions}, nn::Module};
/// let mut rng = Rng::seed(0);
/// let options = BlockOptions { zero_init_residual: true, ..Default::default() };
/// let block = BasicBlock::new(4, 4, &options, &mut rng)?;
/// let tape = Tape::train(Rng::seed(1));
/// let x = tape.input(Tensor::uniform([2, 5, 5, 4], 0.0, 1.0, &mut rng)?);
/// assert_eq!(block.forward(&x)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BasicBlock {
    /// The first convolution, which strides.
    pub conv1: ConvNorm,
    /// The second convolution.
    pub conv2: ConvNorm,
    /// The way around.
    pub downsample: Shortcut,
    /// See [`BlockOptions::drop_path`].
    pub drop_path: f32,
}
state!(BasicBlock { ..conv1, ..conv2, downsample });

impl BasicBlock {
    /// A block from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, the shortcut cannot be had, or the options are of more than one group.
    pub fn new(inputs: usize, outputs: usize, options: &BlockOptions, rng: &mut Rng) -> Result<BasicBlock> {
        let BlockOptions { stride, shortcut, drop_path, fan, .. } = *options;
        refuse_groups("basic_block", options)?;
        let conv1 = ConvNorm::new(conv3x3(inputs, outputs).stride(stride).fan(fan), rng)?;
        let conv2 = last(ConvNorm::new(conv3x3(outputs, outputs).fan(fan), rng)?, options)?;
        Ok(BasicBlock {
            conv1: conv1.named("conv1", "bn1"),
            conv2: conv2.named("conv2", "bn2"),
            downsample: Shortcut::new(shortcut, [inputs, outputs], stride, fan, rng)?,
            drop_path,
        })
    }
}

impl Module for BasicBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = self.conv1.relu(x)?;
        let shortcut = x.tape().scope("downsample", || self.downsample.forward(x))?;
        rejoin(&self.conv2, &y, &shortcut, self.drop_path)
    }
}

/// A 1x1 convolution to a quarter of the output's channels (more in a wide network, see [`BlockOptions::width_per_group`]), a 3x3, a 1x1 back, and the way around them (He et al. 2015,
/// figure 5 right). The stride is the 3x3's, as in torchvision and fb.resnet.torch, not the first 1x1's as in the paper.
///
/// `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. State: `conv1`, `bn1`, `conv2`, `bn2`, `conv3`, `bn3`,
/// `downsample`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::{BlockOptions, Bottleneck}, nn::Module};
/// let options = BlockOptions { stride: 2, ..Default::default() };
/// let block = Bottleneck::new(8, 16, &options, &mut Rng::seed(0))?;
/// assert_eq!(block.export()["conv2.weight"].shape(), [4, 4, 3, 3]);
/// let tape = Tape::eval();
/// assert_eq!(block.forward(&tape.input(Tensor::zeros([2, 7, 7, 8])?))?.shape(), [2, 4, 4, 16]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bottleneck {
    /// 1x1, to fewer channels.
    pub conv1: ConvNorm,
    /// 3x3, which strides.
    pub conv2: ConvNorm,
    /// 1x1, to all channels.
    pub conv3: ConvNorm,
    /// The way around.
    pub downsample: Shortcut,
    /// See [`BlockOptions::drop_path`].
    pub drop_path: f32,
}
state!(Bottleneck { ..conv1, ..conv2, ..conv3, downsample });

impl Bottleneck {
    /// The output has this many times the channels of the 3x3 convolution.
    pub const EXPANSION: usize = 4;

    /// A block from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// As [`BasicBlock::new`], and if `outputs` is no multiple of [`Bottleneck::EXPANSION`].
    pub fn new(inputs: usize, outputs: usize, options: &BlockOptions, rng: &mut Rng) -> Result<Bottleneck> {
        let BlockOptions { stride, shortcut, drop_path, fan, .. } = *options;
        let groups = options.groups;
        let width = bottleneck_width(outputs, options)?;
        let conv1 = ConvNorm::new(conv1x1(inputs, width).fan(fan), rng)?;
        let conv2 = ConvNorm::new(conv3x3(width, width).stride(stride).groups(groups).fan(fan), rng)?;
        let conv3 = last(ConvNorm::new(conv1x1(width, outputs).fan(fan), rng)?, options)?;
        Ok(Bottleneck {
            conv1: conv1.named("conv1", "bn1"),
            conv2: conv2.named("conv2", "bn2"),
            conv3: conv3.named("conv3", "bn3"),
            downsample: Shortcut::new(shortcut, [inputs, outputs], stride, fan, rng)?,
            drop_path,
        })
    }
}

impl Module for Bottleneck {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = self.conv2.relu(&self.conv1.relu(x)?)?;
        let shortcut = x.tape().scope("downsample", || self.downsample.forward(x))?;
        rejoin(&self.conv3, &y, &shortcut, self.drop_path)
    }
}

/// The channels of a bottleneck's 3x3 convolution.
pub(super) fn bottleneck_width(outputs: usize, options: &BlockOptions) -> Result<usize> {
    if !outputs.is_multiple_of(Bottleneck::EXPANSION) {
        return Err(Error::argument("bottleneck", "outputs", "a multiple of 4", outputs));
    }
    // Of a group first, rounded down, as torchvision does.
    let of_group = (outputs / Bottleneck::EXPANSION).saturating_mul(options.width_per_group) / 64;
    Ok(of_group.saturating_mul(options.groups))
}

/// Refuses what only a bottleneck has.
pub(super) fn refuse_groups(op: &'static str, options: &BlockOptions) -> Result<()> {
    match (options.groups, options.width_per_group) {
        (1, 64) => Ok(()),
        (1, width) => Err(Error::argument(op, "width_per_group", "64, it is a bottleneck's", width)),
        (groups, _) => Err(Error::argument(op, "groups", "1, they are a bottleneck's", groups)),
    }
}

/// The block's last convolution as the options want it.
fn last(mut conv: ConvNorm, options: &BlockOptions) -> Result<ConvNorm> {
    expect_drop_probability("drop_path", options.drop_path)?;
    if options.zero_init_residual {
        conv.norm.weight.value_mut().data_mut().fill(0.0);
    }
    Ok(conv)
}

/// `relu(last(y) + shortcut)`, in training without `last(y)` for a random part of the samples.
fn rejoin<'t>(last: &ConvNorm, y: &Var<'t>, shortcut: &Var<'t>, drop_path: f32) -> Result<Var<'t>> {
    if drop_path == 0.0 || y.tape().mode() == Mode::Eval {
        return last.add_relu(y, shortcut);
    }
    Ok(last.forward(y)?.drop_path(drop_path)?.add(shortcut)?.relu())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape};

    fn images(rng: &mut Rng) -> Tensor {
        Tensor::uniform([64, 3, 3, 4], 0.0, 1.0, rng).unwrap()
    }

    #[test]
    fn stochastic_depth_drops_whole_samples_in_training_only() {
        let mut rng = Rng::seed(5);
        let options = BlockOptions { drop_path: 0.5, ..Default::default() };
        let block = BasicBlock::new(4, 4, &options, &mut rng).unwrap();
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
    fn a_block_that_skips_always_is_refused() {
        let options = BlockOptions { drop_path: 1.0, ..Default::default() };
        assert!(BasicBlock::new(4, 4, &options, &mut Rng::seed(0)).is_err());
        assert!(Bottleneck::new(4, 4, &options, &mut Rng::seed(0)).is_err());
    }

    #[test]
    fn cardinality_and_width() {
        let rng = &mut Rng::seed(0);
        let options = BlockOptions { groups: 32, width_per_group: 4, ..Default::default() };
        let block = Bottleneck::new(64, 256, &options, rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 4, 128]);
        let block = Bottleneck::new(64, 512, &options, rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 8, 256]);
        let wide = BlockOptions { width_per_group: 128, ..Default::default() };
        let block = Bottleneck::new(64, 256, &wide, rng).unwrap();
        assert_eq!(block.conv2.conv.weight.value().shape(), [3, 3, 128, 128]);
        for refused in [options, wide] {
            let error = BasicBlock::new(64, 64, &refused, rng).unwrap_err().to_string();
            assert!(error.contains("a bottleneck's"), "{error}");
        }
        let nothing = BlockOptions { groups: 0, ..Default::default() };
        assert!(Bottleneck::new(64, 256, &nothing, rng).is_err());
    }

    #[test]
    fn errors_say_which_convolution() {
        let block = Bottleneck::new(8, 8, &BlockOptions::default(), &mut Rng::seed(0)).unwrap();
        let tape = Tape::eval();
        let error = block.forward(&tape.input(Tensor::zeros([1, 4, 4, 7]).unwrap())).err().unwrap();
        assert_eq!(error.path(), Some("conv1"));
        let error = Bottleneck::new(8, 10, &BlockOptions::default(), &mut Rng::seed(0)).unwrap_err();
        assert_eq!(error.to_string(), "bottleneck: outputs: expected a multiple of 4, found 10");
    }
}
