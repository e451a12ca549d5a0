//! Moving channels: matrices `[rows, channels]` beside each other, ranges of channels, zeros around them. All are copies of
//! short runs from rows of one length to rows of another.

use super::parallel::{PIECE, RowsMut, for_each_piece};
use super::rows::whole_rows;
use super::simd::Simd;
use super::{Isa, Task};
use std::ops::Range;

/// `out[r]` = the rows `r` of all inputs one behind the other. Inputs are (numbers, channels); the channels of `out` are their
/// sum. Panics unless all have the same number of whole rows.
///
/// ```
/// use skipgrad_kernels::{Isa, concat_channels};
/// let mut out = [0.0; 6];
/// concat_channels(Isa::active(), &[(&[1.0, 2.0, 3.0, 4.0], 2), (&[5.0, 6.0], 1)], &mut out);
/// assert_eq!(out, [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
/// ```
pub fn concat_channels(isa: Isa, inputs: &[(&[f32], usize)], out: &mut [f32]) {
    let channels: usize = inputs.iter().map(|(_, channels)| channels).sum();
    let rows = whole_rows(out.len(), channels);
    assert!(inputs.iter().all(|(x, channels)| x.len() == rows * channels), "as many rows in all");
    for_each_range(out, channels, |rows, out| {
        let mut start = 0;
        for &(x, width) in inputs {
            let x = &x[rows.start * width..rows.end * width];
            isa.dispatch(CopyColumns {
                x: Columns { data: x, channels: width, start: 0 },
                width,
                out,
                channels,
                start,
            });
            start += width;
        }
    });
}

/// `out[r, c]` = `x[r, range.start + c]` for `x[rows, channels]`: one part of [`concat_channels`] taken back.
pub fn slice_channels(isa: Isa, x: &[f32], channels: usize, range: Range<usize>, out: &mut [f32]) {
    let rows = whole_rows(x.len(), channels);
    assert!(range.start <= range.end && range.end <= channels, "a range of the channels");
    let width = range.len();
    assert_eq!(out.len(), rows * width, "as many rows in all");
    for_each_range(out, width, |rows, out| {
        let x = &x[rows.start * channels..rows.end * channels];
        let x = Columns { data: x, channels, start: range.start };
        isa.dispatch(CopyColumns { x, width, out, channels: width, start: 0 });
    });
}

/// `out[r]` = zeros, then the row `r` of `x[rows, channels]` from channel `before` on, then zeros, for `out[rows, out_channels]`:
/// channels padded with zeros, and the gradient of [`slice_channels`].
pub fn pad_channels(
    isa: Isa,
    x: &[f32],
    channels: usize,
    before: usize,
    out: &mut [f32],
    out_channels: usize,
) {
    let rows = whole_rows(out.len(), out_channels);
    assert!(before + channels <= out_channels, "room for the channels");
    assert_eq!(x.len(), rows * channels, "as many rows in all");
    for_each_range(out, out_channels, |rows, out| {
        out.fill(0.0);
        let x = Columns { data: &x[rows.start * channels..rows.end * channels], channels, start: 0 };
        isa.dispatch(CopyColumns { x, width: channels, out, channels: out_channels, start: before });
    });
}

/// `out[r, start + c]` = `x[r, c]` for `x[rows, width]`: the slot of a part in `out[rows, channels]`, whose other channels stay
/// as they are.
pub fn put_channels(isa: Isa, x: &[f32], width: usize, out: &mut [f32], channels: usize, start: usize) {
    let rows = whole_rows(out.len(), channels);
    assert!(start + width <= channels, "room for the channels");
    assert_eq!(x.len(), rows * width, "as many rows in both");
    for_each_range(out, channels, |rows, out| {
        let x = Columns { data: &x[rows.start * width..rows.end * width], channels: width, start: 0 };
        isa.dispatch(CopyColumns { x, width, out, channels, start });
    });
}

/// Calls `f` with ranges of rows and what `out` holds of them, in parallel.
fn for_each_range(out: &mut [f32], channels: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows = (PIECE / channels).max(1);
    for_each_piece(RowsMut { data: out, width: channels }, rows, |first, out| {
        f(first..first + out.data.len() / channels, out.data);
    });
}

/// The channels from `start` on of `data[rows, channels]`.
struct Columns<'a> {
    data: &'a [f32],
    channels: usize,
    start: usize,
}

/// Copies `width` channels of every row of `x` to the channels from `start` on of `out[rows, channels]`.
struct CopyColumns<'a> {
    x: Columns<'a>,
    width: usize,
    out: &'a mut [f32],
    channels: usize,
    start: usize,
}

impl Task for CopyColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        if self.width == 0 {
            return;
        }
        let rows = self.x.data.chunks_exact(self.x.channels).zip(self.out.chunks_exact_mut(self.channels));
        for (x, out) in rows {
            let x = &x[self.x.start..self.x.start + self.width];
            let out = &mut out[self.start..self.start + self.width];
            // Runs are short (12 to 48 numbers in a DenseNet), for which a call of memcpy takes longer than the copy.
            let (x, x_rest) = x.as_chunks::<4>();
            let (out, out_rest) = out.as_chunks_mut::<4>();
            for (out, x) in out.iter_mut().zip(x) {
                *out = *x;
            }
            for (out, x) in out_rest.iter_mut().zip(x_rest) {
                *out = *x;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, each_isa, normals};
    use super::*;

    #[test]
    fn parts_are_put_beside_each_other_and_taken_back() {
        for isa in each_isa() {
            for widths in [&[1][..], &[3, 5, 0, 12], &[16, 1, 33], &[64, 32, 32], &[7, 130]] {
                let channels: usize = widths.iter().sum();
                for rows in [0, 1, 9, PIECE / channels, PIECE / channels + 1] {
                    let parts: Vec<Vec<f32>> = widths.iter().map(|w| normals(rows * w, *w as u64)).collect();
                    let inputs: Vec<(&[f32], usize)> =
                        parts.iter().zip(widths).map(|(x, w)| (&x[..], *w)).collect();
                    let mut all = Guarded::new(rows * channels);
                    concat_channels(isa, &inputs, &mut all);

                    let mut start = 0;
                    for (x, &width) in parts.iter().zip(widths) {
                        let place = |i: usize| i / width * channels + start + i % width;
                        assert!((0..x.len()).all(|i| all[place(i)] == x[i]), "{widths:?} {rows}");
                        let mut back = Guarded::new(x.len());
                        slice_channels(isa, &all, channels, start..start + width, &mut back);
                        assert_eq!(back[..], x[..]);

                        let mut slot = all.to_vec();
                        slot.iter_mut().skip(start).step_by(channels).for_each(|first| *first = f32::NAN);
                        put_channels(isa, x, width, &mut slot, channels, start);
                        assert!(width == 0 || slot[..] == all[..]);

                        let mut padded = Guarded::new(rows * channels);
                        pad_channels(isa, x, width, start, &mut padded, channels);
                        for (i, &value) in padded.iter().enumerate() {
                            let inside = (start..start + width).contains(&(i % channels));
                            assert_eq!(value, if inside { all[i] } else { 0.0 });
                        }
                        start += width;
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "as many rows in all")]
    fn parts_of_different_lengths_are_a_broken_promise() {
        concat_channels(Isa::active(), &[(&[1.0; 4], 2), (&[1.0; 3], 1)], &mut [0.0; 6]);
    }
}
