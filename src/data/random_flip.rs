//! Random mirror images.

use super::Transform;
use crate::Rng;

/// Flips the image, left to right, with probability one half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomHorizontalFlip;

impl Transform for RandomHorizontalFlip {
    fn apply(&self, pixels: &mut [f32], [_, w, c]: [usize; 3], rng: &mut Rng) {
        if rng.chance(0.5) {
            pixels.chunks_exact_mut(w * c).for_each(|row| flip(row, c));
        }
    }
}

/// Reverses the order of the pixels of a row; each pixel has `c` channels.
fn flip(row: &mut [f32], c: usize) {
    let w = row.len() / c;
    let (left, right) = row.split_at_mut(w / 2 * c);
    for (a, b) in left.chunks_exact_mut(c).zip(right.rchunks_exact_mut(c)) {
        a.swap_with_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_reverses_pixels_and_keeps_channels() {
        let mut odd = [130.0, 131.0, 120.0, 121.0, 110.0, 111.0];
        flip(&mut odd, 2);
        assert_eq!(odd, [110.0, 111.0, 120.0, 121.0, 130.0, 131.0]);
        let mut even = [1.0, 2.0, 3.0, 4.0];
        flip(&mut even, 1);
        assert_eq!(even, [4.0, 3.0, 2.0, 1.0]);
        let image: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut rng = Rng::seed(1);
        let flipped = (0..1000)
            .filter(|_| {
                let mut other = image.clone();
                RandomHorizontalFlip.apply(&mut other, [2, 3, 2], &mut rng);
                other != image
            })
            .count();
        assert!((440..560).contains(&flipped), "{flipped}");
    }
}
