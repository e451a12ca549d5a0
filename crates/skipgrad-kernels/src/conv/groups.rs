//! Narrow groups, merged into wider ones.
//!
//! A product of four columns, or of the single one of a depthwise convolution, would leave most
//! lanes of a vector idle and copy patches of single elements. So a few neighboring groups are
//! computed as one wider group, whose weights are zero between channels that do not belong
//! together: the zeros cost multiplications, but lanes that would be idle otherwise do them. (A
//! side effect: an infinite or NaN input reaches, as NaN, the outputs of the groups that are merged
//! with its own.)

use super::Conv2dGeometry;
use crate::scratch;

/// The columns of about one micro-tile.
const COLUMNS: usize = 16;
/// The cost of a patch besides its multiplications, in products of [`COLUMNS`].
const OVERHEAD: usize = 40;

/// Returns the geometry with as many groups merged as is fastest, which may be the same geometry.
pub(super) fn merged(sizes: &Conv2dGeometry) -> Conv2dGeometry {
    let cost = |together: usize| {
        let depth = sizes.kernel[0] * sizes.kernel[1] * sizes.group_in() * together;
        let groups = sizes.groups / together;
        (depth + OVERHEAD) * (sizes.group_out() * together).div_ceil(COLUMNS) * groups
    };
    let divisors = (1..=sizes.groups).filter(|together| sizes.groups.is_multiple_of(*together));
    let together = divisors.min_by_key(|&together| cost(together)).unwrap_or(1);
    Conv2dGeometry { groups: sizes.groups / together, ..*sizes }
}

/// Calls `f` with the merged geometry and the weights for it.
pub(super) fn with_spread<T>(
    sizes: &Conv2dGeometry,
    w: &[f32],
    f: impl FnOnce(&Conv2dGeometry, &[f32]) -> T,
) -> T {
    let wide = merged(sizes);
    if wide.groups == sizes.groups {
        return f(sizes, w);
    }
    scratch::with(wide.w_len(), |spread| {
        spread.fill(0.0);
        each_block(sizes, &wide, |narrow, at| {
            spread[at..at + sizes.group_out()].copy_from_slice(&w[narrow..][..sizes.group_out()])
        });
        f(&wide, spread)
    })
}

/// Calls `f` with the merged geometry and a buffer for the gradient of its weights, and copies the
/// gradient from there to `dw`.
pub(super) fn with_collected(
    sizes: &Conv2dGeometry,
    dw: &mut [f32],
    f: impl FnOnce(&Conv2dGeometry, &mut [f32]),
) {
    let wide = merged(sizes);
    if wide.groups == sizes.groups {
        return f(sizes, dw);
    }
    scratch::with(wide.w_len(), |spread| {
        f(&wide, spread);
        each_block(sizes, &wide, |narrow, at| {
            dw[narrow..][..sizes.group_out()].copy_from_slice(&spread[at..at + sizes.group_out()])
        });
    });
}

/// Calls `block` with the positions, in narrow and in wide weights, of the weights from each input
/// channel of each tap to the output channels of each group.
fn each_block(sizes: &Conv2dGeometry, wide: &Conv2dGeometry, mut block: impl FnMut(usize, usize)) {
    let (group_in, group_out) = (sizes.group_in(), sizes.group_out());
    let together = sizes.groups / wide.groups;
    for tap in 0..sizes.kernel[0] * sizes.kernel[1] {
        for channel in 0..group_in {
            for group in 0..sizes.groups {
                let narrow = tap * group_in + channel;
                let wide = tap * wide.group_in() + group % together * group_in + channel;
                let output = group * group_out;
                block(narrow * sizes.out_channels + output, wide * sizes.out_channels + output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(channels: [usize; 2], groups: usize) -> usize {
        let sizes = Conv2dGeometry {
            batch: 1,
            height: 8,
            width: 8,
            in_channels: channels[0],
            out_channels: channels[1],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [[1, 1], [1, 1]],
            dilation: [1, 1],
            groups,
        };
        merged(&sizes).groups
    }

    #[test]
    fn only_narrow_groups_are_merged() {
        assert_eq!(groups([64, 64], 1), 1);
        assert_eq!(groups([64, 64], 4), 4);
        assert_eq!(groups([128, 128], 32), 8);
        assert_eq!(groups([64, 64], 64), 4);
        assert_eq!(groups([101, 101], 101), 101);
    }
}
