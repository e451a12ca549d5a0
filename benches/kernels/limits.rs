//! The limits of the machine, measured without the library's kernels (except the matrix product at
//! the end).

use crate::{flops, measure, numbers, operand};
use criterion::Criterion;
use rayon::prelude::*;
use skipgrad::__private::kernels::{Gemm, Isa, Task, gemm, simd::Simd};
use std::hint::black_box;

/// Numbers of each operand in memory, 128 MiB: several times the last cache.
const LEN: usize = 32 << 20;
/// Numbers that a thread takes at once.
const PIECE: usize = 16 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let isa = Isa::active();
    let all = rayon::current_num_threads();
    for threads in if all == 1 { vec![1] } else { vec![1, all] } {
        let name = format!("{}_{threads}_threads", isa.name());
        measure(criterion, "limit/fma", &name, flops(threads * MultiplyAdd::flops(isa)), || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            move || {
                pool.broadcast(|_| black_box(isa.dispatch(MultiplyAdd)));
            }
        });
    }
    memory(criterion);
    let n = 2048;
    measure(criterion, "limit/gemm", &format!("{n}x{n}x{n}"), flops(2 * n * n * n), || {
        let (a, b, mut c) = (operand(n * n), operand(n * n), vec![0.0; n * n]);
        move || gemm(isa, Gemm::new(n, n, n), &a, &b, &mut c)
    });
}

/// As many independent multiply-adds as hide the latency of one and, with their factors, fit into
/// 16 registers.
#[derive(Clone, Copy)]
struct MultiplyAdd;

impl MultiplyAdd {
    const CHAINS: usize = 12;
    const STEPS: usize = 1_000_000;

    fn flops(isa: Isa) -> usize {
        struct Lanes;
        impl Task for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::LANES
            }
        }
        2 * Self::CHAINS * Self::STEPS * isa.dispatch(Lanes)
    }
}

impl Task for MultiplyAdd {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let factor = simd.splat(black_box(0.5));
        let term = simd.splat(black_box(1.0));
        let mut chains: [S::Vector; Self::CHAINS] = std::array::from_fn(|i| simd.splat(i as f32));
        for _ in 0..Self::STEPS {
            for chain in &mut chains {
                *chain = simd.mul_add(*chain, factor, term);
            }
        }
        chains.into_iter().map(|chain| simd.sum(chain)).sum()
    }
}

/// Pieces in parallel, as the kernels go over memory.
fn memory(criterion: &mut Criterion) {
    measure(criterion, "limit/memory", "read", numbers(LEN), || {
        let x = operand(LEN);
        move || {
            x.par_chunks(PIECE).for_each(|x| {
                // Many sums, which need not wait for each other.
                let mut sums = [0.0; 32];
                for x in x.chunks_exact(sums.len()) {
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
                }
                black_box(sums);
            });
        }
    });
    measure(criterion, "limit/memory", "update", numbers(2 * LEN), || {
        let mut y = operand(LEN);
        move || y.par_chunks_mut(PIECE).for_each(|y| y.iter_mut().for_each(|y| *y = -*y))
    });
    measure(criterion, "limit/memory", "copy", numbers(2 * LEN), || {
        let (x, mut y) = (operand(LEN), operand(LEN));
        move || y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| y.copy_from_slice(x))
    });
    measure(criterion, "limit/memory", "triad", numbers(3 * LEN), || {
        let (a, b, mut y) = (operand(LEN), operand(LEN), operand(LEN));
        move || {
            y.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE)).for_each(
                |((y, a), b)| {
                    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                        *y = a + 3.0 * b;
                    }
                },
            );
        }
    });
    measure(criterion, "limit/memory", "write_recycled_pages", numbers(LEN), || {
        let mut y = operand(LEN);
        move || y.par_chunks_mut(PIECE).for_each(|y| y.fill(1.0))
    });
    measure(criterion, "limit/memory", "write_fresh_pages", numbers(LEN), || {
        || {
            let mut y = vec![0.0f32; LEN];
            y.par_chunks_mut(PIECE).for_each(|y| y.fill(1.0));
            drop(black_box(y));
        }
    });
}
