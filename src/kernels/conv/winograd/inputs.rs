//! `V = B^T d B`: tiles of the inputs at the points.

use super::tiles::{Image, Tiles};
use super::transforms::{F, Filtering, Transform};
use crate::kernels::dense::NormRelu;
use crate::kernels::microkernel::Layout;
use crate::kernels::simd::{LINE, Simd};
use crate::kernels::{Isa, Task};
use std::marker::PhantomData;
use std::ops::Range;

/// Images that are read in tiles.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) x: &'a [f32],
    /// What is done to x before.
    pub(super) norm: Option<NormRelu<'a>>,
    pub(super) image: Image,
    /// Zeros above and left of an image, or, below zero, pixels that no output sees.
    pub(super) before: [isize; 2],
    pub(super) tiles: Tiles,
}

impl Inputs<'_> {
    /// Asserts that x has as many images as there are tiles of, and the norm as many channels.
    pub(super) fn check(&self) {
        let Image { height, width, channels, .. } = self.image;
        assert!(self.x.len() == self.tiles.images * height * width * channels);
        if let Some(norm) = self.norm {
            norm.check(channels);
        }
    }

    /// Reads some tiles and channels of inputs that were checked: a row of a panel a tile, a panel a point, so many numbers from a
    /// panel to the next.
    pub(super) fn read<L: Layout, const I: usize, const O: usize>(
        &self,
        isa: Isa,
        tiles: Range<usize>,
        channels: Range<usize>,
        panel: usize,
        to: &mut [f32],
    ) where
        F: Filtering<I, O>,
    {
        isa.dispatch(Read::<L, I, O> { inputs: self, tiles, channels, panel, to, layout: PhantomData });
    }
}

/// [`Inputs::read`].
struct Read<'a, 'b, L, const I: usize, const O: usize> {
    inputs: &'a Inputs<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    panel: usize,
    to: &'b mut [f32],
    layout: PhantomData<L>,
}

impl<L: Layout, const I: usize, const O: usize> Task for Read<'_, '_, L, I, O>
where
    F: Filtering<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Read { inputs, tiles, channels, panel, to, .. } = self;
        assert!(channels.len() <= L::WIDTH && L::PITCH >= L::WIDTH + S::LANES);
        assert!(panel >= tiles.len() * L::PITCH && to.len() >= I * I * panel);
        assert!(tiles.end <= inputs.tiles.count() && channels.end <= inputs.image.channels);
        for (row, tile) in tiles.enumerate() {
            let window_of = |tile| inputs.tiles.window(tile, inputs.image, I, inputs.before);
            let (window, next) = (window_of(tile), window_of(tile + 1));
            for first in (0..channels.len()).step_by(S::LANES) {
                let channel = channels.start + first;
                let from = inputs.x.as_ptr().wrapping_add(channel);
                if first % LINE == 0 {
                    next.prefetch(from);
                }
                // SAFETY: `check` asserts that x has the images that the window is made for; channels are in range.
                let half = unsafe {
                    window.read_inputs::<S, I, O>(simd, from, channels.len() - first, inputs.norm, channel)
                };
                let to = to.as_mut_ptr().wrapping_add(row * L::PITCH + first);
                for (i, half) in half.iter().enumerate() {
                    let values = <F as Filtering<I, O>>::Input::apply(simd, *half);
                    for (j, value) in values.into_iter().enumerate() {
                        // SAFETY: a row of a panel has room for the channels in whole vectors, see the asserts.
                        unsafe { simd.store(to.add((i * I + j) * panel), value) };
                    }
                }
            }
        }
    }
}
