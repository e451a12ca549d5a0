//! The processor: which instruction sets it has, and which one the kernels use.
//!
//! Every kernel is compiled for each instruction set that the target architecture may have. The
//! first operation of a process selects the best one that the processor has, [`Isa::active`]. The
//! environment variable `SKIPGRAD_ISA` (`portable`, `avx2`, `avx512` or `neon`) selects another
//! one of [`Isa::available`], for measurements and tests.
//!
//! ```
//! use skipgrad::cpu::Isa;
//! assert!(Isa::available().contains(&Isa::active()));
//! println!("kernels run on {}", Isa::active().name());
//! ```

pub use crate::kernels::Isa;
