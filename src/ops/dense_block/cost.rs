//! The cost of the block, for meta passes.

use super::{DenseBlockLayer, DenseBlockNorm, backward::group_len};
use crate::{
    Shape, Tensor,
    autograd::{Cost, Saved},
    kernels::Conv2dGeometry,
};

/// Returns the cost of layers with these 3x3 convolutions on maps of this shape; `recorded` says
/// whether backward may follow.
pub(super) fn cost(
    layers: &[DenseBlockLayer<Tensor>],
    convolutions: &[Conv2dGeometry],
    maps: &Shape,
    recorded: bool,
) -> Cost {
    let mut cost = Cost { saves_output: true, ..Cost::default() };
    let [mut products, mut copies, mut new] = [0; 3];
    for (layer, sizes) in layers.iter().zip(convolutions) {
        let pixels = maps.num_rows() as u64;
        let (read, made) = (sizes.in_channels, sizes.out_channels);
        new = new.max(made);
        cost.multiply_adds += pixels * layer.weight.shape().num_elements() as u64;
        cost.saved_inputs.push(Saved::from(layer.weight.clone()));
        cost.saved_intermediates.extend(vectors(&layer.norm1));
        if let Some((weight, norm2)) = &layer.bottleneck {
            cost.multiply_adds += pixels * weight.shape().num_elements() as u64;
            cost.saved_inputs.push(Saved::from(weight.clone()));
            cost.saved_intermediates.extend(vectors(norm2));
            match recorded {
                true => cost.saved_intermediates.extend(of_channels(maps, read)),
                false => products = products.max(read),
            }
        }
        // The normalized input of a 3x3 convolution is written to memory, unless the kernel
        // normalizes as it reads.
        if layer.bottleneck.is_none() || !layer.algorithm.takes_norm(sizes) {
            copies = copies.max(read);
        }
    }
    cost.forward_workspace.extend([copies, products].into_iter().flat_map(|width| of_channels(maps, width)));
    // The gradient of the maps of a layer exists together with the gradients of the inputs of its
    // convolutions, or with a copy of those inputs.
    let inputs = copies.max(gradients_at_once(layers, convolutions));
    cost.backward_workspace.extend([new, inputs].into_iter().flat_map(|width| of_channels(maps, width)));
    cost
}

/// Returns the largest number of channels of gradients of the inputs of 3x3 convolutions that exist
/// at the same time.
fn gradients_at_once(mut layers: &[DenseBlockLayer<Tensor>], convolutions: &[Conv2dGeometry]) -> usize {
    let mut most = 0;
    while !layers.is_empty() {
        let widths = convolutions[..layers.len()].iter().map(|sizes| sizes.in_channels);
        let (before, group) = layers.split_at(layers.len() - group_len(widths.clone()));
        let group = group.iter().zip(widths.skip(before.len()));
        let widest = group.clone().map(|(_, width)| width).max();
        // The gradients of products exist until the group is done.
        let products: usize =
            group.filter(|(layer, _)| layer.bottleneck.is_some()).map(|(_, width)| width).sum();
        most = most.max(products).max(widest.unwrap_or(0));
        layers = before;
    }
    most
}

/// Returns the shape of the maps with another number of channels, unless that is 0.
fn of_channels(maps: &Shape, channels: usize) -> Option<Shape> {
    let mut sizes = maps.to_vec();
    sizes[3] = channels;
    Shape::new(&sizes).ok().filter(|_| channels > 0)
}

/// Returns the vectors of a normalization: mean, deviation, scale and shift, and the two statistics
/// that the layer observes if they are not fixed.
fn vectors(norm: &DenseBlockNorm<Tensor>) -> impl Iterator<Item = Shape> {
    let observed = if norm.fixed.is_none() { 2 } else { 0 };
    std::iter::repeat_n(*norm.gamma.shape(), 4 + observed)
}
