//! Tests of loads and stores of parts of vectors.

use super::Simd;
use crate::Task;
use crate::testing::each_isa;

/// The task that loads and stores every number of first lanes of a vector.
struct Parts;

impl Task for Parts {
    type Output = ();

    fn run<S: Simd>(self, simd: S) {
        let from: Vec<f32> = (1..=S::LANES).map(|i| i as f32).collect();
        for n in 0..=S::LANES {
            let first: Vec<f32> = from[..n].to_vec();
            // SAFETY: a slice of `n` elements is readable.
            let loaded = simd.to_array(unsafe { simd.load_first(first.as_ptr(), n) });
            assert_eq!(loaded[..n], first);
            assert!(loaded[n..S::LANES].iter().all(|&x| x == 0.0), "{n} of {}", S::LANES);

            let mut stored = vec![-1.0; S::LANES + 2];
            // SAFETY: all elements of `from` are readable, and `stored` has `n` after its first.
            unsafe { simd.store_first(stored.as_mut_ptr().add(1), simd.load(from.as_ptr()), n) };
            assert_eq!(stored[1..=n], first);
            assert!(stored[0] == -1.0 && stored[n + 1..].iter().all(|&x| x == -1.0), "{n} of {}", S::LANES);
        }
    }
}

#[test]
fn parts_of_vectors_touch_no_other_element() {
    each_isa().into_iter().for_each(|isa| isa.dispatch(Parts));
}
