//! Runs the tests of a binary one after another in the main thread: what they measure (counters,
//! allocations, threads) belongs to the whole process.

use libtest_mimic::{Arguments, Failed, Trial};
use std::{fmt::Display, process::ExitCode};

/// Returns a test of the given name. Filters on the command line match names.
pub fn test<E: Display>(
    name: impl Into<String>,
    test: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Trial {
    Trial::test(name, || test().map_err(Failed::from))
}

/// Runs the tests that the command line asks for, in the order given.
pub fn run(tests: Vec<Trial>) -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, tests).exit_code()
}
