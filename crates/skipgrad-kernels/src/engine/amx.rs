//! The block on the tile registers of AMX.
//!
//! The instructions are assembly in one piece, because the compiler's intrinsics for them are not
//! stable, and so that no tile lives outside of it.

use super::{STEP, Sums, Tap, Walk};
use std::{
    arch::{asm, x86_64::*},
    sync::OnceLock,
};

/// Returns whether the processor has AMX with bf16, and the operating system lets this process use
/// it. Linux wants to be asked once a process, for all its threads (5.16 and later).
pub(super) fn is_permitted() -> bool {
    static PERMITTED: OnceLock<bool> = OnceLock::new();
    *PERMITTED.get_or_init(|| has_tiles() && request_tiles())
}

/// Returns whether CPUID has AMX-TILE and AMX-BF16 (leaf 7, EDX bits 24 and 22), and XCR0 the state
/// of tiles (bits 17 and 18).
fn has_tiles() -> bool {
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: the target feature is what the instruction needs, besides OSXSAVE.
        unsafe { _xgetbv(0) }
    }
    #[allow(unused_unsafe, reason = "the intrinsic is unsafe in older compilers")]
    fn cpuid(leaf: u32) -> CpuidResult {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { __cpuid_count(leaf, 0) }
    }
    let (most, basic) = (cpuid(0).eax, cpuid(1).ecx);
    // XSAVE (bit 26) exists and is in use (OSXSAVE, bit 27).
    if most < 7 || basic >> 26 & 3 != 3 {
        return false;
    }
    let features = cpuid(7).edx;
    // SAFETY: the processor has XSAVE, and the operating system has turned it on.
    features >> 24 & 1 == 1 && features >> 22 & 1 == 1 && unsafe { xcr0() } >> 17 & 3 == 3
}

/// Asks Linux for the tile registers, and returns whether it grants them. It does not where signal
/// stacks are too small to hold them.
fn request_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the system call changes nothing but which registers this process may use; it writes
    // its result to rax, and the instruction rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA, out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// Eight full tiles of 16 rows of 64 bytes, in the format of `ldtilecfg`: palette 1 in byte 0,
/// bytes of a row from byte 16 on, rows from byte 48 on.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

static FULL_TILES: Configuration = {
    let (mut bytes, mut tile) = ([0; 64], 0);
    bytes[0] = 1;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Configuration(bytes)
};

/// The tile registers of a thread, configured until it is dropped.
pub(super) struct Tiles {
    /// The registers are those of one thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Tiles {
    /// Configures the registers of the calling thread, or returns `None` where that is not
    /// permitted.
    pub(super) fn configure() -> Option<Tiles> {
        if !is_permitted() {
            return None;
        }
        // SAFETY: the processor has AMX and the operating system permits it. The configuration is
        // 64 bytes of the documented format.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &FULL_TILES, options(nostack, readonly)) };
        Some(Tiles { _thread: std::marker::PhantomData })
    }

    /// Computes a block. Tiles 0 to 3 hold the sums, 4 and 5 rows of A, 6 and 7 columns of B: as
    /// many products as loads.
    ///
    /// # Safety
    /// The pointers of `taps` must be valid for reading what `walk` describes.
    pub(super) unsafe fn block(&self, taps: &[Tap], walk: Walk, sums: &mut Sums, add: bool) {
        if taps.is_empty() || walk.steps == 0 {
            if !add {
                *sums = Sums::ZERO;
            }
            return;
        }
        // SAFETY: the tiles are configured for as long as `self` lives. The sums are four tiles of
        // 1024 bytes, whose rows are 64 bytes apart. The list has `n >= 1` taps of three pointers
        // (`repr(C)`), each valid for `steps >= 1` steps: 16 rows of 64 bytes at each pointer of
        // A, and 2048 bytes at that of B, from which both pointers move on as `Walk` says.
        unsafe {
            asm!(
                "test {a0}, {a0}", "jnz 3f",
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", "jmp 4f",
                "3:",
                "tileloadd tmm0, [{c}+{line}]", "tileloadd tmm1, [{c}+{line}+1024]",
                "tileloadd tmm2, [{c}+{line}+2048]", "tileloadd tmm3, [{c}+{line}+3072]",
                "4:",
                "mov {a0}, [{t}]", "mov {a1}, [{t}+8]", "mov {b}, [{t}+16]", "add {t}, 24",
                "mov {k}, {steps}",
                "5:",
                "tileloadd tmm6, [{b}+{line}]", "tileloadd tmm4, [{a0}+{row}]", "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b}+{line}+1024]", "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1}+{row}]", "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, {step}", "add {a1}, {step}", "add {b}, 2048",
                "dec {k}", "jnz 5b",
                "dec {n}", "jnz 4b",
                "tilestored [{c}+{line}], tmm0", "tilestored [{c}+{line}+1024], tmm1",
                "tilestored [{c}+{line}+2048], tmm2", "tilestored [{c}+{line}+3072], tmm3",
                t = inout(reg) taps.as_ptr() => _, n = inout(reg) taps.len() => _, steps = in(reg) walk.steps,
                a0 = inout(reg) usize::from(add) => _, a1 = out(reg) _, b = out(reg) _, k = out(reg) _,
                line = in(reg) 64usize, row = in(reg) 2 * walk.row, c = in(reg) sums,
                step = const 2 * STEP,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _, options(nostack)
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, and no instruction between uses them.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}
