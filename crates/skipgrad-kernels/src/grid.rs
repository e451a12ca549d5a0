//! Where the rows of a product lie in memory.

use std::ops::Range;

/// The rows of C: a grid of `images` x `lines` x `pixels`, each a run of contiguous elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Number of images, of lines per image and of pixels per line.
    pub(crate) size: [usize; 3],
    /// Elements from one image, line and pixel to the next.
    pub(crate) stride: [usize; 3],
    /// The first element of the first row.
    pub(crate) start: usize,
}

impl Grid {
    /// A matrix of `rows` rows that are `stride` elements apart.
    pub(crate) fn matrix(rows: usize, stride: usize) -> Grid {
        Grid { size: [1, 1, rows], stride: [0, 0, stride], start: 0 }
    }

    /// Returns the number of rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.size.iter().product()
    }

    /// Asserts that `columns` elements of every row lie within `len` and that no two rows overlap.
    pub(super) fn check(&self, columns: usize, len: usize) {
        let mut extent = columns;
        for axis in (0..3).rev() {
            assert!(self.size[axis] <= 1 || self.stride[axis] >= extent, "rows of C overlap");
            extent += (self.size[axis] - 1) * self.stride[axis];
        }
        assert!(self.start + extent <= len, "C is too short");
    }

    /// Returns the first element of the row of a pixel: image, line and place in the line.
    pub(crate) fn offset(&self, at: [usize; 3]) -> usize {
        self.start + at[0] * self.stride[0] + at[1] * self.stride[1] + at[2] * self.stride[2]
    }

    /// Returns the first element of each of at most [`RowOffsets::MAX`] rows.
    pub(super) fn offsets(&self, rows: Range<usize>) -> RowOffsets {
        let [_, lines, pixels] = self.size;
        let (mut line, mut pixel) = (rows.start / pixels, rows.start % pixels);
        RowOffsets::new(rows.len(), |_| {
            let at = [line / lines, line % lines, pixel];
            pixel += 1;
            if pixel == pixels {
                (line, pixel) = (line + 1, 0);
            }
            self.offset(at)
        })
    }
}

/// The first element of each row of a block of C.
pub(crate) struct RowOffsets {
    offsets: [usize; RowOffsets::MAX],
    len: usize,
    max_offset: usize,
}

impl RowOffsets {
    /// The most rows of a block.
    pub(crate) const MAX: usize = 192;

    /// Calls `offset` for each row in order.
    #[inline]
    fn new(rows: usize, mut offset: impl FnMut(usize) -> usize) -> RowOffsets {
        let (mut offsets, mut max_offset) = ([0; RowOffsets::MAX], 0);
        for (row, to) in offsets[..rows].iter_mut().enumerate() {
            *to = offset(row);
            max_offset = max_offset.max(*to);
        }
        RowOffsets { offsets, len: rows, max_offset }
    }

    /// Rows of a matrix that are `stride` elements apart.
    pub(crate) fn strided(rows: usize, stride: usize) -> RowOffsets {
        RowOffsets::new(rows, |row| row * stride)
    }

    /// Returns the largest offset, or zero if there are no rows.
    pub(crate) fn max_offset(&self) -> usize {
        self.max_offset
    }
}

impl std::ops::Deref for RowOffsets {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.offsets[..self.len]
    }
}
