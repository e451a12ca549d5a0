//! Tensors, a tape and gradients: fits a plane to points by gradient descent.
//!
//! `cargo run --example 01_tensors_and_gradients`

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Param, Tape},
};

fn main() -> Result<()> {
    // A tensor is a shape and contiguous elements. Clones share memory until one of them is written
    // to.
    let x = Tensor::new([2, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    println!("x = {x}, shape {}, row 1 = {}", x.shape(), x.slice_rows(1..2)?);

    // A shape that does not fit is an error that says what was expected.
    println!("error: {}", x.reshape([4]).unwrap_err());

    // A tape records one forward pass. Its values are `Var`s; `backward` consumes the recording and
    // returns the gradients.
    let tape = Tape::train(Rng::seed(0));
    let v = tape.watch(x);
    let loss = v.mul(&v)?.sum();
    println!("sum of squares {}, gradient {}", loss.item(), loss.backward()?.grad_of(&v).expect("watched"));

    // Points of the plane y = 2a - 3b + 1, and a weight and a bias that are 0 at first.
    let mut rng = Rng::seed(1);
    let points = Tensor::normal([64, 2], 1.0, &mut rng)?;
    let heights =
        Tensor::from_fn([64, 1], |i| 2.0 * points.data()[2 * i] - 3.0 * points.data()[2 * i + 1] + 1.0)?;
    let mut weight = Param::linear(Tensor::zeros([2, 1])?);
    let mut bias = Param::new(Tensor::zeros([1])?);

    for step in 0..=200 {
        let tape = Tape::train(rng.split());
        let prediction = tape.input(points.clone()).linear(&tape.param(&weight), Some(&tape.param(&bias)))?;
        let loss = prediction.mse(&tape.input(heights.clone()))?;
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.6}", loss.item());
        }
        let updates = loss.backward()?;
        for param in [&mut weight, &mut bias] {
            let gradient = updates.grad(param).expect("the loss depends on it").clone();
            param.value_mut().axpy(-0.1, &gradient);
        }
    }
    println!("weight {} bias {}", weight.value(), bias.value());
    assert!((weight.value().data()[0] - 2.0).abs() < 1e-3 && (bias.value().item() - 1.0).abs() < 1e-3);
    Ok(())
}
