//! Hashes that tell whether two states or two datasets are the same.

use crate::autograd::State;

/// The 64-bit FNV-1a hash, which is the same on every machine and in every version.
pub(super) struct Fnv1a(u64);

impl Fnv1a {
    pub(super) fn new() -> Fnv1a {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    pub(super) fn finish(&self) -> u64 {
        self.0
    }
}

/// Returns a hash of all parameters and buffers of a model: two models have the same one if every
/// bit of their state is the same.
///
/// It is the 64-bit FNV-1a hash of the name, the shape and the elements of every tensor of
/// [`State::export`], in the order of the names. It is no protection against a forged file.
///
/// ```
/// use skipgrad::{Rng, models::ResNet, train::weights_hash};
/// let model = |seed| ResNet::cifar_paper(20, 10, &mut Rng::seed(seed));
/// assert_eq!(weights_hash(&model(1)?), weights_hash(&model(1)?));
/// assert_ne!(weights_hash(&model(1)?), weights_hash(&model(2)?));
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn weights_hash(model: &(impl State + ?Sized)) -> u64 {
    let mut hash = Fnv1a::new();
    for (name, tensor) in model.export() {
        hash.add(name.as_bytes());
        tensor.shape().iter().for_each(|&size| hash.add(&(size as u64).to_le_bytes()));
        tensor.data().iter().for_each(|x| hash.add(&x.to_le_bytes()));
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Param};

    #[test]
    fn it_is_fnv1a() {
        let mut hash = Fnv1a::new();
        assert_eq!(hash.finish(), 0xcbf2_9ce4_8422_2325);
        hash.add(b"foobar");
        assert_eq!(hash.finish(), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn every_bit_name_and_shape_counts() {
        let hash = |shape: &[usize], values: &[f32]| {
            weights_hash(&vec![Param::new(Tensor::new(shape, values).unwrap())])
        };
        let whole = hash(&[2], &[0.0, 1.0]);
        assert_eq!(whole, hash(&[2], &[0.0, 1.0]));
        assert_ne!(whole, hash(&[2], &[-0.0, 1.0]));
        assert_ne!(whole, hash(&[1, 2], &[0.0, 1.0]));
        let named =
            [Param::new(Tensor::new([1], [0.0]).unwrap()), Param::new(Tensor::new([1], [1.0]).unwrap())];
        assert_ne!(whole, weights_hash(&Vec::from(named)));
    }
}
