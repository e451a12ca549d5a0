//! A batch of no images, an image of no channels: every operation takes them, forward and backward, or refuses them.

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Tape, Var},
    ops::{BatchNorm, Conv2dOptions, Padding, Pool2dOptions},
};

/// Runs `f` on zeros of the given shapes and back from its output; an error is as good as a value.
fn run(shapes: &[&[usize]], f: impl for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>) {
    let tape = Tape::train(Rng::seed(0));
    let inputs: Vec<Var> =
        shapes.iter().map(|s| tape.watch(Tensor::zeros(s).expect("a small shape"))).collect();
    if let Ok(y) = f(&inputs) {
        let updates = y.backward_from(y.value().clone()).expect("a recorded pass");
        for input in &inputs {
            let gradient = updates.grad_of(input).expect("a gradient of every input");
            assert!(gradient.data().iter().all(|g| g.is_finite()), "{shapes:?}");
        }
    }
}

#[test]
fn maps() {
    for x in [[0, 4, 4, 3], [2, 0, 4, 3], [2, 4, 0, 3], [2, 4, 4, 0]] {
        let padded = Conv2dOptions::new().padding(1).stride([2, 1]);
        for outputs in [0, 2] {
            run(&[&x, &[3, 2, x[3], outputs], &[outputs]], |v| v[0].conv2d(&v[1], Some(&v[2]), &padded));
            let same = padded.padding(Padding::Same);
            run(&[&x, &[3, 2, x[3], outputs]], |v| v[0].conv2d(&v[1], None, &same));
        }
        run(&[&x, &[x[3]], &[x[3]], &x], |v| {
            let norm = BatchNorm::new(&v[1], &v[2]).relu(true).residual(Some(&v[3]));
            Ok(v[0].batch_norm(&norm)?.0)
        });
        let given = Tensor::full([x[3]], 1.0).expect("a small shape");
        run(&[&x, &[x[3]], &[x[3]]], |v| {
            let norm = BatchNorm::new(&v[1], &v[2]).statistics(Some((&given, &given))).relu(true);
            Ok(v[0].batch_norm(&norm)?.0)
        });
        run(&[&x], |v| v[0].max_pool2d(&Pool2dOptions::default()));
        run(&[&x], |v| v[0].avg_pool2d(&Pool2dOptions::new(2).padding(1)));
        run(&[&x], |v| v[0].global_avg_pool());
        run(&[&x], |v| v[0].flatten());
        run(&[&x, &x], |v| Var::concat(&[&v[0], &v[1]]));
        run(&[&x], |v| v[0].pad_channels(1, 0));
        run(&[&x], |v| v[0].pad_channels(0, 0));
        run(&[&x], |v| v[0].slice_channels(0..0));
        run(&[&x], |v| v[0].dropout(0.5));
        run(&[&x], |v| v[0].drop_path(0.5));
        run(&[&x, &x], |v| v[0].add(&v[1])?.mul(&v[1]));
        run(&[&x], |v| Ok(v[0].relu().sigmoid().scale(2.0).sum()));
    }
}

#[test]
fn matrices() {
    for [rows, inner, columns] in [[0, 3, 2], [2, 0, 3], [2, 3, 0], [0, 0, 0]] {
        run(&[&[rows, inner], &[inner, columns]], |v| v[0].matmul(&v[1]));
        run(&[&[rows, inner], &[inner, columns], &[columns]], |v| v[0].linear(&v[1], Some(&v[2])));
    }
    for x in [[0, 3], [2, 0], [0, 0]] {
        run(&[&x], |v| v[0].softmax());
        run(&[&x], |v| v[0].log_softmax());
        run(&[&x], |v| v[0].cross_entropy(&vec![0; x[0]]));
        run(&[&x], |v| v[0].cross_entropy(v[0].value()));
    }
}
