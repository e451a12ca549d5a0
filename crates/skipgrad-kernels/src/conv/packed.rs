//! Weights that serve many calls, as in inference: packed in the order in which the kernels read
//! them once, not in every call.

use super::forward::{all_groups, group_weights};
use super::groups::{merged, with_spread};
use super::{Algorithm, Conv2dGeometry, winograd};
use crate::pack::{BOperand, packed_len, prepack};
use crate::panel::RowMajor;
use crate::{ChannelViewMut, Epilogue, Isa};

/// The packed format of a convolution's weights. Its contents depend on the instruction set, the
/// size of the kernel, its channels and groups, not on the size or the number of images.
///
/// ```
/// use skipgrad_kernels::{Algorithm, Conv2dGeometry, Epilogue, Isa, Packing};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 2, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let (isa, packing) = (Isa::active(), Packing::fastest(Algorithm::Auto, &sizes));
/// let mut packed = vec![0.0; packing.len(isa, &sizes)];
/// packing.pack(isa, &sizes, &[10.0, 1.0], &mut packed);
/// let mut y = [0.0];
/// for (x, sum) in [([1.0, 2.0], 12.0), ([3.0, 4.0], 34.0)] {
///     packing.conv2d(isa, &sizes, &x, &packed, Epilogue::default(), &mut y);
///     assert_eq!(y, [sum]);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// The format of the direct sums, about as large as the weights.
    Direct,
    /// The format of Winograd's algorithm with tiles of 4x4 outputs, four times as large as the
    /// weights.
    Winograd4x4,
    /// The format of Winograd's algorithm with tiles of 2x2 outputs, 16/9 times as large as the
    /// weights.
    Winograd2x2,
}

impl Packing {
    /// Returns the format that was measured to be the fastest of those that the algorithm allows.
    /// With weights that are already transformed, Winograd's algorithm pays for fewer tiles than
    /// [`Algorithm::Auto`] takes it for otherwise.
    pub fn fastest(algorithm: Algorithm, sizes: &Conv2dGeometry) -> Packing {
        if algorithm == Algorithm::Direct || !winograd::possible(sizes) {
            return Packing::Direct;
        }
        match winograd::fastest_packed(sizes) {
            None => Packing::Direct,
            Some(2) => Packing::Winograd2x2,
            Some(_) => Packing::Winograd4x4,
        }
    }

    /// Returns the number of elements of the packed weights.
    #[allow(
        clippy::len_without_is_empty,
        reason = "it is the length of the packed weights, not of a collection"
    )]
    pub fn len(self, isa: Isa, sizes: &Conv2dGeometry) -> usize {
        match self {
            Packing::Direct => {
                let wide = merged(sizes);
                wide.groups * group_len(isa, &wide)
            }
            Packing::Winograd4x4 => winograd::packed_len::<6>(isa, sizes),
            Packing::Winograd2x2 => winograd::packed_len::<4>(isa, sizes),
        }
    }

    /// Packs w `[KH, KW, C/groups, OC]` on the calling thread.
    ///
    /// # Panics
    /// If a slice does not fit the geometry.
    pub fn pack(self, isa: Isa, sizes: &Conv2dGeometry, w: &[f32], packed: &mut [f32]) {
        assert!(
            w.len() == sizes.w_len() && packed.len() == self.len(isa, sizes),
            "a slice does not fit the geometry"
        );
        match self {
            Packing::Direct => with_spread(sizes, w, |sizes, w| {
                let len = group_len(isa, sizes);
                for group in 0..sizes.groups {
                    let to = &mut packed[group * len..][..len];
                    prepack::<RowMajor>(isa, &group_weights(sizes, w, group), sizes.group_out(), to);
                }
            }),
            Packing::Winograd4x4 => winograd::pack::<6, 4>(isa, sizes, w, packed),
            Packing::Winograd2x2 => winograd::pack::<4, 2>(isa, sizes, w, packed),
        }
    }

    /// Computes y of a convolution, as [`conv2d_with`](super::conv2d_with), with weights that
    /// [`Packing::pack`] packed.
    ///
    /// # Panics
    /// If a slice does not fit the geometry, or the geometry has no output.
    pub fn conv2d(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        packed: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
    ) {
        self.into_view(isa, sizes, x, packed, epilogue, ChannelViewMut::whole(y, sizes.out_channels));
    }

    /// Computes y as [`Packing::conv2d`] without an epilogue into channels of a wider matrix.
    ///
    /// # Panics
    /// In the cases in which [`Packing::conv2d`] does.
    pub fn conv2d_into(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        packed: &[f32],
        y: ChannelViewMut<'_>,
    ) {
        self.into_view(isa, sizes, x, packed, Epilogue::default(), y);
    }

    fn into_view(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        packed: &[f32],
        epilogue: Epilogue<'_>,
        y: ChannelViewMut<'_>,
    ) {
        sizes.check(x.len(), sizes.w_len(), sizes.y_len());
        y.check(sizes.batch * sizes.out_height() * sizes.out_width(), sizes.out_channels);
        epilogue.check(sizes.out_channels, y.data.len());
        assert!(packed.len() == self.len(isa, sizes), "a slice does not fit the geometry");
        match self {
            Packing::Direct => {
                let wide = merged(sizes);
                let len = group_len(isa, &wide);
                let weights = |group: usize| BOperand::Packed(&packed[group * len..][..len]);
                all_groups(isa, &wide, x, weights, epilogue, |_| (), y);
            }
            Packing::Winograd4x4 => winograd::forward_packed::<6, 4>(isa, sizes, x, packed, epilogue, y),
            Packing::Winograd2x2 => winograd::forward_packed::<4, 2>(isa, sizes, x, packed, epilogue, y),
        }
    }
}

/// Returns the number of packed elements of a group.
fn group_len(isa: Isa, sizes: &Conv2dGeometry) -> usize {
    packed_len::<RowMajor>(isa, sizes.group_out(), sizes.w_len() / sizes.out_channels.max(1))
}
