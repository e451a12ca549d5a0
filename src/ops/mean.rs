//! The mean of all elements. Backward keeps the shape: every element gets dy / n.

use crate::{
    Shape, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Returns the mean of all elements, of shape `[]`, summed in a fixed order; NaN if there are
    /// none.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::new([4], [1.0, 2.0, 3.0, 6.0])?).mean().item(), 3.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn mean(&self) -> Var<'t> {
        Var::op("mean", [self], Shape::scalar(), |[x]| {
            let shape = *x.shape();
            let n = shape.num_elements() as f32;
            let mean = kernels::sum(Isa::active(), x.data()) / n;
            (Tensor::scalar(mean), move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| kernels::fill(Isa::active(), dy.item() / n, dx)))]
            })
        })
        .costs(Cost::default)
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
        let x = Tensor::normal([2, 3, 4], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].mean())).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn of_nothing_it_is_nan() {
        let tape = Tape::eval();
        assert!(tape.input(Tensor::zeros([0]).unwrap()).mean().item().is_nan());
    }
}
