//! The processor: which instruction sets it has, and which one the kernels use.
//!
//! Every kernel is compiled for each instruction set that the target architecture may have. The
//! first operation of a process selects the best one that the processor has, [`Isa::active`]. The
//! environment variable `SKIPGRAD_ISA` (`portable`, `avx2`, `avx512` or `neon`) selects another
//! one of [`Isa::available`], for measurements and tests.
//!
//! Products in bf16 ([`Precision::Bf16`](crate::Precision::Bf16)) are computed by an
//! [`Engine`]: AMX where the processor has it and the operating system permits it, otherwise the
//! multiply-adds of an instruction set, with the same bits. `SKIPGRAD_ENGINE` (`amx`, `fma512`,
//! `fma`, `neon` or `portable`) selects another one.
//!
//! ```
//! use skipgrad::cpu::Isa;
//! assert!(Isa::available().contains(&Isa::active()));
//! println!("kernels run on {}", Isa::active().name());
//! ```

pub use crate::kernels::{Engine, Isa};
