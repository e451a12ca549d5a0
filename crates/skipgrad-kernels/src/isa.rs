//! The choice of the instruction set, once at run time: the best one that the processor has.
//!
//! A kernel is a [`Task`]: a struct of its arguments, whose `run` is generic over [`Simd`] and
//! inlined. [`Isa::dispatch`] calls it inside a function that is compiled for one instruction set,
//! so the whole loop nest is compiled for that set, and a build for a generic processor runs at
//! full speed on any machine.

use super::simd::{Portable, Simd};
use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for.
///
/// The last bits of a result may depend on the instruction set, but not on the number of threads.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// The instructions that every processor of the target architecture has, vectorized by the
    /// compiler.
    Portable,
    /// AVX2 and FMA of x86-64, with 8 lanes of f32.
    Avx2,
    /// AVX-512F of x86-64, with 16 lanes of f32.
    Avx512,
    /// NEON of AArch64, with 4 lanes of f32.
    Neon,
    /// A stand-in for NEON in tests.
    #[cfg(all(test, target_arch = "x86_64"))]
    FourLanes,
    /// A stand-in for AVX-512 in tests.
    #[cfg(all(test, target_arch = "x86_64"))]
    SixteenLanes,
}

/// A computation that is compiled once for every instruction set.
pub trait Task {
    /// The result of the computation.
    type Output;
    /// Runs the computation on vectors of `S`. Mark it `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Isa {
    /// Returns the instruction set in use: the best one that the processor has, or the one that the
    /// environment variable `SKIPGRAD_ISA` names (`portable`, `avx2`, `avx512` or `neon`), if the
    /// processor has it. The first call decides, and logs the decision at the debug level.
    #[inline]
    pub fn active() -> Isa {
        static ACTIVE: OnceLock<Isa> = OnceLock::new();
        *ACTIVE.get_or_init(|| {
            let isa = Isa::select();
            log::debug!("kernels use the instruction set {}", isa.name());
            isa
        })
    }

    /// Returns the set that `SKIPGRAD_ISA` names, or else the best available one.
    fn select() -> Isa {
        let available = Isa::available();
        let best = available.last().copied().unwrap_or(Isa::Portable);
        let Ok(name) = std::env::var("SKIPGRAD_ISA") else { return best };
        available.into_iter().find(|isa| isa.name() == name).unwrap_or_else(|| {
            log::warn!(
                "SKIPGRAD_ISA={name} is not an instruction set of this processor: {} is used",
                best.name()
            );
            best
        })
    }

    /// Returns the instruction sets that this processor has, from [`Isa::Portable`] to the best
    /// one.
    pub fn available() -> Vec<Isa> {
        let mut available = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Isa::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                available.push(Isa::Avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            available.push(Isa::Neon);
        }
        available
    }

    /// Returns the name of the set, which `SKIPGRAD_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            #[cfg(all(test, target_arch = "x86_64"))]
            Isa::FourLanes => "four lanes",
            #[cfg(all(test, target_arch = "x86_64"))]
            Isa::SixteenLanes => "sixteen lanes",
        }
    }

    /// Runs `task`, compiled for this set, or for [`Isa::Portable`] on a processor that lacks it.
    // Hidden because skipgrad re-exports `Isa`, but no `Task`.
    #[doc(hidden)]
    #[inline]
    pub fn dispatch<T: Task>(self, task: T) -> T::Output {
        #[cfg(target_arch = "x86_64")]
        {
            use super::simd::{Avx2, Avx512};
            #[target_feature(enable = "avx512f")]
            fn avx512<T: Task>(task: T, simd: Avx512) -> T::Output {
                task.run(simd)
            }
            #[target_feature(enable = "avx2,fma")]
            fn avx2<T: Task>(task: T, simd: Avx2) -> T::Output {
                task.run(simd)
            }
            if self == Isa::Avx512
                && let Some(simd) = Avx512::detect()
            {
                // SAFETY: `detect` returns a token only where the processor has AVX-512F.
                return unsafe { avx512(task, simd) };
            }
            if self == Isa::Avx2
                && let Some(simd) = Avx2::detect()
            {
                // SAFETY: `detect` returns a token only where the processor has AVX2 and FMA.
                return unsafe { avx2(task, simd) };
            }
            #[cfg(test)]
            {
                use super::simd::doubles::{FourLanes, SixteenLanes};
                #[target_feature(enable = "avx2,fma")]
                fn by_avx2<T: Task, S: Simd>(task: T, simd: S) -> T::Output {
                    task.run(simd)
                }
                if self == Isa::FourLanes
                    && let Some(simd) = FourLanes::detect()
                {
                    // SAFETY: `detect` returns a token only where the processor has AVX2 and FMA.
                    return unsafe { by_avx2(task, simd) };
                }
                if self == Isa::SixteenLanes
                    && let Some(simd) = SixteenLanes::detect()
                {
                    // SAFETY: `detect` returns a token only where the processor has AVX2 and FMA.
                    return unsafe { by_avx2(task, simd) };
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use super::simd::Neon;
            #[target_feature(enable = "neon")]
            fn neon<T: Task>(task: T, simd: Neon) -> T::Output {
                task.run(simd)
            }
            if self == Isa::Neon
                && let Some(simd) = Neon::detect()
            {
                // SAFETY: `detect` returns a token only where the processor has NEON.
                return unsafe { neon(task, simd) };
            }
        }
        task.run(Portable)
    }
}
