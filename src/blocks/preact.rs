//! Residual blocks whose norms and ReLUs come first (He et al. 2016, "Identity mappings in deep
//! residual networks", figure 4e).

use super::{
    NormConv, ShortcutKind,
    residual::{BlockOptions, bottleneck_setters, bottleneck_width, expect_no_groups, residual_setters},
};
use crate::{
    Error, Result, Rng,
    autograd::{Mode, State, Var},
    nn::{Conv2d, Conv2dBuilder, Module, conv1x1, conv3x3, init::Fan},
    ops::expect_drop_probability,
};

/// Two or three layers of BN, ReLU and convolution, and a shortcut: `F(x) + x`, or where the shape
/// changes `F(x) + conv(relu(norm(x)))` with the block's first norm. Nothing lies on the path from
/// shortcut to shortcut.
///
/// Maps `[N, H, W, in]` to `[N, H/stride, W/stride, out]`, rounded up. Its state is `bn1`, `conv1`,
/// `bn2`, `conv2`, in a bottleneck `bn3`, `conv3`, and `downsample.0`, the shortcut's convolution.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::PreActBlock, nn::Module};
/// let block = PreActBlock::bottleneck(8, 8).zero_init_residual(true).build(&mut Rng::seed(0))?;
/// assert_eq!(block.export()["conv2.weight"].shape(), [2, 2, 3, 3]);
/// let tape = Tape::train(Rng::seed(1));
/// let x = tape.input(Tensor::normal([2, 5, 5, 8], 1.0, &mut Rng::seed(2))?);
/// assert_eq!(block.forward(&x)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct PreActBlock {
    /// The layers, first to last.
    #[state(flatten(norm = "bn{n}", conv = "conv{n}"))]
    pub layers: Vec<NormConv>,
    /// The shortcut's convolution, if the shape changes.
    #[state(rename = "downsample.0")]
    pub downsample: Option<Conv2d>,
    /// The probability in [0, 1) that training skips the block for a sample.
    #[state(skip)]
    pub drop_path: f32,
}

impl Module for PreActBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let Some((first, rest)) = self.layers.split_first() else {
            return Ok(x.clone());
        };
        x.tape().enter(self, || {
            let activated = first.activate(x, None)?;
            let shortcut = match &self.downsample {
                Some(conv) => conv.forward(&activated)?,
                None => x.clone(),
            };
            let y = first.conv.forward(&activated)?;
            drop(activated);
            let y = rest.iter().try_fold(y, |y, layer| layer.forward(&y))?;
            let y = match x.tape().mode() {
                Mode::Train => y.drop_path(self.drop_path)?,
                Mode::Eval => y,
            };
            y.add(&shortcut)
        })
    }
}

impl PreActBlock {
    /// Begins a block of two 3x3 convolutions, of which the first strides.
    pub fn basic(in_channels: usize, out_channels: usize) -> PreActBlockBuilder {
        PreActBlockBuilder { in_channels, out_channels, bottleneck: false, options: BlockOptions::default() }
    }

    /// Begins a block of a 1x1 convolution to fewer channels, a 3x3, which strides, and a 1x1 to
    /// all channels.
    pub fn bottleneck(in_channels: usize, out_channels: usize) -> PreActBlockBuilder {
        PreActBlockBuilder { bottleneck: true, ..PreActBlock::basic(in_channels, out_channels) }
    }
}

/// The settings of a [`PreActBlock`]; see [`PreActBlock::basic`] and [`PreActBlock::bottleneck`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the block"]
pub struct PreActBlockBuilder {
    in_channels: usize,
    out_channels: usize,
    bottleneck: bool,
    options: BlockOptions,
}

impl PreActBlockBuilder {
    residual_setters!(drop_path);
    bottleneck_setters!();

    pub(super) fn options(self, options: BlockOptions) -> PreActBlockBuilder {
        PreActBlockBuilder { options, ..self }
    }

