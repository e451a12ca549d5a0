//! The weights of a compiled convolution: folded, and packed in the order in which a kernel reads
//! them.

use crate::{
    Result, Shape, Tensor,
    kernels::{Algorithm, Bf16, ChannelViewMut, Conv2dGeometry, Engine, Epilogue, Isa, Packing, bf16},
    ops::Affine,
};
use std::sync::Arc;

/// The most memory that packed weights take, as a multiple of the weights. Winograd's algorithm for
/// tiles of 4x4 packs four elements for one.
const BUDGET: f64 = 2.2;

/// The fewest tiles of 4x4 outputs for which the transform of a weight in every run costs little.
const MIN_TILES: usize = 64;

/// A convolution with constant weights, into which what follows it was folded.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// The shape `[KH, KW, C/groups, OC]`.
    pub(super) shape: Shape,
    /// What is added to each channel of the output, `[OC]`.
    pub(super) bias: Option<Tensor>,
    form: Form,
}

/// The form in which the elements are kept.
#[derive(Clone, Debug)]
enum Form {
    /// As they are; the algorithm packs them in every run.
    Plain(Algorithm, Tensor),
    /// Packed once.
    Packed(Packing, Tensor),
    /// Rounded to bf16, and packed once.
    Bf16(Arc<[Bf16]>),
}

/// A convolution whose weights are not packed yet.
#[derive(Clone, Debug)]
pub(super) struct Folded {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) algorithm: Algorithm,
}

impl Folded {
    /// Folds a normalization of the output into the weight and the bias: `norm(conv(x, w) + b)` is
    /// `conv(x, w scale) + b scale + shift`.
    pub(super) fn fold(&mut self, norm: &Affine) {
        let (scale, shift) = (norm.scale.data(), norm.shift.data());
        let channels = scale.len().max(1);
        for weights in self.weight.data_mut().chunks_exact_mut(channels) {
            weights.iter_mut().zip(scale).for_each(|(weight, scale)| *weight *= scale);
        }
        self.bias = Some(match self.bias.take() {
            None => norm.shift.clone(),
            Some(mut bias) => {
                let terms = scale.iter().zip(shift);
                bias.data_mut().iter_mut().zip(terms).for_each(|(b, (scale, shift))| *b = *b * scale + shift);
                bias
            }
        });
    }

    /// Returns the number of elements of the weight.
    fn len(&self) -> usize {
        self.weight.shape().num_elements()
    }
}

/// Packs the weights of all convolutions, each for its geometry. Where the fastest packings
/// together would take more than [`BUDGET`] times the weights, some are replaced.
pub(super) fn pack_all(convolutions: Vec<(Folded, Conv2dGeometry)>, is_bf16: bool) -> Result<Vec<Weights>> {
    if is_bf16 {
        return Ok(convolutions.into_iter().map(round).collect());
    }
    let isa = Isa::active();
    let packings = packings(isa, &convolutions);
    let pack = |((folded, geometry), packing): ((Folded, Conv2dGeometry), Option<Packing>)| {
        let Folded { weight, bias, algorithm } = folded;
        let shape = *weight.shape();
        let form = match packing {
            None => Form::Plain(algorithm, weight),
            Some(packing) => {
                log::debug!("packing a weight {shape} as {packing:?}");
                let len = Shape::new(&[packing.len(isa, &geometry)])?;
                let packed = Tensor::try_build(len, |to| packing.pack(isa, &geometry, weight.data(), to))?;
                Form::Packed(packing, packed)
            }
        };
        Ok(Weights { shape, bias, form })
    };
    convolutions.into_iter().zip(packings).map(pack).collect()
}

/// Rounds and packs the weights of a convolution.
fn round((folded, geometry): (Folded, Conv2dGeometry)) -> Weights {
    let mut packed = vec![Bf16::default(); bf16::packed_len(&geometry)];
    bf16::pack(&geometry, folded.weight.data(), &mut packed);
    Weights { shape: *folded.weight.shape(), bias: folded.bias, form: Form::Bf16(packed.into()) }
}

