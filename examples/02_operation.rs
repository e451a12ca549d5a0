//! A custom operation: SiLU, `x sigmoid(x)`, with a gradient that is checked against finite
//! differences.
//!
//! `cargo run --example 02_operation`

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Tape, Var, gradient_check},
};

/// Computes SiLU, `y = x sigmoid(x)`, element by element, for any shape (Elfwing et al. 2018,
/// equation 4).
///
/// The gradient is `dx = s (1 + x (1 - s)) dy` with `s = sigmoid(x)`; `x` is saved for it.
fn silu<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    Var::op("silu", [x], *x.shape(), |[x]| {
        let x = x.clone(); // a clone shares the memory
        let y = map(&x, |x| x * sigmoid(x));
        // The backward closure turns the gradient of the output into that of the input, in place.
        (y, move |mut dy: Tensor, _needs: [bool; 1]| {
            for (d, &x) in dy.data_mut().iter_mut().zip(x.data()) {
                let s = sigmoid(x);
                *d *= s * (1.0 + x * (1.0 - s));
            }
            [Some(dy)]
        })
    })
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    Tensor::build(*x.shape(), |y| y.iter_mut().zip(x.data()).for_each(|(y, &x)| *y = f(x)))
}

fn main() -> Result<()> {
    let x = Tensor::normal([4, 5], 2.0, &mut Rng::seed(0))?;

    let tape = Tape::train(Rng::seed(0));
    let v = tape.watch(x.clone());
    let updates = silu(&v)?.sum().backward()?;
    println!(
        "x        {x}\nsilu(x)  {}\ngradient {}",
        silu(&v)?.value(),
        updates.grad_of(&v).expect("watched")
    );

    // Compare the gradient with central differences, element by element.
    let check = gradient_check(&[x], |v| silu(&v[0]))?;
    println!("largest relative error of the gradient: {:.1e}", check.error);
    check.within(1e-3)
}
