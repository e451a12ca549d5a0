//! Matrix product, `C = A B`. Backward keeps both factors: dA = dC Bᵀ, dB = Aᵀ dC.

use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{Gemm, Isa, gemm},
};

struct MatMul;

impl Op for MatMul {
    /// The factors.
    type Context = [Tensor; 2];

    fn name(&self) -> &'static str {
        "matmul"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let (a, b) = (inputs[0].shape(), inputs[1].shape());
        let [m, k] = a[..] else {
            return Err(Error::shape("matmul", "input", ["M", "K"], a).into());
        };
        match b[..] {
            [rows, n] if rows == k => Ok(Shape::new(&[m, n])?),
            _ => {
                let error = Error::shape("matmul", "other", ShapePattern::from([k]).named("N"), b);
                Err(Fault::new(error, Shape::new(&[m, b.num_channels()]).ok()))
            }
        }
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, [Tensor; 2]) {
        let [a, b] = [inputs[0], inputs[1]].map(|factor| factor.value().clone());
        let sizes = Gemm::new(shape[0], shape[1], b.shape()[0]);
        (product(sizes, &a, &b, shape), [a, b])
    }

    fn backward(&self, [a, b]: [Tensor; 2], dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let (m, k, n) = (a.shape()[0], a.shape()[1], b.shape()[1]);
        vec![
            needs[0].then(|| product(Gemm::new(m, k, n).transpose_b(), &dy, &b, *a.shape())),
            needs[1].then(|| product(Gemm::new(k, n, m).transpose_a(), &a, &dy, *b.shape())),
        ]
    }

    fn cost(&self, inputs: &[Input<'_>], shape: Shape) -> Cost {
        let multiply_adds = shape.num_elements() as u64 * inputs[1].shape()[0] as u64;
        Cost { multiply_adds, saves_output: false, ..Cost::saving_everything(inputs) }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::MatMul
    }
}

/// Returns the product of two tensors, read as matrices of the given sizes.
pub(super) fn product(sizes: Gemm, a: &Tensor, b: &Tensor, shape: Shape) -> Tensor {
    Tensor::build(shape, |c| gemm(Isa::active(), sizes, a.data(), b.data(), c))
}

impl<'t> Var<'t> {
    /// Returns the product of the matrices `[M, K]` and `[K, N]`: `[M, N]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if one of the two is not a matrix or the inner sizes differ.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let a = tape.input(Tensor::new([1, 2], [3.0, 4.0])?);
    /// let b = tape.input(Tensor::new([2, 1], [10.0, 1.0])?);
    /// assert_eq!(a.matmul(&b)?.value().data(), [34.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn matmul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        MatMul.apply(&[self, other])
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
        let mut normal = |shape| Tensor::normal(shape, 1.0, &mut rng).unwrap();
        let inputs = [normal([5, 3]), normal([3, 7])];
        gradient_check(&inputs, |v| v[0].matmul(&v[1])).unwrap().within(1e-4).unwrap();
        let square = [normal([4, 4])];
        gradient_check(&square, |v| v[0].matmul(&v[0])).unwrap().within(1e-3).unwrap();
    }

    #[test]
    fn values_are_those_of_f64() {
        let mut rng = Rng::seed(2);
        let (m, k, n) = (9, 33, 17);
        let (a, b) =
            (Tensor::normal([m, k], 1.0, &mut rng).unwrap(), Tensor::normal([k, n], 1.0, &mut rng).unwrap());
        let tape = Tape::eval();
        let c = tape.input(a.clone()).matmul(&tape.input(b.clone())).unwrap();
        for i in 0..m {
            for j in 0..n {
                let exact: f64 =
                    (0..k).map(|l| f64::from(a.view()[[i, l]]) * f64::from(b.view()[[l, j]])).sum();
                assert!((f64::from(c.value().view()[[i, j]]) - exact).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn errors_name_the_size_that_would_fit() {
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let error = zeros(&[2, 3]).matmul(&zeros(&[2, 3])).unwrap_err();
        assert_eq!(error.to_string(), "matmul: other: expected [3, N], found [2, 3]");
        let error = zeros(&[3]).matmul(&zeros(&[3, 1])).unwrap_err();
        assert_eq!(error.to_string(), "matmul: input: expected [M, K], found [3]");
    }

    #[test]
    fn empty_sums_are_zero() {
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        assert_eq!(zeros(&[2, 0]).matmul(&zeros(&[0, 3])).unwrap().value().data(), [0.0; 6]);
    }
}
