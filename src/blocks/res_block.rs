//! A stage of a residual network.

use super::{BasicBlock, BlockOptions, Bottleneck, PreActBlock, PreActNames, ShortcutKind};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, StateMut, StateRef, Var},
    nn::{Module, init::Fan},
    state,
};

/// Which residual block a stage is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The output has this many times the channels of the block's 3x3 convolutions.
    pub const fn expansion(self) -> usize {
        match self {
            BlockKind::Basic | BlockKind::PreActBasic => 1,
            BlockKind::Bottleneck | BlockKind::PreActBottleneck => Bottleneck::EXPANSION,
        }
    }

    /// Whether its norms come before the convolutions: then one more follows the last block, and none the stem's convolution.
    pub const fn is_preact(self) -> bool {
        matches!(self, BlockKind::PreActBasic | BlockKind::PreActBottleneck)
    }
}

/// One block of a stage.
#[derive(Clone, Debug)]
pub enum ResidualUnit {
    /// Two 3x3 convolutions.
    Basic(Box<BasicBlock>),
    /// 1x1, 3x3, 1x1.
    Bottleneck(Box<Bottleneck>),
    /// The same with norms and ReLUs in front of the convolutions.
    PreAct(Box<PreActBlock>),
}

impl ResidualUnit {
    /// A block of this kind from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// As [`BasicBlock::new`], [`Bottleneck::new`] and [`PreActBlock::basic`].
    pub fn new(
        kind: BlockKind,
        [inputs, outputs]: [usize; 2],
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<ResidualUnit> {
        Ok(match kind {
            BlockKind::Basic => {
                ResidualUnit::Basic(Box::new(BasicBlock::new(inputs, outputs, options, rng)?))
            }
            BlockKind::Bottleneck => {
                ResidualUnit::Bottleneck(Box::new(Bottleneck::new(inputs, outputs, options, rng)?))
            }
            BlockKind::PreActBasic => {
                ResidualUnit::PreAct(Box::new(PreActBlock::basic(inputs, outputs, options, rng)?))
            }
            BlockKind::PreActBottleneck => {
                ResidualUnit::PreAct(Box::new(PreActBlock::bottleneck(inputs, outputs, options, rng)?))
            }
        })
    }
}

impl Module for ResidualUnit {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            ResidualUnit::Basic(block) => block.forward(x),
            ResidualUnit::Bottleneck(block) => block.forward(x),
            ResidualUnit::PreAct(block) => block.forward(x),
        }
    }
}

impl State for ResidualUnit {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        match self {
            ResidualUnit::Basic(block) => block.visit(path, f),
            ResidualUnit::Bottleneck(block) => block.visit(path, f),
            ResidualUnit::PreAct(block) => block.visit(path, f),
        }
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        match self {
            ResidualUnit::Basic(block) => block.visit_mut(path, f),
            ResidualUnit::Bottleneck(block) => block.visit_mut(path, f),
            ResidualUnit::PreAct(block) => block.visit_mut(path, f),
        }
    }
}

/// A stage of a residual network, a bracket with its `x n` in He et al. 2015, table 1: the first block strides and changes
/// the channels, the others keep the shape.
///
/// State: the blocks by index, `0.conv1.weight` and so on.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::ResBlock, nn::Module};
/// let stage = ResBlock::basic(16, 32, 3).stride(2).build(&mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// assert_eq!(stage.forward(&tape.input(Tensor::zeros([1, 8, 8, 16])?))?.shape(), [1, 4, 4, 32]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResBlock {
    /// The blocks, first to last.
    pub blocks: Vec<ResidualUnit>,
}
state!(ResBlock { ..blocks });

impl ResBlock {
    /// Begins a stage of so many [`BasicBlock`]s, the first from `inputs` to `outputs` channels.
    pub fn basic(inputs: usize, outputs: usize, blocks: usize) -> ResBlockBuilder {
        ResBlockBuilder::new(BlockKind::Basic, inputs, outputs, blocks)
    }

