//! Element-wise product. Backward keeps both factors.

use crate::{Error, Result, Tensor, autograd::Var};

impl<'t> Var<'t> {
    /// The element-wise product of two values of the same shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shapes differ.
    pub fn mul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        if self.shape() != other.shape() {
            return Err(Error::argument("mul", "other", self.shape(), other.shape()));
        }
        Ok(Var::op("mul", [self, other], *self.shape(), |[a, b]| {
            let (a, b) = (a.clone(), b.clone());
            (product(&a, &b), move |dy: Tensor, needs: [bool; 2]| {
                [needs[0].then(|| product(&dy, &b)), needs[1].then(|| product(&dy, &a))]
            })
        }))
    }
}

fn product(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::build(*a.shape(), |y| {
        y.iter_mut().zip(a.data().iter().zip(b.data())).for_each(|(y, (a, b))| *y = a * b)
    })
}
