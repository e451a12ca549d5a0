//! The tensors of a model: parameters, which are trained, and buffers, which are not.

use crate::{Result, Shape, Tensor};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// The identity of a parameter or a buffer, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(u64);

impl StateId {
    pub(super) fn fresh() -> StateId {
        StateId(fresh())
    }
}

/// Returns a number that it never returns again in this process.
fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The version of a parameter's or a buffer's value, which changes with every write and is unique
/// in the process. What was computed from a value is valid while the version is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u64);

/// The order of a tensor's axes in memory and in weights files, which have PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// The same order in both.
    Plain,
    /// A convolution's weight: `[KH, KW, C/groups, OC]` here, `[OC, C/groups, KH, KW]` in files.
    Conv,
    /// A linear layer's weight: `[in, out]` here, `[out, in]` in files.
    Linear,
}

impl Layout {
    /// Returns the shape of a tensor in a file, from its shape in memory.
    pub(crate) fn shape_in_file(self, shape: &Shape) -> Shape {
        match (self, shape.rank()) {
            (Layout::Conv, 4) => shape.permuted([3, 2, 0, 1]),
            (Layout::Linear, 2) => shape.permuted([1, 0]),
            _ => *shape,
        }
    }

    /// Returns the tensor with the axes in the order of a file.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the tensor has another number of axes than
    /// the layout.
    pub fn to_file(self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            Layout::Plain => Ok(tensor.clone()),
            Layout::Conv => tensor.permute(&[3, 2, 0, 1]),
            Layout::Linear => tensor.permute(&[1, 0]),
        }
    }

    /// Returns the tensor with the axes in the order of memory.
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

/// A parameter: a tensor of a model that is trained.
pub struct Param {
    id: StateId,
    value: Tensor,
    version: Version,
    layout: Layout,
    trainable: bool,
}

impl Param {
    /// Makes a parameter with [`Layout::Plain`].
    pub fn new(value: Tensor) -> Param {
        Param {
            id: StateId::fresh(),
            value,
            version: Version(fresh()),
            layout: Layout::Plain,
            trainable: true,
        }
    }

    /// Makes the weight of a convolution, `[KH, KW, C/groups, OC]`, with [`Layout::Conv`].
    pub fn conv(value: Tensor) -> Param {
        Param { layout: Layout::Conv, ..Param::new(value) }
    }

    /// Makes the weight of a linear layer, `[in, out]`, with [`Layout::Linear`].
    pub fn linear(value: Tensor) -> Param {
        Param { layout: Layout::Linear, ..Param::new(value) }
    }

    /// Returns the identity.
    pub fn id(&self) -> StateId {
        self.id
    }

    /// Returns the value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Returns the value to be written, which changes the version.
    pub fn value_mut(&mut self) -> &mut Tensor {
        self.version = Version(fresh());
        &mut self.value
    }

    /// Returns the version of the value.
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

    /// Returns the layout in files.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns whether the parameter gets gradients and updates.
    pub fn is_trainable(&self) -> bool {
        self.trainable
    }

    /// Sets whether the parameter gets gradients and updates.
    pub fn set_trainable(&mut self, trainable: bool) {
        self.trainable = trainable;
    }
}

/// Copies the value under a new identity: a copy of a model is another model.
impl Clone for Param {
    fn clone(&self) -> Param {
        Param { id: StateId::fresh(), value: self.value.clone(), ..*self }
    }
}

/// Shows the shape and the first elements, and whether the parameter is frozen.
impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Param({:?}{})", self.value, if self.trainable { "" } else { ", frozen" })
    }
}

/// A buffer: a tensor of a model that is not trained, such as a running mean.
pub struct Buffer {
    id: StateId,
    value: Tensor,
    version: Version,
    frozen: bool,
}

impl Buffer {
    /// Makes a buffer.
    pub fn new(value: Tensor) -> Buffer {
        Buffer { id: StateId::fresh(), value, version: Version(fresh()), frozen: false }
    }

    /// Returns the identity.
    pub fn id(&self) -> StateId {
        self.id
    }

    /// Returns the value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Returns the value to be written, which changes the version.
    pub fn value_mut(&mut self) -> &mut Tensor {
        self.version = Version(fresh());
        &mut self.value
    }

    /// Returns the version of the value; see [`Param::version`].
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns whether training leaves the buffer unchanged.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Sets whether training leaves the buffer unchanged.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }
}

/// Shows the shape and the first elements, and whether the buffer is frozen.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?}{})", self.value, if self.frozen { ", frozen" } else { "" })
    }
}

/// Copies the value under a new identity.
impl Clone for Buffer {
    fn clone(&self) -> Buffer {
        Buffer { frozen: self.frozen, ..Buffer::new(self.value.clone()) }
    }
}
