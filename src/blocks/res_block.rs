//! A stage of a residual network.

use super::{
    BasicBlock, BlockFactory, BlockSettings, Bottleneck, CustomBlock, PreActBlock, ShortcutKind,
    residual::{BlockOptions, bottleneck_setters, residual_setters, shortcut_setter},
};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, Var},
    nn::{Module, init::Fan},
};

/// The kind of residual block that a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlockKind {
    /// [`BasicBlock`].
    Basic,
    /// [`Bottleneck`].
    Bottleneck,
    /// [`PreActBlock`] of two 3x3 convolutions.
    PreActBasic,
    /// [`PreActBlock`] of a 1x1, a 3x3 and a 1x1 convolution.
    PreActBottleneck,
}

impl BlockKind {
    /// Returns the ratio of output channels to the channels of the block's 3x3 convolutions.
    pub const fn expansion(self) -> usize {
        match self {
            BlockKind::Basic | BlockKind::PreActBasic => 1,
            BlockKind::Bottleneck | BlockKind::PreActBottleneck => Bottleneck::EXPANSION,
        }
    }

    /// Returns whether the norms come before the convolutions. Then one more norm follows the last
    /// block, and none the stem's convolution.
    pub const fn is_preact(self) -> bool {
        matches!(self, BlockKind::PreActBasic | BlockKind::PreActBottleneck)
    }
}

/// One block of a stage.
#[derive(Clone, Debug, State)]
#[non_exhaustive]
pub enum ResidualUnit {
    /// A block of [`BlockKind::Basic`].
    Basic(Box<BasicBlock>),
    /// A block of [`BlockKind::Bottleneck`].
    Bottleneck(Box<Bottleneck>),
    /// A block of [`BlockKind::PreActBasic`] or [`BlockKind::PreActBottleneck`].
    PreAct(Box<PreActBlock>),
    /// A block of [`ResBlockBuilder::block`].
    Custom(CustomBlock),
}

impl ResidualUnit {
    fn new(
        kind: BlockKind,
        [in_channels, out_channels]: [usize; 2],
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<ResidualUnit> {
        let preact = match kind {
            BlockKind::Basic => {
                let block = BasicBlock::with(in_channels, out_channels, options, rng)?;
                return Ok(ResidualUnit::Basic(Box::new(block)));
            }
            BlockKind::Bottleneck => {
                let block = Bottleneck::with(in_channels, out_channels, options, rng)?;
                return Ok(ResidualUnit::Bottleneck(Box::new(block)));
            }
            BlockKind::PreActBasic => PreActBlock::basic(in_channels, out_channels),
            BlockKind::PreActBottleneck => PreActBlock::bottleneck(in_channels, out_channels),
        };
        Ok(ResidualUnit::PreAct(Box::new(preact.options(*options).build(rng)?)))
    }
}

impl Module for ResidualUnit {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            ResidualUnit::Basic(block) => block.forward(x),
            ResidualUnit::Bottleneck(block) => block.forward(x),
            ResidualUnit::PreAct(block) => block.forward(x),
            ResidualUnit::Custom(block) => block.forward(x),
        }
    }
}

/// A stage of a residual network, a bracket with its `x n` in He et al. 2015, table 1: the first
/// block strides and changes the channels, the others keep the shape.
///
/// Its state is that of the blocks, named by index: `0.conv1.weight` and so on.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::ResBlock, nn::Module};
/// let stage = ResBlock::basic(16, 32, 3).stride(2).build(&mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// let y = stage.forward(&tape.input(Tensor::zeros([1, 8, 8, 16])?))?;
/// assert_eq!(y.shape(), [1, 4, 4, 32]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct ResBlock {
    /// The blocks, first to last.
    #[state(flatten)]
    pub blocks: Vec<ResidualUnit>,
}

impl Module for ResBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || self.blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x)))
    }
}

impl ResBlock {
    /// Begins a stage of `num_blocks` [`BasicBlock`]s.
    pub fn basic(in_channels: usize, out_channels: usize, num_blocks: usize) -> ResBlockBuilder {
        ResBlock::builder(BlockKind::Basic, in_channels, out_channels, num_blocks)
    }

    /// Begins a stage of `num_blocks` [`Bottleneck`]s; the number of output channels is a multiple
    /// of four.
    pub fn bottleneck(in_channels: usize, out_channels: usize, num_blocks: usize) -> ResBlockBuilder {
        ResBlock::builder(BlockKind::Bottleneck, in_channels, out_channels, num_blocks)
    }

    /// Begins a stage of `num_blocks` blocks of any kind.
    pub fn builder(
        kind: BlockKind,
        in_channels: usize,
        out_channels: usize,
        num_blocks: usize,
    ) -> ResBlockBuilder {
        let options = BlockOptions::default();
        let drop_path = [0.0; 2];
        ResBlockBuilder { kind, in_channels, out_channels, num_blocks, options, drop_path, block: None }
    }
}

/// The settings of a [`ResBlock`]; see [`ResBlock::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the stage"]
pub struct ResBlockBuilder {
    kind: BlockKind,
    in_channels: usize,
    out_channels: usize,
    num_blocks: usize,
    options: BlockOptions,
    drop_path: [f32; 2],
    block: Option<BlockFactory>,
}

impl ResBlockBuilder {
    residual_setters!();
    shortcut_setter!();
    bottleneck_setters!();

    /// Sets the probabilities of stochastic depth: that training skips the first block for a
    /// sample, and that it skips the last; in between they rise in equal steps.
    pub fn drop_path(mut self, first: f32, last: f32) -> Self {
        self.drop_path = [first, last];
        self
    }

