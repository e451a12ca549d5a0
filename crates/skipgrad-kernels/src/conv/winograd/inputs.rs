//! The transform `V = B^T d B` of tiles of inputs to their values at the points.

use super::tiles::{Channels, Image, PointPanels, StripColumns, Tiles};
use super::transforms::{F, Filtering};
use crate::dense::NormRelu;
use crate::panel::Layout;
use crate::prefetch::LINE;
use crate::simd::Simd;
use crate::{Isa, Task};
use std::marker::PhantomData;
use std::ops::Range;

/// Images that are read in tiles.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) x: &'a [f32],
    /// The normalization and ReLU that are applied to x first.
    pub(super) norm: Option<NormRelu<'a>>,
    pub(super) image: Image,
    /// The number of zeros above and left of an image or, if negative, of pixels that no output
    /// depends on.
    pub(super) before: [isize; 2],
    pub(super) tiles: Tiles,
}

impl Inputs<'_> {
    /// Asserts that x has the images that the tiles cover, and that the norm has as many channels.
    pub(super) fn check(&self) {
        let Image { height, width, channels, .. } = self.image;
        assert!(self.x.len() == self.tiles.images * height * width * channels);
        if let Some(norm) = self.norm {
            norm.check(channels);
        }
    }

    /// Transforms some tiles and channels of inputs that passed [`Inputs::check`], to a panel per
    /// point with `panel` elements from one to the next, in which a row is a tile.
    pub(super) fn transform<L: Layout, const I: usize, const O: usize>(
        &self,
        isa: Isa,
        tiles: Range<usize>,
        channels: Range<usize>,
        panel: usize,
        to: &mut [f32],
    ) where
        F: Filtering<I, O>,
    {
        isa.dispatch(TransformInputs::<L, I, O> {
            inputs: self,
            tiles,
            channels,
            panel,
            to,
            layout: PhantomData,
        });
    }
}

/// The task of [`Inputs::transform`].
struct TransformInputs<'a, 'b, L, const I: usize, const O: usize> {
    inputs: &'a Inputs<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    panel: usize,
    to: &'b mut [f32],
    layout: PhantomData<L>,
}

impl<L: Layout, const I: usize, const O: usize> Task for TransformInputs<'_, '_, L, I, O>
where
    F: Filtering<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let TransformInputs { inputs, tiles, channels, panel, to, .. } = self;
        assert!(channels.len() <= L::WIDTH && L::PITCH >= L::WIDTH + S::LANES);
        assert!(panel >= tiles.len() * L::PITCH && to.len() >= I * I * panel);
        assert!(tiles.end <= inputs.tiles.count() && channels.end <= inputs.image.channels);
        let mut columns = StripColumns::new(simd);
        let start = tiles.start;
        for strip in inputs.tiles.strips(tiles) {
            let row = strip.start - start;
            let to_next_strip = strip.len() * O * inputs.image.pixel;
            let window = inputs.tiles.window(strip, inputs.image, I, inputs.before);
            for first in (0..channels.len()).step_by(S::LANES) {
                let channel = channels.start + first;
                let count = (channels.len() - first).min(S::LANES);
                // The next cache line of each pixel, or after the last one the first line of a
                // pixel of the next strip.
                let next = if first + LINE < channels.len() { LINE } else { to_next_strip - first };
                let from = Channels {
                    first: inputs.x.as_ptr().wrapping_add(channel),
                    count,
                    prefetch: (first % LINE == 0).then_some(next as isize),
                };
                let to = to[row * L::PITCH + first..].as_mut_ptr();
                let to = PointPanels { first: to, tile: L::PITCH, point: panel };
                // SAFETY: `check` asserts that x has the images that the window is made for, and
                // the asserts above that they have the channels and that a row of a panel holds the
                // channels in whole vectors.
                unsafe {
                    match inputs.norm {
                        None => window.transform::<S, BT<I, O>, I, I>(simd, from, |x| x, &mut columns, to),
                        Some(norm) => {
                            let [scale, shift] = [norm.scale, norm.shift]
                                .map(|all| simd.load_up_to(all[channel..channel + count].as_ptr(), count));
                            let map = |x| simd.relu(simd.mul_add(x, scale, shift));
                            window.transform::<S, BT<I, O>, I, I>(simd, from, map, &mut columns, to);
                        }
                    }
                }
            }
        }
    }
}

/// The map `B^T`.
type BT<const I: usize, const O: usize> = <F as Filtering<I, O>>::Inputs;
