//! Fully connected layer, `y = x W + b`. Backward keeps x and W: dx = dy Wᵀ, dW = xᵀ dy, and db
//! is the sum of dy over the rows.

use super::{expect_vector, matmul::product};
use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Conv2dGeometry, Engine, Epilogue, Gemm, Isa, bf16},
};

struct Linear {
    /// Whether operands are rounded to bf16.
    is_bf16: bool,
}

impl Op for Linear {
    /// The input and the weight.
    type Context = [Tensor; 2];

    fn name(&self) -> &'static str {
        "linear"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let (x, weight) = (inputs[0].shape(), inputs[1].shape());
        let Some((&channels, outer)) = x.split_last() else {
            return Err(Error::shape("linear", "input", ["...", "in"], x).into());
        };
        let shape = Shape::new(&[outer, &[weight.num_channels()]].concat());
        match weight[..] {
            [rows, _] if rows == channels => {}
            _ => {
                let expected = ShapePattern::from([channels]).named("out");
                return Err(Fault::new(Error::shape("linear", "weight", expected, weight), shape.ok()));
            }
        }
        let shape = shape?;
        if let Some(bias) = inputs.get(2) {
            expect_vector("linear", "bias", weight[1], bias.shape())
                .map_err(|error| Fault::new(error, shape))?;
        }
        Ok(shape)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, [Tensor; 2]) {
        let [x, weight] = [inputs[0], inputs[1]].map(|input| input.value().clone());
        let bias = inputs.get(2).map(|bias| bias.value().data());
        if self.is_bf16 {
            let epilogue = Epilogue { bias, ..Epilogue::default() };
            let y = Tensor::build(shape, |y| {
                bf16::conv2d(Engine::active(), &as_conv2d(&x, &weight), x.data(), weight.data(), epilogue, y);
            });
            return (y, [x, weight]);
        }
        let [rows, channels, outputs] = sizes(&x, &weight);
        let mut y = product(Gemm::new(rows, outputs, channels), &x, &weight, shape);
        if let Some(bias) = bias {
            kernels::add_bias_rows(Isa::active(), bias, y.data_mut());
        }
        (y, [x, weight])
    }

    fn backward(&self, [x, weight]: [Tensor; 2], dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let bias = || needs.get(2).is_some_and(|needs| *needs).then(|| column_sums(&dy));
        if self.is_bf16 {
            let (engine, geometry) = (Engine::active(), as_conv2d(&x, &weight));
            let dx = |dx: &mut [f32]| {
                bf16::conv2d_input_gradient(engine, &geometry, dy.data(), weight.data(), dx);
            };
            let dw =
                |dw: &mut [f32]| bf16::conv2d_weight_gradient(engine, &geometry, x.data(), dy.data(), dw);
            let dx = needs[0].then(|| Tensor::build(*x.shape(), dx));
            return vec![dx, needs[1].then(|| Tensor::build(*weight.shape(), dw)), bias()];
        }
        let [rows, channels, outputs] = sizes(&x, &weight);
        let dx = Gemm::new(rows, channels, outputs).transpose_b();
        let dw = Gemm::new(channels, outputs, rows).transpose_a();
        vec![
            needs[0].then(|| product(dx, &dy, &weight, *x.shape())),
            needs[1].then(|| product(dw, &x, &dy, *weight.shape())),
            bias(),
        ]
    }

    fn cost(&self, inputs: &[Input<'_>], shape: Shape) -> Cost {
        let multiply_adds = shape.num_elements() as u64 * inputs[1].shape()[0] as u64;
        Cost { multiply_adds, saves_output: false, ..Cost::saving_everything(&inputs[..2]) }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Linear
    }
}

/// Returns the numbers of rows, of input and of output channels.
fn sizes(x: &Tensor, weight: &Tensor) -> [usize; 3] {
    [x.shape().num_rows(), weight.shape()[0], weight.shape()[1]]
}

/// Returns the geometry of the layer as a convolution of images of one pixel.
fn as_conv2d(x: &Tensor, weight: &Tensor) -> Conv2dGeometry {
    let [rows, channels, outputs] = sizes(x, weight);
    Conv2dGeometry::of_pixels(rows, channels, outputs)
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
        Linear { is_bf16: self.tape().is_bf16() }
            .apply(&[self, weight].into_iter().chain(bias).collect::<Vec<_>>())
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
