//! What the bytes of a PNG file declare.

/// The header of a PNG file.
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bits of a pixel as they are packed: 1 for a mask, 64 for colors of 16 bits with
    /// transparency.
    bits: u64,
}

impl Header {
    /// Reads the header, or returns `None` if the decoder has to say what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let header = bytes.get(12..26)?.strip_prefix(b"IHDR")?;
        let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let samples = match header[9] {
            0 | 3 => 1,
            2 => 3,
            4 => 2,
            6 => 4,
            _ => return None,
        };
        Some(Header { width: number(0)?, height: number(4)?, bits: samples * u64::from(header[8]) })
    }

    /// Returns the bytes of the decoded image; with a palette it is larger.
    pub(super) fn image_len(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        pixels.saturating_mul(self.bits.div_ceil(8))
    }

    /// Returns the bytes of the image before they are compressed: each row has its pixels side by
    /// side, and a byte for the filter.
    pub(super) fn packed_len(&self) -> u64 {
        let row = 1 + (u64::from(self.width) * self.bits).div_ceil(8);
        row.saturating_mul(u64::from(self.height))
    }
}

/// Returns the bytes followed by the chunk of the end, without which the decoder would take pixels
/// for missing that are there.
pub(super) fn with_end_mark(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0, 0, 0, 0], b"IEND", &[0xae, 0x42, 0x60, 0x82]].concat()
}

/// Returns whether a PNG file has the chunk of its end.
pub(super) fn has_end_mark(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"IEND";
    // It almost always ends the file.
    bytes.get(bytes.len().saturating_sub(8)..).is_some_and(|end| end.starts_with(NAME))
        || bytes.windows(NAME.len()).any(|name| name == NAME)
}
