//! Rectified linear unit, `y = max(x, 0)` (Nair and Hinton 2010). Backward keeps y, which the next
//! operation keeps anyway: dx = dy where y > 0, else 0.

use crate::{
    Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Returns max(x, 0), element by element. The gradient at 0 is 0 and NaN stays NaN, as in
    /// PyTorch.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval().recording(true);
    /// let x = tape.watch(Tensor::new([3], [-1.0, 0.0, 2.0])?);
    /// let y = x.relu();
    /// assert_eq!(y.value().data(), [0.0, 0.0, 2.0]);
    /// assert_eq!(y.sum().backward()?.grad_of(&x).unwrap().data(), [0.0, 0.0, 1.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn relu(&self) -> Var<'t> {
        Var::op("relu", [self], *self.shape(), |[x]| {
            let y = Tensor::build(*x.shape(), |y| kernels::relu(Isa::active(), x.data(), y));
            let saved = y.clone();
            (y, move |mut dy: Tensor, _| {
                kernels::relu_backward_in_place(Isa::active(), saved.data(), dy.data_mut());
                [Some(dy)]
            })
        })
        .costs(|| Cost {
            saves_output: true,
            gradients: vec![GradientMemory::InPlace],
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Rng, Tensor, autograd::gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let mut x = Tensor::normal([3, 11], 1.0, &mut Rng::seed(1)).unwrap();
        x.data_mut().iter_mut().for_each(|x| *x += 0.2 * x.signum());
        gradient_check(&[x], |v| Ok(v[0].relu())).unwrap().within(1e-4).unwrap();
    }
}
