//! Blocks of a user's own in the stages of a residual network.

use super::{ShortcutKind, residual::BlockOptions};
use crate::{
    Result, Rng,
    autograd::{State, StateMut, StateRef, Tree, Var},
    nn::{Module, init::Fan},
};
use std::{fmt, sync::Arc};

/// What a stage asks of one of its blocks; see [`ResBlockBuilder::block`].
///
/// [`ResBlockBuilder::block`]: super::ResBlockBuilder::block
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BlockSettings {
    /// The number of input channels.
    pub in_channels: usize,
    /// The number of output channels.
    pub out_channels: usize,
    /// The stride, in rows and in columns: 1 in all blocks but the first.
    pub stride: usize,
    /// The kind of the shortcut where the block changes the shape, or that it has none.
    pub shortcut: ShortcutKind,
    /// Whether the block begins as its shortcut.
    pub zero_init_residual: bool,
    /// The probability in [0, 1) that training skips the block for a sample.
    pub drop_path: f32,
    /// How convolutions are initialized.
    pub fan: Fan,
    /// The number of groups of a bottleneck's 3x3 convolution.
    pub groups: usize,
    /// The channels of each of these groups.
    pub width_per_group: usize,
}

impl BlockSettings {
    pub(super) fn new([in_channels, out_channels]: [usize; 2], options: &BlockOptions) -> BlockSettings {
        let BlockOptions { stride, shortcut, zero_init_residual, drop_path, fan, groups, width_per_group } =
            *options;
        BlockSettings {
            in_channels,
            out_channels,
            stride,
            shortcut,
            zero_init_residual,
            drop_path,
            fan,
            groups,
            width_per_group,
        }
    }
}

/// A block of a user's own: any module that can be cloned.
#[derive(Clone)]
pub struct CustomBlock(Box<dyn CloneModule>);

impl CustomBlock {
    /// Makes a block of a module.
    pub fn new(module: impl Module + Clone + 'static) -> CustomBlock {
        CustomBlock(Box::new(module))
    }
}

/// A module in a box that can be cloned.
trait CloneModule: Module {
    fn boxed_clone(&self) -> Box<dyn CloneModule>;
}

impl<M: Module + Clone + 'static> CloneModule for M {
    fn boxed_clone(&self) -> Box<dyn CloneModule> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn CloneModule> {
    fn clone(&self) -> Box<dyn CloneModule> {
        (**self).boxed_clone()
    }
}

impl State for CustomBlock {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.0.visit(path, f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.0.visit_mut(path, f);
    }
    fn tree(&self) -> Tree {
        self.0.tree()
    }
}

impl Module for CustomBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || self.0.forward(x))
    }
}

/// The function that makes the blocks of a stage.
#[derive(Clone)]
pub struct BlockFactory(Arc<Make>);

type Make = dyn Fn(BlockSettings, &mut Rng) -> Result<CustomBlock> + Send + Sync;

impl BlockFactory {
    /// Makes a factory of a function that returns a module for the settings of a block.
    pub fn new<M: Module + Clone + 'static>(
        make: impl Fn(BlockSettings, &mut Rng) -> Result<M> + Send + Sync + 'static,
    ) -> BlockFactory {
        BlockFactory(Arc::new(move |settings, rng| make(settings, rng).map(CustomBlock::new)))
    }

    /// Makes a block.
    ///
    /// # Errors
    /// Those of the function.
    pub fn make(&self, settings: BlockSettings, rng: &mut Rng) -> Result<CustomBlock> {
        (self.0)(settings, rng)
    }
}

impl fmt::Debug for BlockFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockFactory").finish_non_exhaustive()
    }
}
