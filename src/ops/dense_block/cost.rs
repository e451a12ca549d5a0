//! What the block takes, for meta passes.

use super::{DenseBlockLayer, DenseBlockNorm, backward::taken_together};
use crate::{
    Shape,
    autograd::{Cost, Saved},
    kernels::{Conv2dGeometry, Isa, Packing},
};

/// Of layers whose 3x3 convolutions are these, on maps of this shape; `recorded` says whether backward may follow.
pub(super) fn cost(
    layers: &[DenseBlockLayer<'_>],
    convolutions: &[Conv2dGeometry],
    maps: &Shape,
    recorded: bool,
) -> Cost {
    let mut cost = Cost { saves_output: true, ..Cost::default() };
    let [mut inner, mut copies, mut new] = [0; 3];
    for (layer, sizes) in layers.iter().zip(convolutions) {
        let pixels = maps.num_rows() as u64;
        let (channels, read, made) = (layer.norm1.gamma.shape()[0], sizes.in_channels, sizes.out_channels);
        (inner, new) = (inner.max(read), new.max(made));
        cost.multiply_adds += pixels * layer.weight.shape().num_elements() as u64;
        cost.saves.push(Saved::from(layer.weight.value().clone()));
        cost.makes.extend(vectors(&layer.norm1));
        if let Some((weight, norm2)) = &layer.bottleneck {
            cost.multiply_adds += pixels * weight.shape().num_elements() as u64;
            cost.saves.push(Saved::from(weight.value().clone()));
            cost.makes.extend(vectors(norm2));
            if recorded {
                cost.makes.extend(of_channels(maps, read));
            }
        }
        // What stands in front of a 3x3 convolution is copied, if the kernel does not normalize as it reads.
        if layer.bottleneck.is_none() || !layer.algorithm.takes_norm(sizes) {
            copies = copies.max(read);
        }
        if !recorded {
            let product = layer.bottleneck.as_ref().map(|_| Conv2dGeometry {
                in_channels: channels,
                out_channels: read,
                kernel: [1, 1],
                padding: [[0, 0]; 2],
                ..*sizes
            });
            for sizes in product.iter().chain([sizes]) {
                let packing = Packing::fastest(layer.algorithm, sizes);
                cost.packs.extend(Shape::new(&[packing.len(Isa::active(), sizes)]));
            }
        }
    }
    cost.forward.extend(of_channels(maps, if recorded { copies } else { inner }));
    // The gradient of a layer's maps, and beside it those of what the convolutions read, or a copy of that.
    let behind = copies.max(gradients_at_once(layers, convolutions));
    cost.backward.extend([new, behind].into_iter().flat_map(|width| of_channels(maps, width)));
    cost
}

/// The most channels of gradients, of what 3x3 convolutions read, that exist at the same time.
fn gradients_at_once(mut layers: &[DenseBlockLayer<'_>], convolutions: &[Conv2dGeometry]) -> usize {
    let mut most = 0;
    while !layers.is_empty() {
        let widths = convolutions[..layers.len()].iter().map(|sizes| sizes.in_channels);
        let (before, group) = layers.split_at(layers.len() - taken_together(widths.clone()));
        let group = group.iter().zip(widths.skip(before.len()));
        let widest = group.clone().map(|(_, width)| width).max();
        // Those of products stay until the group is done.
        let products: usize =
            group.filter(|(layer, _)| layer.bottleneck.is_some()).map(|(_, width)| width).sum();
        most = most.max(products).max(widest.unwrap_or(0));
        layers = before;
    }
    most
}

/// The maps' shape with other channels, if there are any.
fn of_channels(maps: &Shape, channels: usize) -> Option<Shape> {
    let mut sizes = maps.to_vec();
    sizes[3] = channels;
    Shape::new(&sizes).ok().filter(|_| channels > 0)
}

/// A norm as a multiplication and an addition, mean and deviation, and the two vectors that the layer observes.
fn vectors(norm: &DenseBlockNorm<'_>) -> impl Iterator<Item = Shape> {
    let observed = if norm.given.is_none() { 2 } else { 0 };
    std::iter::repeat_n(*norm.gamma.shape(), 4 + observed)
}