    /// Makes the block.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero, the drop probability is not in [0, 1), a block of
    /// two convolutions has groups, or the output channels of a bottleneck are not a multiple of
    /// four.
    pub fn build(self, rng: &mut Rng) -> Result<PreActBlock> {
        let BlockOptions { stride, shortcut, drop_path, fan, .. } = self.options;
        let convs = self.convs()?;
        expect_drop_probability("drop_path", drop_path)?;
        if shortcut != ShortcutKind::Project {
            let found = format!("{shortcut:?}");
            return Err(Error::argument("preact_block", "shortcut", "Project", found));
        }
        let layers = convs.into_iter().map(|conv| NormConv::new(conv.fan(fan), rng));
        let mut layers: Vec<NormConv> = layers.collect::<Result<_>>()?;
        if self.options.zero_init_residual
            && let Some(last) = layers.last_mut()
        {
            last.conv.weight.value_mut().data_mut().fill(0.0);
        }
        let changes = self.in_channels != self.out_channels || stride != 1;
        let conv = conv1x1(self.in_channels, self.out_channels).stride(stride).fan(fan);
        let downsample = changes.then(|| conv.build(rng)).transpose()?;
        Ok(PreActBlock { layers, downsample, drop_path })
    }

    fn convs(&self) -> Result<Vec<Conv2dBuilder>> {
        let PreActBlockBuilder { in_channels, out_channels, bottleneck, ref options } = *self;
        let BlockOptions { stride, groups, .. } = *options;
        if !bottleneck {
            expect_no_groups("preact_block", options)?;
            let first = conv3x3(in_channels, out_channels).stride(stride);
            return Ok(vec![first, conv3x3(out_channels, out_channels)]);
        }
        let width = bottleneck_width(out_channels, options)?;
        Ok(vec![
            conv1x1(in_channels, width),
            conv3x3(width, width).stride(stride).groups(groups),
            conv1x1(width, out_channels),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape};

    #[test]
    fn the_shortcut_takes_the_first_norm_where_the_shape_changes() {
        let mut rng = Rng::seed(1);
        let block = PreActBlock::basic(4, 6).stride(2).zero_init_residual(true).build(&mut rng).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let x = tape.input(Tensor::normal([2, 5, 5, 4], 1.0, &mut rng).unwrap());
        let activated = block.layers[0].norm.forward_relu(&x).unwrap();
        let expected = block.downsample.as_ref().unwrap().forward(&activated).unwrap();
        assert_eq!(block.forward(&x).unwrap().value(), expected.value());
        assert_eq!(expected.shape(), [2, 3, 3, 6]);
    }

    #[test]
    fn stochastic_depth_leaves_the_shortcut() {
        let mut rng = Rng::seed(5);
        let block = PreActBlock::basic(4, 4).drop_path(0.5).build(&mut rng).unwrap();
        let x = Tensor::normal([64, 3, 3, 4], 1.0, &mut rng).unwrap();
        let y = |tape: Tape| block.forward(&tape.input(x.clone())).unwrap().value().clone();
        let skipped = |y: &Tensor| {
            (0..64).filter(|&n| y.slice_rows(n..n + 1).unwrap() == x.slice_rows(n..n + 1).unwrap()).count()
        };
        assert!((20..44).contains(&skipped(&y(Tape::train(Rng::seed(0))))));
        assert_eq!(skipped(&y(Tape::eval())), 0);
    }

    #[test]
    fn impossible_settings_are_rejected() {
        let error = |block: PreActBlockBuilder| block.build(&mut Rng::seed(0)).unwrap_err().to_string();
        let basic = || PreActBlock::basic(4, 8);
        let pad = BlockOptions { shortcut: ShortcutKind::Pad, ..BlockOptions::default() };
        assert_eq!(error(basic().options(pad)), "preact_block: shortcut: expected Project, found Pad");
        assert!(error(basic().groups(2)).contains("groups: expected 1"));
        assert!(error(basic().drop_path(1.0)).contains("probability"));
        assert!(PreActBlock::bottleneck(4, 6).build(&mut Rng::seed(0)).is_err());
    }

    #[test]
    fn errors_say_which_layer() {
        let block = PreActBlock::basic(4, 4).build(&mut Rng::seed(0)).unwrap();
        let tape = Tape::eval();
        let error = block.forward(&tape.input(Tensor::zeros([1, 4, 4, 5]).unwrap())).err().unwrap();
        assert_eq!(error.path(), Some("bn1"));
    }
}