/// Chooses the packing of each weight; `None` is a weight that is packed in every run.
///
/// A weight that is packed in every run costs time, and saves memory, for each of its elements.
/// The largest are replaced first, and at last the smallest that saves enough.
fn packings(isa: Isa, convolutions: &[(Folded, Conv2dGeometry)]) -> Vec<Option<Packing>> {
    let mut packings: Vec<Option<Packing>> = convolutions
        .iter()
        .map(|(folded, geometry)| Some(Packing::fastest(folded.algorithm, geometry)))
        .collect();
    let len = |packing: Option<Packing>, (folded, geometry): &(Folded, Conv2dGeometry)| {
        packing.map_or(folded.len(), |packing| packing.len(isa, geometry))
    };
    let elements: usize = convolutions.iter().map(|(folded, _)| folded.len()).sum();
    let packed: usize = packings.iter().zip(convolutions).map(|(&packing, conv)| len(packing, conv)).sum();
    let mut excess = packed.saturating_sub((BUDGET * elements as f64) as usize);
    let mut candidates: Vec<(usize, usize)> = (0..packings.len())
        .filter(|&i| packings[i] == Some(Packing::Winograd4x4))
        .map(|i| {
            let replaced = len(smaller(&convolutions[i].1), &convolutions[i]);
            (len(packings[i], &convolutions[i]) - replaced, i)
        })
        .collect();
    candidates.sort_unstable();
    while excess > 0 && !candidates.is_empty() {
        let enough = candidates.partition_point(|&(saved, _)| saved < excess);
        let (saved, replaced) = candidates.remove(enough.min(candidates.len() - 1));
        packings[replaced] = smaller(&convolutions[replaced].1);
        excess = excess.saturating_sub(saved);
    }
    packings
}

/// Returns the packing that replaces Winograd's for tiles of 4x4 where memory is short.
fn smaller(geometry: &Conv2dGeometry) -> Option<Packing> {
    let tiles = geometry.batch * geometry.out_height().div_ceil(4) * geometry.out_width().div_ceil(4);
    (tiles < MIN_TILES).then_some(Packing::Winograd2x2)
}

impl Weights {
    /// Computes the convolution of x, adds the residual if there is one, and applies a ReLU if
    /// `relu`.
    pub(super) fn conv2d(
        &self,
        geometry: &Conv2dGeometry,
        x: &[f32],
        residual: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
    ) {
        let epilogue = Epilogue { bias: self.bias.as_ref().map(Tensor::data), residual, relu };
        match &self.form {
            Form::Bf16(w) => bf16::conv2d_packed(Engine::active(), geometry, x, w, epilogue, y),
            Form::Plain(algorithm, w) => {
                algorithm.conv2d(Isa::active(), geometry, x, w.data(), epilogue, y);
            }
            Form::Packed(packing, w) => packing.conv2d(Isa::active(), geometry, x, w.data(), epilogue, y),
        }
    }

    /// Computes the convolution of x into channels of a wider matrix. It has no bias.
    pub(super) fn conv2d_into(&self, geometry: &Conv2dGeometry, x: &[f32], y: ChannelViewMut<'_>) {
        match &self.form {
            Form::Bf16(w) => bf16::conv2d_packed_into(Engine::active(), geometry, x, w, y),
            Form::Plain(algorithm, w) => {
                algorithm.conv2d_into(Isa::active(), geometry, x, None, w.data(), y);
            }
            Form::Packed(packing, w) => packing.conv2d_into(Isa::active(), geometry, x, w.data(), y),
        }
    }

    /// Returns the weights of a 1x1 convolution as a packed matrix, if they are in that form.
    pub(super) fn packed_matrix(&self) -> Option<&[f32]> {
        match &self.form {
            Form::Packed(Packing::Direct, w) => Some(w.data()),
            _ => None,
        }
    }

    /// Returns the bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        let weights = match &self.form {
            Form::Plain(_, w) | Form::Packed(_, w) => w.bytes(),
            Form::Bf16(w) => size_of_val(&w[..]),
        };
        weights + self.bias.as_ref().map_or(0, Tensor::bytes)
    }
}
