//! Layers with the defaults of Keras where these differ from PyTorch's, and the totals that
//! `model.summary()` prints.

use skipgrad::{
    autograd::{Param, StateRef},
    nn::{BatchNorm2d, Conv2d, Linear},
    ops::Padding,
    prelude::*,
};

/// `layers.Conv2D(filters, (kernel, kernel), strides=stride, padding=padding)`: with a bias.
pub(crate) fn conv2d(
    [channels, filters]: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: Padding,
    rng: &mut Rng,
) -> Result<Conv2d> {
    let conv = Conv2d::builder(channels, filters, kernel).stride(stride).padding(padding).bias(true);
    let mut conv = conv.build(rng)?;
    let area = kernel * kernel;
    let shape = [kernel, kernel, channels, filters];
    conv.weight = Param::conv(glorot_uniform(&shape, area * channels + area * filters, rng)?);
    Ok(conv)
}

/// `layers.BatchNormalization()`. Keras' momentum, 0.99, is the part of the old statistics that is
/// kept; PyTorch's and ours is the part of the new ones.
pub(crate) fn batch_norm(channels: usize) -> Result<BatchNorm2d> {
    BatchNorm2d::builder(channels).eps(1e-3).momentum(0.01).build()
}

/// `layers.Dense(units)`, whose bias begins at zero.
pub(crate) fn dense(features: usize, units: usize, rng: &mut Rng) -> Result<Linear> {
    let mut dense = Linear::new(features, units, rng)?;
    dense.weight = Param::linear(glorot_uniform(&[features, units], features + units, rng)?);
    dense.bias = Some(Param::new(Tensor::zeros([units])?));
    Ok(dense)
}

/// The uniform distribution of Glorot and Bengio 2010, equation 16.
fn glorot_uniform(shape: &[usize], fans: usize, rng: &mut Rng) -> Result<Tensor> {
    let limit = (6.0 / fans as f32).sqrt();
    Tensor::uniform(shape, -limit, limit, rng)
}

/// The numbers of parameters: trained, and not trained, which are the running statistics.
pub(crate) fn totals(model: &impl Module) -> [usize; 2] {
    let (mut trained, mut not_trained) = (0, 0);
    model.visit("", &mut |_, state| {
        let count = state.value().shape().num_elements();
        match state {
            StateRef::Param(param) if param.is_trainable() => trained += count,
            _ => not_trained += count,
        }
    });
    [trained, not_trained]
}

#[cfg(test)]
mod tests {
    use super::{super::ResNet18, *};

    fn model() -> ResNet18 {
        ResNet18::new([2, 2, 2, 2], 100, &mut Rng::seed(0)).unwrap()
    }

    /// What Keras prints for the lecture's code.
    #[test]
    fn the_totals_are_those_of_keras() {
        assert_eq!(totals(&model()), [11_223_140, 7_808]);
    }

    #[test]
    fn shapes_follow_the_rule_of_tensorflow() {
        let summary = model().summary(&[1, 32, 32, 3]).unwrap();
        let output = |name: &str| {
            let layer = summary.layers.iter().find(|layer| layer.name == name).unwrap();
            layer.output.to_vec()
        };
        assert_eq!(output("stem.conv"), [1, 30, 30, 64]); // 'valid'
        assert_eq!(output("layer2.0.conv1"), [1, 15, 15, 128]);
        assert_eq!(output("layer3.0.downsample"), [1, 8, 8, 256]); // rounded up
        assert_eq!(output("layer4.1.conv2"), [1, 4, 4, 512]);
        assert_eq!(output("fc"), [1, 100]);
    }

    /// With stride 2 the padding of an even size is all at the bottom and on the right.
    #[test]
    fn same_padding_is_asymmetric() {
        let mut conv = conv2d([1, 1], 3, 2, Padding::Same, &mut Rng::seed(0)).unwrap();
        conv.weight.value_mut().data_mut().fill(1.0);
        let tape = Tape::eval();
        let y = tape.input(Tensor::full([1, 4, 4, 1], 1.0).unwrap()).apply(&conv).unwrap();
        assert_eq!(y.value().data(), [9.0, 6.0, 6.0, 4.0]);
    }

    #[test]
    fn it_begins_as_keras_does() {
        let model = model();
        let weights = &model.export()["layer1.0.conv1.weight"];
        let largest = weights.data().iter().fold(0.0f32, |most, w| most.max(w.abs()));
        let limit = (6.0 / (9.0 * 128.0) as f32).sqrt();
        assert!(largest <= limit && largest > 0.99 * limit);
        assert!(model.export()["fc.bias"].data().iter().all(|&bias| bias == 0.0));
        assert_eq!((model.stem.norm.eps, model.stem.norm.momentum), (1e-3, 0.01));
    }
}
