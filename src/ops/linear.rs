//! Fully connected layer, `y = x W + b`. Backward keeps x and W: dx = dy Wᵀ, dW = xᵀ dy, and db
//! is the sum of dy over the rows.

use super::{expect_vector, matmul::product};
use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Gemm, Isa},
};

impl<'t> Var<'t> {
    /// Multiplies `[..., in]` by the weight `[in, out]` and adds the bias `[out]`, if there is one:
    /// `[..., out]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input has no axis, the weight is not `[in, out]`, or the
    /// bias is not `[out]`.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([1, 2], [3.0, 4.0])?);
    /// let weight = tape.input(Tensor::new([2, 1], [10.0, 1.0])?);
    /// let bias = tape.input(Tensor::new([1], [0.5])?);
    /// assert_eq!(x.linear(&weight, Some(&bias))?.value().data(), [34.5]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn linear(&self, weight: &Var<'t>, bias: Option<&Var<'t>>) -> Result<Var<'t>> {
        Var::expect_one_tape("linear", &[self, weight, bias.unwrap_or(self)])?;
        let Some((&inputs, outer)) = self.shape().split_last() else {
            return Err(Error::shape("linear", "input", ["...", "in"], self.shape()));
        };
        let outputs = match weight.shape()[..] {
            [rows, outputs] if rows == inputs => outputs,
            _ => {
                let expected = ShapePattern::from([inputs]).named("out");
                let error = Error::shape("linear", "weight", expected, weight.shape());
                let inferred_shape = Shape::new(&[outer, &[weight.shape().num_channels()]].concat()).ok();
                return self.tape().recover(error, inferred_shape);
            }
        };
        if let Some(bias) = bias {
            expect_vector("linear", "bias", outputs, bias.shape())?;
        }
        let shape = Shape::new(&[outer, &[outputs]].concat())?;
        let sizes = Linear { rows: self.shape().num_rows(), inputs, outputs };
        let y = match bias {
            None => Var::op("linear", [self, weight], shape, |[x, weight]| {
                let (x, weight) = (x.clone(), weight.clone());
                (sizes.forward(&x, &weight, shape), move |dy: Tensor, needs: [bool; 2]| {
                    sizes.gradients(&x, &weight, &dy, needs)
                })
            }),
            Some(bias) => Var::op("linear", [self, weight, bias], shape, |[x, weight, bias]| {
                let (x, weight) = (x.clone(), weight.clone());
                let mut y = sizes.forward(&x, &weight, shape);
                kernels::add_bias_rows(Isa::active(), bias.data(), y.data_mut());
                (y, move |dy: Tensor, [x_needs, weight_needs, bias_needs]: [bool; 3]| {
                    let [dx, dw] = sizes.gradients(&x, &weight, &dy, [x_needs, weight_needs]);
                    [dx, dw, bias_needs.then(|| column_sums(&dy))]
                })
            }),
        };
        Ok(y.costs(|| Cost {
            multiply_adds: shape.num_elements() as u64 * inputs as u64,
            saved_inputs: [self, weight].map(|factor| factor.value().clone().into()).into(),
            ..Cost::default()
        }))
    }
}

/// The sizes of a linear layer.
#[derive(Clone, Copy)]
struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    fn forward(self, x: &Tensor, weight: &Tensor, shape: Shape) -> Tensor {
        product(Gemm::new(self.rows, self.outputs, self.inputs), x, weight, shape)
    }

    fn gradients(self, x: &Tensor, weight: &Tensor, dy: &Tensor, needs: [bool; 2]) -> [Option<Tensor>; 2] {
        let Linear { rows, inputs, outputs } = self;
        [
            needs[0].then(|| product(Gemm::new(rows, inputs, outputs).transpose_b(), dy, weight, *x.shape())),
            needs[1].then(|| product(Gemm::new(inputs, outputs, rows).transpose_a(), x, dy, *weight.shape())),
        ]
    }
}

/// Returns the gradient of a bias, `[C]`: the sum of `dy` over all axes but the last.
pub(super) fn column_sums(dy: &Tensor) -> Tensor {
    Tensor::build(channels_of(dy), |sums| kernels::column_sums(Isa::active(), dy.data(), sums))
}

/// Returns the shape of a vector with one element per channel.
fn channels_of(x: &Tensor) -> Shape {
    match Shape::new(&[x.shape().num_channels()]) {
        Ok(shape) => shape,
        Err(error) => unreachable!("an axis of a tensor is a valid shape: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Rng, Tensor,
        autograd::{Tape, gradient_check},
    };

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::seed(1);
        let mut normal = |shape: &[usize]| Tensor::normal(shape, 1.0, &mut rng).unwrap();
        let inputs = [normal(&[5, 3]), normal(&[3, 7]), normal(&[7])];
        gradient_check(&inputs, |v| v[0].linear(&v[1], Some(&v[2]))).unwrap().within(1e-4).unwrap();
        gradient_check(&inputs[..2], |v| v[0].linear(&v[1], None)).unwrap().within(1e-4).unwrap();
        let pixels = [normal(&[2, 3, 2, 3]), normal(&[3, 4]), normal(&[4])];
        gradient_check(&pixels, |v| v[0].linear(&v[1], Some(&v[2]))).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let (x, weight) = (zeros(&[2, 3]), zeros(&[3, 4]));
        let message = |x: &crate::autograd::Var, w: &[usize], b: &[usize]| {
            x.linear(&zeros(w), Some(&zeros(b))).unwrap_err().to_string()
        };
        assert_eq!(message(&x, &[4, 3], &[4]), "linear: weight: expected [3, out], found [4, 3]");
        assert_eq!(message(&x, &[3, 4], &[3]), "linear: bias: expected [4], found [3]");
        assert_eq!(message(&zeros(&[]), &[3, 4], &[4]), "linear: input: expected [..., in], found []");
        assert_eq!(x.linear(&weight, None).unwrap().shape(), [2, 4]);
    }
}
