//! The sum of all elements. Backward keeps the shape: every element gets dy.

use crate::{
    Shape, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Returns the sum of all elements, of shape `[]`, computed in `f64` in a fixed order and
    /// rounded once.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::new([3], [1e8, 1.0, -1e8])?).sum().item(), 1.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn sum(&self) -> Var<'t> {
        Var::op("sum", [self], Shape::scalar(), |[x]| {
            let shape = *x.shape();
            (Tensor::scalar(kernels::sum(Isa::active(), x.data())), move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| kernels::fill(Isa::active(), dy.item(), dx)))]
            })
        })
        .costs(Cost::default)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Rng, Tensor, autograd::gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::normal([2, 3, 4], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].sum())).unwrap().within(1e-4).unwrap();
    }
}
