//! Pooling layers.

use super::{Module, Pair};
use crate::{
    Result,
    autograd::{State, Var},
    ops::{Padding, Pool2dOptions},
};

/// Max-pooling, the largest value of each window of `[N, H, W, C]`; see [`Var::max_pool2d`].
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, nn::{MaxPool2d, Module}};
/// let pool = MaxPool2d::new(3).stride(2).padding(1);
/// let tape = Tape::eval();
/// let y = pool.forward(&tape.input(Tensor::from_fn([1, 4, 4, 1], |i| i as f32)?))?;
/// assert_eq!(y.value().data(), [5.0, 7.0, 13.0, 15.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct MaxPool2d {
    /// Window, stride and padding.
    #[state(skip)]
    pub options: Pool2dOptions,
}

impl MaxPool2d {
    /// Makes a pooling over windows of this size, side by side.
    pub fn new(kernel: impl Into<Pair>) -> MaxPool2d {
        MaxPool2d { options: side_by_side(kernel.into()) }
    }

    /// Sets the steps of the window, in pixels; by default the size of the window.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding, in pixels of minus infinity: `1` or `[1, 0]` on both sides of rows and
    /// columns, or any [`Padding`]. `Padding::Same` is that of Keras.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.options.padding = padding.into();
        self
    }

    /// Sets whether a last window may reach beyond the edge, so that no pixel is left out.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.options.ceil_mode = ceil;
        self
    }
}

impl Module for MaxPool2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.max_pool2d(&self.options)
    }
}

/// Average pooling, the mean of each window of `[N, H, W, C]`; see [`Var::avg_pool2d`].
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, nn::{AvgPool2d, Module}};
/// let tape = Tape::eval();
/// let y = AvgPool2d::new(2).forward(&tape.input(Tensor::from_fn([1, 4, 4, 1], |i| i as f32)?))?;
/// assert_eq!(y.value().data(), [2.5, 4.5, 10.5, 12.5]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct AvgPool2d {
    /// Window, stride, padding, and whether padding counts.
    #[state(skip)]
    pub options: Pool2dOptions,
}

impl AvgPool2d {
    /// Makes a pooling over windows of this size, side by side.
    pub fn new(kernel: impl Into<Pair>) -> AvgPool2d {
        AvgPool2d { options: side_by_side(kernel.into()) }
    }

    /// Sets the steps of the window, in pixels; by default the size of the window.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding, in zero pixels: `1` or `[1, 0]` on both sides of rows and columns, or any
    /// [`Padding`]. `Padding::Same` without counting the padding is that of Keras.
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.options.padding = padding.into();
        self
    }

    /// Sets whether padding counts in the mean; it does by default.
    pub fn count_include_pad(mut self, count: bool) -> Self {
        self.options.count_include_pad = count;
        self
    }

    /// Sets whether a last window may reach beyond the edge, so that no pixel is left out.
    pub fn ceil_mode(mut self, ceil: bool) -> Self {
        self.options.ceil_mode = ceil;
        self
    }
}

impl Module for AvgPool2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.avg_pool2d(&self.options)
    }
}

fn side_by_side(Pair(kernel): Pair) -> Pool2dOptions {
    Pool2dOptions { kernel, stride: kernel, ..Pool2dOptions::default() }
}

/// Global average pooling, the mean of each map: `[N, H, W, C]` to `[N, C]`.
#[derive(Clone, Copy, Debug, Default, State)]
pub struct GlobalAvgPool;

impl Module for GlobalAvgPool {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.global_avg_pool()
    }
}
