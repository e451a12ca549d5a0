//! The marks of a JPEG file (ITU-T T.81, annex B).

/// Ends the image.
const END: u8 = 0xd9;
/// Starts the pixels of a scan.
const START_OF_SCAN: u8 = 0xda;
/// Start of the frame of a baseline, extended or progressive image.
const START_OF_FRAME: std::ops::RangeInclusive<u8> = 0xc0..=0xc2;
/// The start of the frame of a progressive image.
const PROGRESSIVE: u8 = 0xc2;

/// Iterates over the segments of a file: the code of each mark, and the bytes after its length.
///
/// As in libjpeg, bytes before a mark that belong to none are passed over, which the pixels of a
/// scan are too.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let mark = self.rest.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0xff)?;
            let code = self.rest[mark + 1];
            let after = &self.rest[mark + 2..];
            self.rest = after;
            match code {
                // A byte of pixels; marks without a segment.
                0 | 1 | 0xd0..=0xd8 => {}
                END => return Some((END, &[])),
                code => {
                    let len = usize::from(u16::from_be_bytes([*after.first()?, *after.get(1)?]));
                    let segment = after.get(2..len).unwrap_or_default();
                    self.rest = after.get(2 + segment.len()..).unwrap_or_default();
                    return Some((code, segment));
                }
            }
        }
    }
}

/// Returns the segments after the mark that starts a file.
fn segments(bytes: &[u8]) -> Segments<'_> {
    Segments { rest: bytes.get(2..).unwrap_or_default() }
}

/// Returns whether a file has the mark of its end. Before the first scan the mark may be the end of
/// a thumbnail; after it, the two bytes cannot be anything else.
pub(super) fn has_end_mark(bytes: &[u8]) -> bool {
    let mut segments = segments(bytes);
    let has_scan = segments.any(|(code, _)| code == START_OF_SCAN);
    // The decoder found a scan: where it did is not known if the segments do not lead there.
    let rest = if has_scan { segments.rest } else { bytes };
    rest.windows(2).any(|pair| pair == [0xff, END])
}

/// Returns whether the scans of a file have every coefficient of every component, with all of its
/// bits. A progressive image has them in several scans.
pub(super) fn has_every_scan(bytes: &[u8]) -> bool {
    // For each component its identifier, and the lowest bit that is there of each coefficient.
    let mut components: Vec<(u8, [Option<u8>; 64])> = vec![];
    let mut is_progressive = false;
    let mut segments = segments(bytes);
    while let Some((code, segment)) = segments.next() {
        if START_OF_FRAME.contains(&code) {
            is_progressive = code == PROGRESSIVE;
            components = segment.get(6..).unwrap_or_default().chunks(3).map(|c| (c[0], [None; 64])).collect();
        } else if code == START_OF_SCAN {
            // A scan begins with a byte of pixels, of which 0xff is followed by 0.
            if matches!(segments.rest, [] | [0xff] | [0xff, 1..=0xff, ..]) {
                return false;
            }
            let Some((&count, rest)) = segment.split_first() else { return false };
            let Some((ids, &[start, end, bits])) = rest
                .split_at_checked(2 * usize::from(count))
                .and_then(|(ids, range)| Some((ids, range.first_chunk::<3>()?)))
            else {
                return false;
            };
            let (start, end, bit) = if is_progressive { (start, end, bits & 15) } else { (0, 63, 0) };
            for (id, coefficients) in &mut components {
                if ids.chunks(2).any(|component| component[0] == *id) {
                    let scanned = coefficients.iter_mut().take(usize::from(end) + 1).skip(usize::from(start));
                    scanned.for_each(|lowest| *lowest = Some(bit));
                }
            }
        }
    }
    !components.is_empty() && components.iter().all(|(_, lowest)| *lowest == [Some(0); 64])
}

/// Returns the bytes of a file without the mark of its end, with some bytes that follow the last
/// one, and then the mark.
pub(super) fn with_end_mark(bytes: &[u8], following: [u8; 64]) -> Vec<u8> {
    // The file may have been cut within a mark.
    let len = bytes.len() - bytes.iter().rev().take_while(|&&byte| byte == 0xff).count();
    // A mark among them would end the scan.
    let following = following.map(|byte| byte.min(0xfe));
    [&bytes[..len], &following, &[0xff, END]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_between_other_bytes() {
        let file = [
            0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9, // a thumbnail's end within a segment
            7, 0xff, 0, 9, // bytes that belong to no segment
            0xff, 0xff, 0xfe, 0, 2, 0xff, 0xda, 0, 2, 1, 2, 0xff, 0, 0xff, 0xd0, 3, 0xff, 0xd9,
        ];
        let codes: Vec<u8> = segments(&file).map(|(code, _)| code).collect();
        assert_eq!(codes, [0xe0, 0xfe, START_OF_SCAN, END]);
        assert!(has_end_mark(&file));
        assert!(!has_end_mark(&file[..file.len() - 1]));
    }

    #[test]
    fn a_file_of_any_bytes_is_no_panic() {
        let file =
            [0xff, 0xd8, 0xff, 0xc2, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 1];
        for len in 0..=file.len() {
            let (_, _) = (has_end_mark(&file[..len]), has_every_scan(&file[..len]));
            for at in 0..len {
                for byte in [0, 1, 0xff] {
                    let mut file = file[..len].to_vec();
                    file[at] = byte;
                    let (_, _) = (has_end_mark(&file), has_every_scan(&file));
                }
            }
        }
    }
}
