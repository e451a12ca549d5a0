//! A batch of no images, an image of no channels: every operation takes them, forward and backward,
//! or returns an error.

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

/// Maps without an image, a row, a column or a channel.
const MAPS: [[usize; 4]; 4] = [[0, 4, 4, 3], [2, 0, 4, 3], [2, 4, 0, 3], [2, 4, 4, 0]];

/// Matrices without a row or a column.
const MATRICES: [[usize; 2]; 3] = [[0, 3], [2, 0], [0, 0]];

/// The rows, inner size and columns of products, of which at least one is zero.
const PRODUCTS: [[usize; 3]; 4] = [[0, 3, 2], [2, 0, 3], [2, 3, 0], [0, 0, 0]];

/// Runs a function of one map.
fn run_maps(f: impl for<'t> Fn(&Var<'t>) -> Result<Var<'t>>) {
    for x in MAPS {
        run(&[&x], |v| f(&v[0]));
    }
}

#[test]
fn conv2d() {
    for x in MAPS {
        let padded = Conv2dOptions::new().padding(1).stride([2, 1]);
        for outputs in [0, 2] {
            run(&[&x, &[3, 2, x[3], outputs], &[outputs]], |v| v[0].conv2d(&v[1], Some(&v[2]), &padded));
            let same = padded.padding(Padding::Same);
            run(&[&x, &[3, 2, x[3], outputs]], |v| v[0].conv2d(&v[1], None, &same));
        }
    }
}

#[test]
fn batch_norm() {
    for x in MAPS {
        run(&[&x, &[x[3]], &[x[3]], &x], |v| {
            let norm = BatchNorm::new(&v[1], &v[2]).relu(true).residual(Some(&v[3]));
            Ok(v[0].batch_norm(&norm)?.0)
        });
        let given = Tensor::full([x[3]], 1.0).expect("a small shape");
        run(&[&x, &[x[3]], &[x[3]]], |v| {
            let given = v[0].tape().input(given.clone());
            let norm = BatchNorm::new(&v[1], &v[2]).statistics(Some((&given, &given))).relu(true);
            Ok(v[0].batch_norm(&norm)?.0)
        });
    }
}

#[test]
fn max_pool2d() {
    run_maps(|x| x.max_pool2d(&Pool2dOptions::default()));
}

#[test]
fn avg_pool2d() {
    run_maps(|x| x.avg_pool2d(&Pool2dOptions::new(2).padding(1)));
}

#[test]
fn global_avg_pool() {
    run_maps(|x| x.global_avg_pool());
}

#[test]
fn flatten() {
    run_maps(|x| x.flatten());
}

#[test]
fn concat() {
    for x in MAPS {
        run(&[&x, &x], |v| Var::concat(&[&v[0], &v[1]]));
    }
}

#[test]
fn pad_channels() {
    run_maps(|x| x.pad_channels(1, 0));
    run_maps(|x| x.pad_channels(0, 0));
}

#[test]
fn slice_channels() {
    run_maps(|x| x.slice_channels(0..0));
}

#[test]
fn dropout() {
    run_maps(|x| x.dropout(0.5));
}

#[test]
fn drop_path() {
    run_maps(|x| x.drop_path(0.5));
}

#[test]
fn add_and_mul() {
    for x in MAPS {
        run(&[&x, &x], |v| v[0].add(&v[1])?.mul(&v[1]));
    }
}

#[test]
fn relu_sigmoid_scale_and_sum() {
    run_maps(|x| Ok(x.relu().sigmoid().scale(2.0).sum()));
}

#[test]
fn matmul() {
    for [rows, inner, columns] in PRODUCTS {
        run(&[&[rows, inner], &[inner, columns]], |v| v[0].matmul(&v[1]));
    }
}

#[test]
fn linear() {
    for [rows, inner, columns] in PRODUCTS {
        run(&[&[rows, inner], &[inner, columns], &[columns]], |v| v[0].linear(&v[1], Some(&v[2])));
    }
}

#[test]
fn softmax() {
    for x in MATRICES {
        run(&[&x], |v| v[0].softmax());
        run(&[&x], |v| v[0].log_softmax());
    }
}

#[test]
fn cross_entropy() {
    for x in MATRICES {
        run(&[&x], |v| v[0].cross_entropy(&vec![0; x[0]]));
        run(&[&x], |v| v[0].cross_entropy(v[0].value()));
    }
}
