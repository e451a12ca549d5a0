//! Residual blocks whose norms and ReLUs come first (He et al. 2016, "Identity mappings in deep residual networks", figure 4e).

use super::{
    BlockOptions, NormConv, ShortcutKind,
    residual::{bottleneck_width, refuse_groups},
};
use crate::{
    Error, Result, Rng,
    autograd::{Mode, State, StateMut, StateRef, Var, join},
    nn::{Conv2d, Conv2dBuilder, Module, conv1x1, conv3x3},
    ops::expect_drop_probability,
};

/// What the parts of a [`PreActBlock`] are called in weights files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreActNames {
    /// `norm1`, `conv1`, `norm2` and so on, `downsample.conv`: timm's pre-activation networks.
    #[default]
    Timm,
    /// `bn1`, `conv1`, `bn2` and so on, `convShortcut`: wide residual networks in PyTorch.
    Wide,
}

impl PreActNames {
    const fn norms(self) -> [&'static str; 3] {
        match self {
            PreActNames::Timm => ["norm1", "norm2", "norm3"],
            PreActNames::Wide => ["bn1", "bn2", "bn3"],
        }
    }

    const fn shortcut(self) -> &'static str {
        match self {
            PreActNames::Timm => "downsample.conv",
            PreActNames::Wide => "convShortcut",
        }
    }
}

/// Two or three times BN, ReLU and convolution, and the way around them: `F(x) + x`, or where the shape changes
/// `F(x) + conv(relu(norm(x)))`, by the block's first norm. Nothing stands on the way from block to block.
///
/// `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. State: `norm1`, `conv1`, `norm2`, `conv2` and so on, and the
/// shortcut's convolution, see [`PreActNames`].
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::{BlockOptions, PreActBlock}, nn::Module};
/// let options = BlockOptions { zero_init_residual: true, ..Default::default() };
/// let block = PreActBlock::bottleneck(8, 8, &options, &mut Rng::seed(0))?;
/// assert_eq!(block.export()["conv2.weight"].shape(), [2, 2, 3, 3]);
/// let tape = Tape::train(Rng::seed(1));
/// let x = tape.input(Tensor::normal([2, 5, 5, 8], 1.0, &mut Rng::seed(2))?);
/// assert_eq!(block.forward(&x)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PreActBlock {
    /// First to last.
    pub layers: Vec<NormConv>,
    /// The way around, if the shape changes.
    pub downsample: Option<Conv2d>,
    /// See [`BlockOptions::drop_path`].
    pub drop_path: f32,
    names: PreActNames,
}

impl PreActBlock {
    /// Two 3x3 convolutions from `inputs` to `outputs` channels, the first with the stride.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, the shortcut is another than [`ShortcutKind::Project`], a probability none, or
    /// the options are of more than one group.
    pub fn basic(
        inputs: usize,
        outputs: usize,
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<PreActBlock> {
        refuse_groups("preact_block", options)?;
        let convs = vec![conv3x3(inputs, outputs).stride(options.stride), conv3x3(outputs, outputs)];
        PreActBlock::of(convs, [inputs, outputs], options, rng)
    }

    /// A 1x1 convolution to fewer channels, a 3x3 with the stride, a 1x1 to `outputs` channels.
    ///
    /// # Errors
    /// As [`PreActBlock::basic`], and if `outputs` is no multiple of four.
    pub fn bottleneck(
        inputs: usize,
        outputs: usize,
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<PreActBlock> {
        let BlockOptions { stride, groups, .. } = *options;
        let width = bottleneck_width(outputs, options)?;
        let convs = vec![
            conv1x1(inputs, width),
            conv3x3(width, width).stride(stride).groups(groups),
            conv1x1(width, outputs),
        ];
        PreActBlock::of(convs, [inputs, outputs], options, rng)
    }

    fn of(
        convs: Vec<Conv2dBuilder>,
        [inputs, outputs]: [usize; 2],
        options: &BlockOptions,
        rng: &mut Rng,
    ) -> Result<PreActBlock> {
        let BlockOptions { stride, shortcut, drop_path, fan, names, .. } = *options;
        expect_drop_probability("drop_path", drop_path)?;
        if shortcut != ShortcutKind::Project {
            let found = format!("{shortcut:?}");
            return Err(Error::argument("preact_block", "shortcut", "Project", found));
        }
        const CONVS: [&str; 3] = ["conv1", "conv2", "conv3"];
        let named = convs.into_iter().zip(names.norms().into_iter().zip(CONVS));
        let layer = |(conv, (norm_name, conv_name)): (Conv2dBuilder, _)| {
            Ok(NormConv::new(conv.fan(fan), rng)?.named(norm_name, conv_name))
        };
        let mut layers: Vec<NormConv> = named.map(layer).collect::<Result<_>>()?;
        if options.zero_init_residual
            && let Some(last) = layers.last_mut()
        {
            last.conv.weight.value_mut().data_mut().fill(0.0);
        }
        let changes = inputs != outputs || stride != 1;
        let conv = conv1x1(inputs, outputs).stride(stride).fan(fan);
        let downsample = changes.then(|| conv.build(rng)).transpose()?;
        Ok(PreActBlock { layers, downsample, drop_path, names })
    }
}

impl Module for PreActBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let Some((first, rest)) = self.layers.split_first() else {
            return Ok(x.clone());
        };
        let activated = first.activate(x, None)?;
        let shortcut = match &self.downsample {
            Some(conv) => x.tape().scope(self.names.shortcut(), || conv.forward(&activated))?,
            None => x.clone(),
        };
        let y = first.convolve(&activated)?;
        drop(activated);
        let y = rest.iter().try_fold(y, |y, layer| layer.forward(&y))?;
        let y = match x.tape().mode() {
            Mode::Train => y.drop_path(self.drop_path)?,
            Mode::Eval => y,
        };
        y.add(&shortcut)
    }
}

