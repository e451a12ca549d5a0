//! The elements of tensors: where storages lie in a file, and how a view of one is read.

use super::{archive, value::View};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::{Arc, Mutex, PoisonError},
};

/// Where the bytes of a storage are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Location {
    /// In an archive.
    Archived(archive::Entry),
    /// In a stream: the first byte in the file, and the number of bytes.
    InStream { begin: u64, len: u64 },
}

impl Location {
    /// Returns the number of bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Location::Archived(entry) => entry.len,
            Location::InStream { len, .. } => *len,
        }
    }

    /// Reads `len` bytes from `begin` on.
    fn read(&self, file: &mut File, begin: u64, len: u64) -> io::Result<Vec<u8>> {
        match self {
            Location::Archived(entry) => entry.read(file, begin, len),
            Location::InStream { begin: storage, .. } => {
                let mut bytes = vec![0; len as usize];
                file.seek(SeekFrom::Start(storage + begin))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

impl View {
    /// Returns the bytes of the storage that the tensor's elements lie in: the first, and the
    /// number of them, which the machine has checked not to overflow.
    pub(super) fn window(&self) -> (u64, u64) {
        let size = self.element.size as u64;
        (self.offset * size, self.extent * size)
    }

    /// Reads the elements from the storage, row-major and in little-endian.
    pub(super) fn read(&self, file: &Arc<Mutex<File>>, location: Location) -> io::Result<Vec<u8>> {
        if self.extent == 0 {
            return Ok(vec![]);
        }
        let (begin, len) = self.window();
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let window = location.read(&mut file, begin, len)?;
        drop(file);
        Ok(if self.is_contiguous() { window } else { self.gathered(&window) })
    }

    /// Whether the elements lie in the storage as they are read.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        let axes = self.shape.iter().zip(&self.strides).rev();
        axes.filter(|(size, _)| **size != 1).all(|(size, stride)| {
            let fits = *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
    }

    /// Copies the elements out of their window, in the order of the shape.
    fn gathered(&self, window: &[u8]) -> Vec<u8> {
        let size = self.element.size;
        let count = self.shape.iter().product::<u64>() as usize;
        let mut elements = Vec::with_capacity(count * size);
        let mut index = vec![0; self.shape.len()];
        let mut at = 0;
        for _ in 0..count {
            elements.extend_from_slice(&window[at as usize * size..][..size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        elements
    }
}
