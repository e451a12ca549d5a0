//! Numbers as they stand in files, and as `f32`.

use super::half::{from_bf16, from_f16};
use crate::{Result, Shape, Tensor};

/// The types of numbers that weights come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    F16,
    Bf16,
    F64,
    /// PyTorch's batch norms count their batches in this type.
    I64,
}

impl Number {
    /// The tensor of this shape whose numbers are `bytes`, little-endian, of which there are as many as the shape needs.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn tensor(self, shape: Shape, bytes: &[u8]) -> Result<Tensor> {
        match self {
            Number::F32 => tensor(shape, bytes, f32::from_le_bytes),
            Number::F16 => tensor(shape, bytes, |b| from_f16(u16::from_le_bytes(b))),
            Number::Bf16 => tensor(shape, bytes, |b| from_bf16(u16::from_le_bytes(b))),
            Number::F64 => tensor(shape, bytes, |b| f64::from_le_bytes(b) as f32),
            Number::I64 => tensor(shape, bytes, |b| i64::from_le_bytes(b) as f32),
        }
    }

    /// Its bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Number::F16 | Number::Bf16 => 2,
            Number::F32 => 4,
            Number::F64 | Number::I64 => 8,
        }
    }
}

fn tensor<const N: usize>(shape: Shape, bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Result<Tensor> {
    Tensor::try_build(shape, |out| {
        let numbers = bytes.as_chunks::<N>().0.iter().map(|&chunk| number(chunk));
        out.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_becomes_f32() {
        let read = |number: Number, bytes: &[u8]| {
            assert_eq!(bytes.len(), 2 * number.size());
            number.tensor(Shape::new(&[2]).unwrap(), bytes).unwrap().to_vec()
        };
        let bytes = |each: [&[u8]; 2]| each.concat();
        assert_eq!(read(Number::F32, &bytes([&0.1f32.to_le_bytes(), &(-0.0f32).to_le_bytes()])), [0.1, -0.0]);
        assert_eq!(
            read(Number::F64, &bytes([&0.5f64.to_le_bytes(), &1e300f64.to_le_bytes()])),
            [0.5, f32::INFINITY]
        );
        assert_eq!(read(Number::I64, &bytes([&117i64.to_le_bytes(), &(-1i64).to_le_bytes()])), [117.0, -1.0]);
        assert_eq!(read(Number::F16, &[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(read(Number::Bf16, &[0x80, 0x3f, 0x49, 0xc0]), [1.0, -3.140_625]);
    }
}
