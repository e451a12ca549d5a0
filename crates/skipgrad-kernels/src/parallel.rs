//! Work in pieces: a short slice is done by the calling thread, a longer one in parallel, in pieces
//! whose size does not depend on the number of threads.

/// The number of elements that a thread takes at once: 128 KiB, which is some ten microseconds of
/// memory traffic. Shorter slices stay on the calling thread.
pub(super) const PIECE: usize = 32 << 10;

/// Data that can be cut in two, as a slice can.
pub(super) trait Divide: Sized + Send {
    /// Returns the number of items.
    fn count(&self) -> usize;
    /// Returns the first `middle` items and the remaining ones.
    fn divide_at(self, middle: usize) -> (Self, Self);
}

impl<T: Send> Divide for &mut [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn divide_at(self, middle: usize) -> (Self, Self) {
        self.split_at_mut(middle)
    }
}

/// Slices of one length, which are cut at the same places.
impl<T: Send, const N: usize> Divide for [&mut [T]; N] {
    fn count(&self) -> usize {
        self.first().map_or(0, |slice| slice.len())
    }

    fn divide_at(mut self, middle: usize) -> (Self, Self) {
        let first = self.each_mut().map(|slice| {
            let (first, rest) = std::mem::take(slice).split_at_mut(middle);
            *slice = rest;
            first
        });
        (first, self)
    }
}

/// Data that may be absent.
impl<D: Divide> Divide for Option<D> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, D::count)
    }

    fn divide_at(self, middle: usize) -> (Self, Self) {
        self.map(|data| data.divide_at(middle)).unzip()
    }
}

/// Two kinds of data, which are cut at the same places. The first one says how many items there
/// are.
impl<A: Divide, B: Divide> Divide for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn divide_at(self, middle: usize) -> (Self, Self) {
        let (a, b) = (self.0.divide_at(middle), self.1.divide_at(middle));
        ((a.0, b.0), (a.1, b.1))
    }
}

/// A matrix whose items are its rows.
pub(super) struct RowsMut<'a> {
    pub(super) data: &'a mut [f32],
    /// The number of elements in a row, at least 1.
    pub(super) width: usize,
}

impl Divide for RowsMut<'_> {
    fn count(&self) -> usize {
        self.data.len() / self.width
    }

    fn divide_at(self, middle: usize) -> (Self, Self) {
        let RowsMut { data, width } = self;
        let (first, rest) = data.split_at_mut(middle * width);
        (RowsMut { data: first, width }, RowsMut { data: rest, width })
    }
}

/// Calls `f` with every piece of `data` and the index of its first item. All pieces have `size`
/// items, except that the last one may have fewer. A single piece is done by the calling thread,
/// several ones in parallel.
pub(super) fn for_each_piece<D: Divide>(data: D, size: usize, f: impl Fn(usize, D) + Sync) {
    divide(0, data, size, &f);
}

/// Calls `f` with the pieces of `data`, whose first item has the index `start`.
fn divide<D: Divide>(start: usize, data: D, size: usize, f: &(impl Fn(usize, D) + Sync)) {
    let count = data.count();
    if count <= size {
        return f(start, data);
    }
    let middle = count.div_ceil(size) / 2 * size;
    let (first, rest) = data.divide_at(middle);
    rayon::join(|| divide(start, first, size, f), || divide(start + middle, rest, size, f));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every item is in one piece, and all pieces begin at multiples of the size.
        #[test]
        fn pieces_are_the_whole(count in 0_usize..300, size in 1_usize..40, width in 1_usize..4) {
            let (mut items, mut others) = (vec![0; count], vec![0; count]);
            let mut rows = vec![0.0; count * width];
            let matrix = RowsMut { data: &mut rows, width };
            let data = (&mut items[..], (Some([&mut others[..]]), matrix));
            for_each_piece(data, size, |start, (items, (others, matrix))| {
                assert!(start.is_multiple_of(size) && items.len() <= size);
                assert!(items.len() == size || start + items.len() == count);
                let others = others.into_iter().flatten().flatten();
                let rows = matrix.data.chunks_exact_mut(width);
                for (i, ((item, other), row)) in items.iter_mut().zip(others).zip(rows).enumerate() {
                    *item += start + i;
                    *other += start + i;
                    row.iter_mut().for_each(|element| *element += (start + i) as f32);
                }
            });
            prop_assert!(items.iter().chain(&others).enumerate().all(|(i, item)| *item == i % count));
            prop_assert!(rows.iter().enumerate().all(|(i, row)| *row == (i / width) as f32));
        }
    }

    #[test]
    fn a_single_piece_stays_on_the_calling_thread() {
        let caller = std::thread::current().id();
        for_each_piece(&mut [0; 7][..], 7, |start, piece| {
            assert_eq!((start, piece.len(), std::thread::current().id()), (0, 7, caller));
        });
    }
}
