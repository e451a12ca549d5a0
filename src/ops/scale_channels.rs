//! Channel gate, `y[n, h, w, c] = x[n, h, w, c] gate[n, c]`. Backward keeps both factors: dx = dy
//! gate, and dgate is the sum of dy x over the pixels.

use super::expect_images;
use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct ScaleChannels;

impl Op for ScaleChannels {
    /// The images and the gate.
    type Context = [Tensor; 2];

    fn name(&self) -> &'static str {
        "scale_channels"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let shape = *inputs[0].shape();
        let [batch, _, _, channels] = expect_images("scale_channels", &shape)?;
        expect_gate(batch, channels, inputs[1].shape()).map_err(|error| Fault::new(error, shape))?;
        Ok(shape)
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, [Tensor; 2]) {
        let [x, gate] = [inputs[0], inputs[1]].map(|factor| factor.value().clone());
        (scaled(&x, &gate), [x, gate])
    }

    fn backward(&self, [x, gate]: [Tensor; 2], dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let (isa, batch, channels) = (Isa::active(), x.shape()[0], x.shape().num_channels());
        let dgate = needs[1].then(|| {
            Tensor::build(*gate.shape(), |dgate| {
                kernels::scale_channels_gradient(isa, batch, channels, dy.data(), x.data(), dgate);
            })
        });
        vec![needs[0].then(|| scaled(&dy, &gate)), dgate]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost { saves_output: false, ..Cost::saving_everything(inputs) }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::ScaleChannels
    }
}

fn scaled(x: &Tensor, gate: &Tensor) -> Tensor {
    let (batch, channels) = (x.shape()[0], x.shape().num_channels());
    Tensor::build(*x.shape(), |y| {
        kernels::scale_channels(Isa::active(), batch, channels, x.data(), gate.data(), y);
    })
}

/// Checks that a gate has one factor for each channel of each image.
fn expect_gate(batch: usize, channels: usize, found: &Shape) -> Result<()> {
    if *found == [batch, channels] || *found == [batch, 1, 1, channels] {
        return Ok(());
    }
    let expected =
        ShapePattern::from([batch, channels]).with_context(format!("or [{batch}, 1, 1, {channels}]"));
    Err(Error::shape("scale_channels", "gate", expected, found))
}

impl<'t> Var<'t> {
    /// Multiplies every channel of `[N, H, W, C]` by a factor of its own, the gate `[N, C]` (or
    /// `[N, 1, 1, C]`, from 1x1 convolutions): the scaling of squeeze-and-excitation networks (Hu
    /// et al. 2018, "Squeeze-and-excitation networks", equation 4), which PyTorch writes as a
    /// product that broadcasts.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input does not have four axes or the gate is not one factor
    /// for each channel of each image; [`Error::Argument`] if the input has no pixels.
    ///
    /// ```
    /// use skipgrad::{Result, Rng, Tensor, autograd::{State, Tape, Var}, nn::{Linear, Module}};
    ///
    /// #[derive(State)]
    /// struct SqueezeExcitation { fc1: Linear, fc2: Linear }
    ///
    /// impl Module for SqueezeExcitation {
    ///     fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
    ///         let squeezed = x.global_avg_pool()?.apply(&self.fc1)?.relu();
    ///         x.scale_channels(&squeezed.apply(&self.fc2)?.sigmoid())
    ///     }
    /// }
    ///
    /// let mut rng = Rng::seed(0);
    /// let (fc1, fc2) = (Linear::new(8, 2, &mut rng)?, Linear::new(2, 8, &mut rng)?);
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::zeros([4, 5, 5, 8])?);
    /// assert_eq!(x.apply(&SqueezeExcitation { fc1, fc2 })?.shape(), [4, 5, 5, 8]);
    ///
    /// let x = tape.input(Tensor::new([1, 1, 2, 2], [1.0, 2.0, 3.0, 4.0])?);
    /// let gate = tape.input(Tensor::new([1, 2], [10.0, 0.5])?);
    /// assert_eq!(x.scale_channels(&gate)?.value().data(), [10.0, 1.0, 30.0, 2.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn scale_channels(&self, gate: &Var<'t>) -> Result<Var<'t>> {
        ScaleChannels.apply(&[self, gate])
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Rng, Tensor,
        autograd::{Tape, gradient_check},
    };

    fn normal(shape: &[usize], seed: u64) -> Tensor {
        Tensor::normal(shape, 1.0, &mut Rng::seed(seed)).unwrap()
    }

    #[test]
    fn gradients_agree_with_differences() {
        let inputs = [normal(&[2, 3, 2, 5], 1), normal(&[2, 5], 2)];
        gradient_check(&inputs, |v| v[0].scale_channels(&v[1])).unwrap().within(1e-4).unwrap();
        // A gate that depends on what it scales, as in squeeze and excitation.
        gradient_check(&inputs[..1], |v| v[0].scale_channels(&v[0].global_avg_pool()?.sigmoid()))
            .unwrap()
            .within(1e-4)
            .unwrap();
    }

    #[test]
    fn it_is_the_product_with_the_gate_repeated_for_each_pixel() {
        let (x, gate) = (normal(&[2, 3, 4, 7], 3), normal(&[2, 7], 4));
        let repeated = Tensor::from_fn([2, 3, 4, 7], |i| gate.data()[i / 84 * 7 + i % 7]).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let (x, gate, repeated) = (tape.watch(x), tape.watch(gate), tape.watch(repeated));
        let y = x.scale_channels(&gate).unwrap();
        assert_eq!(y.value(), x.mul(&repeated).unwrap().value());
        let pixels = tape.watch(gate.value().reshape([2, 1, 1, 7]).unwrap());
        let z = x.scale_channels(&pixels).unwrap();
        assert_eq!(z.value(), y.value());
        let updates = y.sum().add(&z.sum()).unwrap().backward().unwrap();
        let [a, b] = [&gate, &pixels].map(|gate| updates.grad_of(gate).unwrap());
        assert_eq!((a.data(), b.shape().to_vec()), (b.data(), vec![2, 1, 1, 7]));
    }

    #[test]
    fn only_the_gradient_that_is_needed() {
        let tape = Tape::train(Rng::seed(0));
        let (x, gate) = (tape.input(normal(&[1, 2, 2, 3], 5)), tape.watch(normal(&[1, 3], 6)));
        let updates = x.scale_channels(&gate).unwrap().sum().backward().unwrap();
        assert!(updates.grad_of(&gate).is_some() && updates.grad_of(&x).is_none());
    }

    #[test]
    fn a_gate_that_does_not_fit_is_an_error() {
        let tape = Tape::eval();
        let x = tape.input(normal(&[2, 3, 4, 7], 3));
        for shape in [&[7][..], &[1, 7], &[2, 6], &[2, 3, 4, 7], &[2, 7, 1, 1], &[]] {
            let gate = tape.input(Tensor::zeros(shape).unwrap());
            let error = x.scale_channels(&gate).unwrap_err().to_string();
            let expected =
                format!("scale_channels: gate: expected [2, 7] or [2, 1, 1, 7], found {}", gate.shape());
            assert_eq!(error, expected);
        }
    }
}