    /// Begins a stage of so many [`Bottleneck`]s, the first from `inputs` to `outputs` channels (a multiple of four).
    pub fn bottleneck(inputs: usize, outputs: usize, blocks: usize) -> ResBlockBuilder {
        ResBlockBuilder::new(BlockKind::Bottleneck, inputs, outputs, blocks)
    }
}

impl Module for ResBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let mut blocks = self.blocks.iter().enumerate();
        blocks.try_fold(x.clone(), |x, (i, block)| x.tape().scope(i, || block.forward(&x)))
    }
}

/// A stage to be: see [`ResBlock::basic`] and [`ResBlock::bottleneck`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the stage"]
pub struct ResBlockBuilder {
    kind: BlockKind,
    inputs: usize,
    outputs: usize,
    blocks: usize,
    options: BlockOptions,
    drop_path: [f32; 2],
}

impl ResBlockBuilder {
    /// A stage of `blocks` blocks of this kind, the first from `inputs` to `outputs` channels.
    pub fn new(kind: BlockKind, inputs: usize, outputs: usize, blocks: usize) -> ResBlockBuilder {
        let options = BlockOptions::default();
        ResBlockBuilder { kind, inputs, outputs, blocks, options, drop_path: [0.0; 2] }
    }

    /// The stride of the first block; 1 if nothing is said.
    pub fn stride(mut self, stride: usize) -> Self {
        self.options.stride = stride;
        self
    }

    /// What the first block's shortcut does if the shape changes; a projection if nothing is said.
    pub fn shortcut(mut self, kind: ShortcutKind) -> Self {
        self.options.shortcut = kind;
        self
    }

    /// Whether each block begins as its shortcut: see [`BlockOptions::zero_init_residual`].
    pub fn zero_init_residual(mut self, yes: bool) -> Self {
        self.options.zero_init_residual = yes;
        self
    }

    /// Stochastic depth: the probability that training skips a block, rising from the first block's to the last's in equal
    /// steps.
    pub fn drop_path(mut self, first: f32, last: f32) -> Self {
        self.drop_path = [first, last];
        self
    }

    /// How the convolutions are initialized; by fan-out if nothing is said.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.options.fan = fan;
        self
    }

    /// Groups of the 3x3 convolutions and the channels of each: see [`BlockOptions::groups`] and
    /// [`BlockOptions::width_per_group`].
    pub fn groups(mut self, groups: usize, width_per_group: usize) -> Self {
        (self.options.groups, self.options.width_per_group) = (groups, width_per_group);
        self
    }

    /// What the parts of pre-activation blocks are called.
    pub fn names(mut self, names: PreActNames) -> Self {
        self.options.names = names;
        self
    }

    /// Makes the stage.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, a probability none, or the shortcut cannot be had; the error's path begins
    /// with the block's index.
    pub fn build(self, rng: &mut Rng) -> Result<ResBlock> {
        if self.blocks == 0 {
            return Err(Error::argument("res_block", "blocks", "at least 1", 0));
        }
        let [first, last] = self.drop_path;
        let step = (last - first) / (self.blocks - 1).max(1) as f32;
        let block = |i: usize| {
            let drop_path = first + i as f32 * step;
            let (inputs, stride) =
                if i == 0 { (self.inputs, self.options.stride) } else { (self.outputs, 1) };
            let options = BlockOptions { stride, drop_path, ..self.options };
            ResidualUnit::new(self.kind, [inputs, self.outputs], &options, rng).at(i)
        };
        Ok(ResBlock { blocks: (0..self.blocks).map(block).collect::<Result<_>>()? })
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
    fn refusals_name_the_block() {
        let error = |stage: ResBlockBuilder| stage.build(&mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error(ResBlock::basic(4, 4, 0)), "res_block: blocks: expected at least 1, found 0");
        assert_eq!(
            error(ResBlock::basic(8, 4, 1).shortcut(ShortcutKind::Pad)),
            "0: shortcut: channels: expected at least the input's 8, found 4"
        );
        assert!(error(ResBlock::basic(4, 4, 2).stride(0)).starts_with("0: conv2d: stride"));
    }
}
