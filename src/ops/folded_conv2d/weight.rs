//! The weight of a convolution in evaluation: with factors of its output channels folded in, and in the order that the kernels
//! read, both done once, when a convolution of a size first needs them.

use crate::{
    Result, Shape, Tensor,
    kernels::{Conv2dGeometry, Isa, Packing},
    ops::Conv2dOptions,
};
use std::sync::OnceLock;

/// `w scale`, packed when it is needed. Threads may share it.
#[derive(Debug)]
pub(in crate::ops) struct FoldedWeight {
    /// `[KH, KW, C/groups, OC]`, shared with whom it is of.
    weight: Tensor,
    /// `[OC]`.
    scale: Option<Tensor>,
    options: Conv2dOptions,
    /// One a packing.
    packed: [OnceLock<Tensor>; 3],
}

impl FoldedWeight {
    pub(in crate::ops) fn new(
        weight: &Tensor,
        scale: Option<Tensor>,
        options: Conv2dOptions,
    ) -> FoldedWeight {
        FoldedWeight { weight: weight.clone(), scale, options, packed: Default::default() }
    }

    pub(in crate::ops) fn options(&self) -> &Conv2dOptions {
        &self.options
    }

    /// The weight's.
    pub(in crate::ops) fn shape(&self) -> &Shape {
        self.weight.shape()
    }

    /// The sizes of the convolution of an input, which may not fit.
    pub(in crate::ops) fn sizes(&self, x: &Shape) -> Result<Conv2dGeometry> {
        self.options.geometry(x, self.weight.shape())
    }

    /// `w scale`.
    pub(in crate::ops) fn fold(&self) -> Tensor {
        let Some(scale) = &self.scale else {
            return self.weight.clone();
        };
        let (w, scale) = (self.weight.data(), scale.data());
        Tensor::build(*self.weight.shape(), |folded| {
            let channels = scale.len().max(1);
            for (folded, w) in folded.chunks_exact_mut(channels).zip(w.chunks_exact(channels)) {
                for (folded, (w, scale)) in folded.iter_mut().zip(w.iter().zip(scale)) {
                    *folded = w * scale;
                }
            }
        })
    }

    /// The way that is fastest for these sizes, and the shape of packed weights.
    pub(in crate::ops) fn packing(&self, sizes: &Conv2dGeometry) -> Result<(Packing, Shape)> {
        let packing = Packing::fastest(self.options.algorithm, sizes);
        Ok((packing, Shape::new(&[packing.len(Isa::active(), sizes)])?))
    }

    /// The way that is fastest for these sizes, and the folded weights in its order. No thread waits for another's work inside of
    /// `get_or_init`, in which it might come upon the same weights again.
    pub(in crate::ops) fn packed(&self, sizes: &Conv2dGeometry) -> Result<(Packing, &Tensor)> {
        let (packing, shape) = self.packing(sizes)?;
        Ok((packing, self.packed_as(packing, shape, sizes)))
    }

    /// The folded weights as [`FoldedWeight::packing`] says.
    pub(in crate::ops) fn packed_as(
        &self,
        packing: Packing,
        shape: Shape,
        sizes: &Conv2dGeometry,
    ) -> &Tensor {
        self.packed[packing as usize].get_or_init(|| {
            let folded = self.fold();
            Tensor::build(shape, |packed| packing.pack(Isa::active(), sizes, folded.data(), packed))
        })
    }
}
