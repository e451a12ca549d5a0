//! Tests of the memory that passes take and of the plans that predict it. They read the counters of
//! the buffer pool, which count for the whole process, so they run one after another:
//! `cargo test --test memory plan::conv2d`.

mod memory;
mod plan;

use skipgrad_serial_tests as serial;
use std::process::ExitCode;

fn main() -> ExitCode {
    serial::run([memory::tests(), plan::tests()].into_iter().flatten().collect())
}
