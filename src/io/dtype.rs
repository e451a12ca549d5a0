//! Element types of tensors in weights files, and their conversion to `f32`.

use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::{Result, Shape, Tensor};

/// An element type of weights files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DType {
    F32,
    F16,
    Bf16,
    F64,
    /// The type of `num_batches_tracked` in PyTorch's batch normalization.
    I64,
}

impl DType {
    /// Converts little-endian `bytes`, exactly as many as `shape` needs, to a tensor of `f32`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn to_tensor(self, shape: Shape, bytes: &[u8]) -> Result<Tensor> {
        match self {
            DType::F32 => convert(shape, bytes, f32::from_le_bytes),
            DType::F16 => convert(shape, bytes, |b| f16_to_f32(u16::from_le_bytes(b))),
            DType::Bf16 => convert(shape, bytes, |b| bf16_to_f32(u16::from_le_bytes(b))),
            DType::F64 => convert(shape, bytes, |b| f64::from_le_bytes(b) as f32),
            DType::I64 => convert(shape, bytes, |b| i64::from_le_bytes(b) as f32),
        }
    }

    /// Converts the elements of a tensor, rounded, to little-endian bytes.
    pub(super) fn to_bytes(self, tensor: &Tensor) -> Vec<u8> {
        let elements = tensor.data().iter();
        match self {
            DType::F32 => elements.flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => elements.flat_map(|&x| f32_to_f16(x).to_le_bytes()).collect(),
            DType::Bf16 => elements.flat_map(|&x| f32_to_bf16(x).to_le_bytes()).collect(),
            DType::F64 => elements.flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
            DType::I64 => elements.flat_map(|&x| (x as i64).to_le_bytes()).collect(),
        }
    }

    /// Returns the size of an element in bytes.
    pub(super) fn size(self) -> usize {
        match self {
            DType::F16 | DType::Bf16 => 2,
            DType::F32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }
}

fn convert<const N: usize>(shape: Shape, bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Result<Tensor> {
    Tensor::try_build(shape, |out| {
        let elements = bytes.as_chunks::<N>().0.iter().map(|&chunk| element(chunk));
        out.iter_mut().zip(elements).for_each(|(to, element)| *to = element);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_becomes_f32() {
        let read = |dtype: DType, bytes: &[u8]| {
            assert_eq!(bytes.len(), 2 * dtype.size());
            dtype.to_tensor(Shape::new(&[2]).unwrap(), bytes).unwrap().to_vec()
        };
        let bytes = |each: [&[u8]; 2]| each.concat();
        assert_eq!(read(DType::F32, &bytes([&0.1f32.to_le_bytes(), &(-0.0f32).to_le_bytes()])), [0.1, -0.0]);
        assert_eq!(
            read(DType::F64, &bytes([&0.5f64.to_le_bytes(), &1e300f64.to_le_bytes()])),
            [0.5, f32::INFINITY]
        );
        assert_eq!(read(DType::I64, &bytes([&117i64.to_le_bytes(), &(-1i64).to_le_bytes()])), [117.0, -1.0]);
        assert_eq!(read(DType::F16, &[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(read(DType::Bf16, &[0x80, 0x3f, 0x49, 0xc0]), [1.0, -3.140_625]);
    }
}
