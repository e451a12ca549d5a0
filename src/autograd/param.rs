//! What a model carries: trained parameters, and buffers that are carried but not trained.

use crate::{Result, Shape, Tensor};
use std::sync::atomic::{AtomicU64, Ordering};

/// The identity of a parameter or a buffer, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(u64);

impl StateId {
    pub(super) fn fresh() -> StateId {
        StateId(fresh())
    }
}

/// A number that nothing else in the process has got or will get from here.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A stand of a parameter or a buffer, unique in the process: what was computed from a value holds for as long as the
/// revision is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64);

/// How a tensor lies in memory and how in a weights file, which follows torchvision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// The same in both.
    Plain,
    /// A convolution's weight: `[KH, KW, C/groups, OC]` here, `[OC, C/groups, KH, KW]` in files.
    Conv,
    /// A linear layer's weight: `[in, out]` here, `[out, in]` in files.
    Linear,
}

impl Layout {
    /// The sizes of a tensor's axes as a file has them, from those in memory.
    pub(crate) fn shape_in_file(self, shape: &Shape) -> Shape {
        match (self, shape.rank()) {
            (Layout::Conv, 4) => shape.permuted([3, 2, 0, 1]),
            (Layout::Linear, 2) => shape.permuted([1, 0]),
            _ => *shape,
        }
    }

    /// The tensor as a file has it.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the tensor has another number of axes.
    pub fn to_file(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Layout::Plain => Ok(tensor.clone()),
            Layout::Conv => tensor.permute(&[3, 2, 0, 1]),
            Layout::Linear => tensor.permute(&[1, 0]),
        }
    }

    /// The tensor as memory has it.
    ///
    /// # Errors
    /// As [`Layout::to_file`].
    pub fn from_file(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Layout::Plain => Ok(tensor.clone()),
            Layout::Conv => tensor.permute(&[2, 3, 1, 0]),
            Layout::Linear => tensor.permute(&[1, 0]),
        }
    }
}

/// A trained tensor.
#[derive(Debug)]
pub struct Param {
    id: StateId,
    value: Tensor,
    version: Version,
    layout: Layout,
    trainable: bool,
}

impl Param {
    /// A parameter that lies in files as in memory.
    pub fn new(value: Tensor) -> Param {
        Param {
            id: StateId::fresh(),
            value,
            version: Version(fresh()),
            layout: Layout::Plain,
            trainable: true,
        }
    }

    /// A convolution's weight, `[KH, KW, C/groups, OC]`.
    pub fn conv(value: Tensor) -> Param {
        Param { layout: Layout::Conv, ..Param::new(value) }
    }

    /// A linear layer's weight, `[in, out]`.
    pub fn linear(value: Tensor) -> Param {
        Param { layout: Layout::Linear, ..Param::new(value) }
    }

    /// Its identity.
    pub fn id(&self) -> StateId {
        self.id
    }

    /// Its value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its value, to be written, which begins a new revision.
    pub fn value_mut(&mut self) -> &mut Tensor {
        self.version = Version(fresh());
        &mut self.value
    }

    /// Of the value.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Param};
    /// let mut weight = Param::new(Tensor::scalar(1.0));
    /// let before = weight.version();
    /// assert_eq!(weight.version(), before);
    /// weight.value_mut().scale(2.0);
    /// assert_ne!(weight.version(), before);
    /// ```
    pub fn version(&self) -> Version {
        self.version
    }

    /// How it lies in files.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether it gets gradients and updates.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Freezes the parameter (`false`) or thaws it.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
    }
}

/// The same value under an identity of its own: a copy of a model is another model.
impl Clone for Param {
    fn clone(&self) -> Param {
        Param { id: StateId::fresh(), value: self.value.clone(), ..*self }
    }
}

/// A tensor that a model carries and does not train: a running mean, a running variance.
#[derive(Debug)]
pub struct Buffer {
    id: StateId,
    value: Tensor,
    version: Version,
    frozen: bool,
}

impl Buffer {
    /// A buffer.
    pub fn new(value: Tensor) -> Buffer {
        Buffer { id: StateId::fresh(), value, version: Version(fresh()), frozen: false }
    }

    /// Its identity.
    pub fn id(&self) -> StateId {
        self.id
    }

    /// Its value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Its value, to be written, which begins a new revision.
    pub fn value_mut(&mut self) -> &mut Tensor {
        self.version = Version(fresh());
        &mut self.value
    }

    /// Of the value; see [`Param::version`].
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether training leaves it as it is.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Freezes the buffer (`true`) or thaws it.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }
}

/// The same value under an identity of its own.
impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer { frozen: self.frozen, ..Buffer::new(self.value.clone()) }
    }
}
