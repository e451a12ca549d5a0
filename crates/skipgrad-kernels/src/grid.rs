//! Where the rows of a product lie.

use std::ops::Range;

/// Where rows of C start: a grid of `images` x `lines` x `pixels` rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Images, lines of an image, pixels of a line.
    pub(crate) size: [usize; 3],
    /// Numbers from an image, a line, a pixel to the next.
    pub(crate) stride: [usize; 3],
    /// Where the first row starts.
    pub(crate) start: usize,
}

impl Grid {
    /// `rows` rows, `stride` apart.
    pub(crate) fn matrix(rows: usize, stride: usize) -> Grid {
        Grid { size: [1, 1, rows], stride: [0, 0, stride], start: 0 }
    }

    /// How many rows.
    pub(crate) fn num_rows(&self) -> usize {
        self.size.iter().product()
    }

    /// Asserts that `columns` numbers of every row lie within `len`, and that no two rows overlap.
    pub(super) fn check(&self, columns: usize, len: usize) {
        let mut extent = columns;
        for axis in (0..3).rev() {
            assert!(self.size[axis] <= 1 || self.stride[axis] >= extent, "rows of C overlap");
            extent += (self.size[axis] - 1) * self.stride[axis];
        }
        assert!(self.start + extent <= len, "C is too short");
    }

    /// Writes where each of `rows` starts.
    pub(super) fn offsets(&self, rows: Range<usize>, offsets: &mut [usize]) {
        let [_, lines, pixels] = self.size;
        let (mut line, mut pixel) = (rows.start / pixels, rows.start % pixels);
        for offset in offsets {
            let at = [line / lines, line % lines, pixel];
            *offset = self.start + at[0] * self.stride[0] + at[1] * self.stride[1] + at[2] * self.stride[2];
            pixel += 1;
            if pixel == pixels {
                (line, pixel) = (line + 1, 0);
            }
        }
    }
}
