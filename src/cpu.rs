//! The processor: which instruction sets it has, and which one the kernels use.
//!
//! Every kernel is compiled for each instruction set that the target architecture may have. The first operation of a process asks the
//! processor for the best one it has, [`Isa::active`]; the environment variable `SKIPGRAD_ISA` (`portable`, `avx2`, `avx512`, `neon`)
//! selects another one of [`Isa::available`], for measurements and for tests.
//!
//! ```
//! use skipgrad::cpu::Isa;
//! assert!(Isa::available().contains(&Isa::active()));
//! println!("kernels run on {}", Isa::active().name());
//! ```

pub use crate::kernels::Isa;
