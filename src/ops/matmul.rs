//! Matrix product, `C = A B`. Backward keeps both factors: dA = dC Bᵀ, dB = Aᵀ dC.

use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Var},
    kernels::{Gemm, Isa, gemm},
};

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
        Var::expect_one_tape("matmul", &[self, other])?;
        let &[m, k] = &self.shape()[..] else {
            return Err(Error::shape("matmul", "input", ["M", "K"], self.shape()));
        };
        let n = match other.shape()[..] {
            [rows, n] if rows == k => n,
            _ => {
                let expected = ShapePattern::from([k]).named("N");
                return Err(Error::shape("matmul", "other", expected, other.shape()));
            }
        };
        let shape = Shape::new(&[m, n])?;
        Ok(Var::op("matmul", [self, other], shape, |[a, b]| {
            let (a, b) = (a.clone(), b.clone());
            (product(Gemm::new(m, n, k), &a, &b, shape), move |dy: Tensor, needs: [bool; 2]| {
                [
                    needs[0].then(|| product(Gemm::new(m, k, n).transpose_b(), &dy, &b, *a.shape())),
                    needs[1].then(|| product(Gemm::new(k, n, m).transpose_a(), &a, &dy, *b.shape())),
                ]
            })
        })
        .costs(|| Cost {
            multiply_adds: shape.num_elements() as u64 * k as u64,
            saved_inputs: [self, other].map(|factor| factor.value().clone().into()).into(),
            ..Cost::default()
        }))
    }
}

/// Returns the product of two tensors, read as matrices of the given sizes.
pub(super) fn product(sizes: Gemm, a: &Tensor, b: &Tensor, shape: Shape) -> Tensor {
    Tensor::build(shape, |c| gemm(Isa::active(), sizes, a.data(), b.data(), c))
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