    /// Sets a function that makes the blocks, in place of those of the stage's kind. It gets the
    /// settings of each block, and returns any module that can be cloned and that has the output
    /// channels and the stride that they say.
    ///
    /// ```
    /// use skipgrad::{Result, Rng, Tensor};
    /// use skipgrad::autograd::{State, Tape, Var};
    /// use skipgrad::blocks::{BlockSettings, ConvNorm, ResBlock, Shortcut};
    /// use skipgrad::nn::{Linear, Module, conv3x3};
    ///
    /// /// A convolution whose channels are gated, and a shortcut.
    /// #[derive(Clone, State)]
    /// struct GatedBlock { conv: ConvNorm, gate: Linear, downsample: Shortcut }
    ///
    /// impl GatedBlock {
    ///     fn new(settings: BlockSettings, rng: &mut Rng) -> Result<GatedBlock> {
    ///         let BlockSettings { in_channels, out_channels, stride, fan, .. } = settings;
    ///         let (ends, kind) = ([in_channels, out_channels], settings.shortcut);
    ///         Ok(GatedBlock {
    ///             conv: ConvNorm::new(conv3x3(in_channels, out_channels).stride(stride), rng)?,
    ///             gate: Linear::new(out_channels, out_channels, rng)?,
    ///             downsample: Shortcut::new(kind, ends, stride, fan, rng)?,
    ///         })
    ///     }
    /// }
    ///
    /// impl Module for GatedBlock {
    ///     fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
    ///         let y = x.apply(&self.conv)?;
    ///         let gate = y.global_avg_pool()?.apply(&self.gate)?.sigmoid();
    ///         Ok(y.scale_channels(&gate)?.add(&x.apply(&self.downsample)?)?.relu())
    ///     }
    /// }
    ///
    /// let mut rng = Rng::seed(0);
    /// let stage = ResBlock::basic(8, 16, 2).stride(2).block(GatedBlock::new).build(&mut rng)?;
    /// assert!(stage.export().contains_key("1.gate.weight"));
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::zeros([1, 6, 6, 8])?).apply(&stage)?.shape(), [1, 3, 3, 16]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn block<M: Module + Clone + 'static>(
        self,
        make: impl Fn(BlockSettings, &mut Rng) -> Result<M> + Send + Sync + 'static,
    ) -> Self {
        self.block_factory(Some(BlockFactory::new(make)))
    }

    /// Sets the function that makes the blocks; see [`ResBlockBuilder::block`]. Without one, the
    /// blocks are those of the stage's kind.
    pub fn block_factory(mut self, block: Option<BlockFactory>) -> Self {
        self.block = block;
        self
    }

    /// Makes the stage.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, a probability is not in [0, 1), or a setting is not
    /// one of this kind of block; the error's path begins with the block's index.
    pub fn build(self, rng: &mut Rng) -> Result<ResBlock> {
        if self.num_blocks == 0 {
            return Err(Error::argument("res_block", "blocks", "at least 1", 0));
        }
        let [first, last] = self.drop_path;
        let step = (last - first) / (self.num_blocks - 1).max(1) as f32;
        let block = |i: usize| {
            let drop_path = first + i as f32 * step;
            let (in_channels, stride) =
                if i == 0 { (self.in_channels, self.options.stride) } else { (self.out_channels, 1) };
            let options = BlockOptions { stride, drop_path, ..self.options };
            let channels = [in_channels, self.out_channels];
            let unit = match &self.block {
                Some(make) => {
                    make.make(BlockSettings::new(channels, &options), rng).map(ResidualUnit::Custom)
                }
                None => ResidualUnit::new(self.kind, channels, &options, rng),
            };
            unit.at(i)
        };
        Ok(ResBlock { blocks: (0..self.num_blocks).map(block).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Shortcut;

    fn basic(unit: &ResidualUnit) -> &BasicBlock {
        match unit {
            ResidualUnit::Basic(block) => block,
            other => panic!("a basic stage has basic blocks: {other:?}"),
        }
    }

    #[test]
    fn only_the_first_block_changes_the_shape() {
        let stage = ResBlock::basic(4, 8, 3)
            .stride(2)
            .shortcut(ShortcutKind::Pad)
            .drop_path(0.1, 0.3)
            .zero_init_residual(true)
            .build(&mut Rng::seed(0))
            .unwrap();
        let blocks: Vec<&BasicBlock> = stage.blocks.iter().map(basic).collect();
        assert!(matches!(blocks[0].downsample, Shortcut::Pad { stride: 2, before: 2, after: 2 }));
        for (i, block) in blocks.iter().enumerate() {
            assert!(i == 0 || matches!(block.downsample, Shortcut::Identity));
            assert_eq!(block.conv1.conv.options.stride, if i == 0 { [2, 2] } else { [1, 1] });
            assert!((block.drop_path - [0.1, 0.2, 0.3][i]).abs() < 1e-6);
            assert!(block.conv2.norm.weight.value().data().iter().all(|&gamma| gamma == 0.0));
        }
    }

    #[test]
    fn errors_name_the_block() {
        let error = |stage: ResBlockBuilder| stage.build(&mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error(ResBlock::basic(4, 4, 0)), "res_block: blocks: expected at least 1, found 0");
        assert_eq!(
            error(ResBlock::basic(8, 4, 1).shortcut(ShortcutKind::Pad)),
            "0: shortcut: channels: expected at least the input's 8, found 4"
        );
        assert!(error(ResBlock::basic(4, 4, 2).stride(0)).starts_with("0: conv2d: stride"));
    }
}
