//! The weight of a convolution in evaluation: scaled by output channel and packed into the order
//! that the kernels read. Both are done once, when a convolution of a size first needs them.

use crate::{
    Result, Shape, Tensor,
    kernels::{Conv2dGeometry, Isa, Packing},
    ops::Conv2dOptions,
};
use std::sync::OnceLock;

/// The weight `w scale`, packed when it is first needed. Threads may share it.
#[derive(Debug)]
pub(in crate::ops) struct FoldedWeight {
    /// The weight w, `[KH, KW, C/groups, OC]`, which shares the memory of the parameter.
    weight: Tensor,
    /// The scale of each output channel, `[OC]`.
    scale: Option<Tensor>,
    options: Conv2dOptions,
    /// The packed weight for each [`Packing`].
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

    /// Returns the shape of the weight.
    pub(in crate::ops) fn shape(&self) -> &Shape {
        self.weight.shape()
    }

    /// Checks an input, and returns the geometry of its convolution.
    pub(in crate::ops) fn sizes(&self, x: &Shape) -> Result<Conv2dGeometry> {
        self.options.geometry(x, self.weight.shape())
    }

    /// Computes `w scale`.
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

    /// Returns the fastest packing for these sizes, and the shape of the packed weight.
    pub(in crate::ops) fn packing(&self, sizes: &Conv2dGeometry) -> Result<(Packing, Shape)> {
        let packing = Packing::fastest(self.options.algorithm, sizes);
        Ok((packing, Shape::new(&[packing.len(Isa::active(), sizes)])?))
    }

    /// Returns the fastest packing for these sizes, and the packed weight.
    pub(in crate::ops) fn packed(&self, sizes: &Conv2dGeometry) -> Result<(Packing, &Tensor)> {
        let (packing, shape) = self.packing(sizes)?;
        Ok((packing, self.packed_as(packing, shape, sizes)))
    }

    /// Returns the packed weight for the packing and shape of [`FoldedWeight::packing`].
    ///
    /// No thread waits for the work of another inside `get_or_init`: it might steal work that needs
    /// the same weight, and deadlock.
    pub(in crate::ops) fn packed_as(
        &self,
        packing: Packing,
        shape: Shape,
        sizes: &Conv2dGeometry,
    ) -> &Tensor {
        self.packed[packing as usize].get_or_init(|| {
            log::debug!("packing a weight {} as {packing:?}", self.weight.shape());
            let folded = self.fold();
            Tensor::build(shape, |packed| packing.pack(Isa::active(), sizes, folded.data(), packed))
        })
    }
}
