//! Copies of channels: concatenation of matrices `[rows, channels]`, slices of channels, and zero
//! padding. All of them copy short runs from rows of one length to rows of another.

use super::parallel::{PIECE, RowsMut, for_each_piece};
use super::rows::whole_rows;
use super::simd::Simd;
use super::{Isa, Task};
use std::ops::Range;

/// Concatenates matrices along their channels: row r of `out` is row r of each input, in order. An
/// input is a matrix and its number of channels; `out` has the sum of their channels.
///
/// # Panics
/// If a slice does not fit: all matrices must have the same number of whole rows, as in all kernels
/// of this file.
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

/// Computes `out[r, c] = x[r, range.start + c]` for `x[rows, channels]`, the inverse of
/// [`concat_channels`] for one of its inputs.
///
/// # Panics
/// If a slice or the range does not fit.
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

/// Pads the channels of `x[rows, channels]` with zeros to `out[rows, out_channels]`: x begins at
/// channel `before` of `out`. This is also the gradient of [`slice_channels`].
///
/// # Panics
/// If a slice does not fit, or `out` has too few channels.
pub fn pad_channels(
    isa: Isa,
    x: &[f32],
    channels: usize,
    before: usize,
    out: &mut [f32],
    out_channels: usize,
) {
    let rows = whole_rows(out.len(), out_channels);
    assert!(before + channels <= out_channels, "an output with the channels");
    assert_eq!(x.len(), rows * channels, "as many rows in all");
    for_each_range(out, out_channels, |rows, out| {
        out.fill(0.0);
        let x = Columns { data: &x[rows.start * channels..rows.end * channels], channels, start: 0 };
        isa.dispatch(CopyColumns { x, width: channels, out, channels: out_channels, start: before });
    });
}

/// Computes `out[r, start + c] = x[r, c]` for `x[rows, width]`. The other channels of
/// `out[rows, channels]` stay as they are.
///
/// # Panics
/// If a slice does not fit, or `out` has too few channels.
pub fn put_channels(isa: Isa, x: &[f32], width: usize, out: &mut [f32], channels: usize, start: usize) {
    let rows = whole_rows(out.len(), channels);
    assert!(start + width <= channels, "an output with the channels");
    assert_eq!(x.len(), rows * width, "as many rows in both");
    for_each_range(out, channels, |rows, out| {
        let x = Columns { data: &x[rows.start * width..rows.end * width], channels: width, start: 0 };
        isa.dispatch(CopyColumns { x, width, out, channels, start });
    });
}

/// Calls `f` with ranges of rows and their elements of `out`, in parallel.
fn for_each_range(out: &mut [f32], channels: usize, f: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    let rows = (PIECE / channels).max(1);
    for_each_piece(RowsMut { data: out, width: channels }, rows, |first, out| {
        f(first..first + out.data.len() / channels, out.data);
    });
}

/// A view of the channels from `start` on of `data[rows, channels]`.
struct Columns<'a> {
    data: &'a [f32],
    channels: usize,
    start: usize,
}

/// The task that copies `width` channels of every row of `x` to the channels from `start` on of
/// `out[rows, channels]`.
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
            // Runs are short (12 to 48 elements in a DenseNet): a call of memcpy would take longer
            // than the copy.
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
    fn channels_are_concatenated_and_sliced() {
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

                        let mut replaced = all.to_vec();
                        replaced.iter_mut().skip(start).step_by(channels).for_each(|first| *first = f32::NAN);
                        put_channels(isa, x, width, &mut replaced, channels, start);
                        assert!(width == 0 || replaced[..] == all[..]);

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
    fn inputs_with_different_rows_are_an_error() {
        concat_channels(Isa::active(), &[(&[1.0; 4], 2), (&[1.0; 3], 1)], &mut [0.0; 6]);
    }
}
