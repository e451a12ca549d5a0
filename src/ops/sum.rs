//! The sum of all elements. Backward keeps the shape.

use crate::{Shape, Tensor, autograd::Var};

impl<'t> Var<'t> {
    /// The sum of all elements, of shape `[]`.
    pub fn sum(&self) -> Var<'t> {
        Var::op("sum", [self], Shape::scalar(), |[x]| {
            let shape = *x.shape();
            (Tensor::scalar(x.data().iter().sum()), move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| dx.fill(dy.item())))]
            })
        })
    }
}
