//! The matrix products at the points, between the two transforms.

use crate::Isa;
use crate::grid::RowOffsets;
use crate::microkernel::Beta;
use crate::panel::{Layout, PanelProduct};
use std::marker::PhantomData;

/// A matrix per point, each as many elements after the one before.
#[derive(Clone, Copy)]
pub(super) struct PerPoint<'a> {
    /// The elements.
    pub(super) data: &'a [f32],
    /// Elements from one point to the next.
    pub(super) stride: usize,
}

/// The products `C[point] = A[point] * B[point] + beta * C[point]`.
pub(super) struct PointProducts<'a, L> {
    /// The panels.
    a: PerPoint<'a>,
    /// The packed columns.
    b: PerPoint<'a>,
    /// Number of terms of each sum.
    depth: usize,
    /// Number of columns, with those that fill the last vector.
    columns: usize,
    /// Whether B is read from memory, so that the columns of the next point are prefetched.
    streams_b: bool,
    beta: Beta,
    layout: PhantomData<L>,
}

impl<'a, L: Layout> PointProducts<'a, L> {
    /// The products of panels with packed columns, of `[depth, columns]`.
    pub(super) fn new(a: PerPoint<'a>, b: PerPoint<'a>, [depth, columns]: [usize; 2], beta: Beta) -> Self {
        PointProducts { a, b, depth, columns, streams_b: false, beta, layout: PhantomData }
    }

    /// Prefetches the columns of each point during the product of the one before.
    pub(super) fn stream_b(self) -> Self {
        PointProducts { streams_b: true, ..self }
    }

    /// Computes the product of one point into rows of its C.
    pub(super) fn compute(&self, isa: Isa, point: usize, rows: &RowOffsets, c: &mut [f32]) {
        let PointProducts { a, b, depth, columns, .. } = *self;
        let next_b = if self.streams_b { b.data.get((point + 1) * b.stride..) } else { None };
        let (a, b) = (&a.data[point * a.stride..][..a.stride], &b.data[point * b.stride..]);
        PanelProduct::<L>::new(a, depth, &b[..depth * columns], columns)
            .next_b(next_b.unwrap_or_default())
            .beta(self.beta)
            .compute(isa, rows, c, &mut []);
    }
}