impl State for PreActBlock {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.layers.iter().for_each(|layer| layer.visit(path, f));
        self.downsample.visit(&join(path, self.names.shortcut()), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.layers.iter_mut().for_each(|layer| layer.visit_mut(path, f));
        self.downsample.visit_mut(&join(path, self.names.shortcut()), f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape};

    #[test]
    fn the_shortcut_takes_the_first_norm_where_the_shape_changes() {
        let mut rng = Rng::seed(1);
        let options = BlockOptions { stride: 2, zero_init_residual: true, ..Default::default() };
        let block = PreActBlock::basic(4, 6, &options, &mut rng).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let x = tape.input(Tensor::normal([2, 5, 5, 4], 1.0, &mut rng).unwrap());
        let activated = block.layers[0].norm.relu(&x).unwrap();
        let expected = block.downsample.as_ref().unwrap().forward(&activated).unwrap();
        assert_eq!(block.forward(&x).unwrap().value(), expected.value());
        assert_eq!(expected.shape(), [2, 3, 3, 6]);
    }

    #[test]
    fn stochastic_depth_leaves_the_shortcut() {
        let mut rng = Rng::seed(5);
        let options = BlockOptions { drop_path: 0.5, ..Default::default() };
        let block = PreActBlock::basic(4, 4, &options, &mut rng).unwrap();
        let x = Tensor::normal([64, 3, 3, 4], 1.0, &mut rng).unwrap();
        let y = |tape: Tape| block.forward(&tape.input(x.clone())).unwrap().value().clone();
        let skipped = |y: &Tensor| {
            (0..64).filter(|&n| y.slice_rows(n..n + 1).unwrap() == x.slice_rows(n..n + 1).unwrap()).count()
        };
        assert!((20..44).contains(&skipped(&y(Tape::train(Rng::seed(0))))));
        assert_eq!(skipped(&y(Tape::eval())), 0);
    }

    #[test]
    fn what_makes_no_block_is_refused() {
        let error = |options: BlockOptions| {
            PreActBlock::basic(4, 8, &options, &mut Rng::seed(0)).unwrap_err().to_string()
        };
        let default = BlockOptions::default();
        assert_eq!(
            error(BlockOptions { shortcut: ShortcutKind::Pad, ..default }),
            "preact_block: shortcut: expected Project, found Pad"
        );
        assert!(error(BlockOptions { groups: 2, ..default }).contains("groups: expected 1"));
        assert!(error(BlockOptions { drop_path: 1.0, ..default }).contains("probability"));
        assert!(PreActBlock::bottleneck(4, 6, &default, &mut Rng::seed(0)).is_err());
    }

    #[test]
    fn errors_say_which_layer() {
        let block = PreActBlock::basic(4, 4, &BlockOptions::default(), &mut Rng::seed(0)).unwrap();
        let tape = Tape::eval();
        let error = block.forward(&tape.input(Tensor::zeros([1, 4, 4, 5]).unwrap())).err().unwrap();
        assert_eq!(error.path(), Some("norm1"));
    }
}
