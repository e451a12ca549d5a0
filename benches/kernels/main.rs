//! The speed of the kernels, next to the limits of the machine.
//!
//! ```sh
//! # All of them, some minutes:
//! cargo bench -p skipgrad-benches --bench kernels
//! # Those whose names match, on one thread:
//! RAYON_NUM_THREADS=1 cargo bench -p skipgrad-benches --bench kernels -- 'conv/.*3x3.*b128'
//! ```
//!
//! The column `thrpt` is GFLOP/s where it reads `Gelem/s`, and GB/s (10^9 bytes) where it reads
//! `GB/s`. A multiplication and an addition are two operations. A convolution counts the operations
//! of its defining sum, `2 N OH OW KH KW C OC` in each direction, so the operations that Winograd's
//! algorithm saves show as a rate above the machine's. Bytes are those that a kernel must read and
//! write, each once; a cache line that the processor reads before it is overwritten is not counted,
//! neither in the kernels nor in the limits.
//!
//! Each measurement takes about a second; `-- --measurement-time 5` and criterion's other options
//! change that.

mod bandwidth;
mod conv;
mod limits;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    limits::bench(&mut criterion);
    conv::bench(&mut criterion);
    bandwidth::bench(&mut criterion);
    criterion.final_summary();
}

/// Measures what `setup` returns; `setup` runs only where the name is asked for.
fn measure<F: FnMut()>(
    criterion: &mut Criterion,
    group: &str,
    name: &str,
    work: Throughput,
    setup: impl Fn() -> F,
) {
    let mut group = criterion.benchmark_group(group);
    // Every sample as long as the others: the longest kernels take a tenth of a second.
    group.sampling_mode(SamplingMode::Flat).throughput(work);
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        let mut work = setup();
        bencher.iter(&mut work);
    });
    group.finish();
}

/// Floating-point operations, which criterion calls elements.
fn flops(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}

/// Numbers of four bytes that are read or written.
fn numbers(n: usize) -> Throughput {
    Throughput::BytesDecimal(4 * n as u64)
}

/// An operand: numbers from -1 to 1 without an order that a processor could guess.
fn operand(n: usize) -> Vec<f32> {
    let scatter = |i: u32| i.wrapping_mul(0x9e37_79b1) as i32;
    (0..n as u32).map(|i| scatter(i) as f32 / 2.0f32.powi(31)).collect()
}
