//! Products of bf16 operands with f32 sums, on the best engine that the processor has, with the
//! same bits on all of them.
//!
//! The definition is what the instruction TDPBF16PS of AMX computes (Intel's manual, volume 2). For
//! every step of 32 consecutive k,
//!
//! ```text
//! even = sum of a[i, k] * b[k, j] over the even k     odd = the same over the odd k
//! c[i, j] += even + odd
//! ```
//!
//! where both sums begin at zero and add one product at a time, in ascending k, by fused
//! multiply-adds. All operands and results that are denormal count as zeros. So adding a step of
//! zeros changes nothing, and the sums do not depend on how a product is blocked.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod block;
mod pack;

pub(crate) use block::{BLOCK, Sums, TILE, Tap, Walk};
pub(crate) use pack::{STEP, pack, packed_len, panel_len};

use crate::{Bf16, Isa, scratch};
use std::sync::OnceLock;

/// What computes the products of bf16 operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// The tiles of AMX: 16 x 16 sums, and 32 k at once.
    Amx,
    /// Multiply-adds on operands that are widened to f32.
    Simd(Isa),
}

impl Engine {
    /// Returns the engine in use: the best one that the processor has, or the one that the
    /// environment variable `SKIPGRAD_ENGINE` names (`amx`, `fma512`, `fma`, `neon` or `portable`),
    /// if the processor has it. The first call decides, and logs the decision at the debug level.
    pub fn active() -> Engine {
        static ACTIVE: OnceLock<Engine> = OnceLock::new();
        *ACTIVE.get_or_init(|| {
            let engine = Engine::select();
            log::debug!("products of bf16 use the engine {}", engine.name());
            engine
        })
    }

    /// Returns the engine that `SKIPGRAD_ENGINE` names, or else AMX, or else that of
    /// [`Isa::active`].
    fn select() -> Engine {
        let available = Engine::available();
        let best =
            *available.last().filter(|&&best| best == Engine::Amx).unwrap_or(&Engine::Simd(Isa::active()));
        let Ok(name) = std::env::var("SKIPGRAD_ENGINE") else { return best };
        available.into_iter().find(|engine| engine.name() == name).unwrap_or_else(|| {
            log::warn!("SKIPGRAD_ENGINE={name} is not an engine of this processor: {} is used", best.name());
            best
        })
    }

    /// Returns the engines that this processor has, from the slowest to the best one.
    pub fn available() -> Vec<Engine> {
        #[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), expect(unused_mut))]
        let mut available: Vec<Engine> = Isa::available().into_iter().map(Engine::Simd).collect();
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if amx::is_permitted() {
            available.push(Engine::Amx);
        }
        available
    }

    /// Returns the name of the engine, which `SKIPGRAD_ENGINE` takes.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Amx => "amx",
            Engine::Simd(Isa::Avx512) => "fma512",
            Engine::Simd(Isa::Avx2) => "fma",
            Engine::Simd(isa) => isa.name(),
        }
    }

    /// Returns the instruction set for what surrounds the products.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Engine::Amx => Isa::active(),
            Engine::Simd(isa) => isa,
        }
    }

    /// Prepares the calling thread for products, until the result is dropped. Meanwhile nothing may
    /// be called that could run another task on this thread, such as rayon's `join`.
    pub(crate) fn begin(self) -> Session {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Engine::Amx {
            return Session { isa: self.isa(), tiles: amx::Tiles::configure() };
        }
        Session {
            isa: self.isa(),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            tiles: None,
        }
    }
}

/// A thread that is prepared for products.
pub(crate) struct Session {
    isa: Isa,
    /// Configured tile registers, if the engine is AMX and the kernel permits it.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    tiles: Option<amx::Tiles>,
}

impl Session {
    /// Computes the sums of a block over all steps of all taps, or adds them to those that are
    /// there.
    ///
    /// # Safety
    /// The pointers of `taps` must be valid for reading what `walk` describes.
    #[inline]
    pub(crate) unsafe fn block(&self, taps: &[Tap], walk: Walk, sums: &mut Sums, add: bool) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(tiles) = &self.tiles {
            // SAFETY: the caller guarantees that the pointers are valid for the walk.
            return unsafe { tiles.block(taps, walk, sums, add) };
        }
        // SAFETY: the caller guarantees that the pointers are valid for the walk.
        unsafe { block::by_multiply_adds(self.isa, taps, walk, sums, add) }
    }
}

/// Lends `len` elements, aligned to 64 bytes, to `f`. Their values are unspecified.
pub(crate) fn with_scratch<T>(len: usize, f: impl FnOnce(&mut [Bf16]) -> T) -> T {
    scratch::with(len.div_ceil(2), |buffer| {
        // SAFETY: two elements of 16 bits fit in each of the `len / 2` elements of 32 bits, rounded
        // up, any bits are a `Bf16`, its alignment is smaller, and the slice is borrowed mutably
        // for as long as the new one lives.
        f(unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<Bf16>(), len) })
    })
}

#[cfg(test)]
pub(crate) mod tests;
