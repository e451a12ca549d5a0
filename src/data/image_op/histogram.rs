//! Operations that follow from how often each byte occurs in a channel.

/// Replaces the bytes of each of `c` channels by those of a table, which is made of their
/// histogram.
fn map_channels(pixels: &mut [u8], c: usize, table: impl Fn(&[usize; 256]) -> Option<[u8; 256]>) {
    for k in 0..c {
        let mut histogram = [0; 256];
        pixels.iter().skip(k).step_by(c).for_each(|&x| histogram[usize::from(x)] += 1);
        if let Some(table) = table(&histogram) {
            pixels.iter_mut().skip(k).step_by(c).for_each(|x| *x = table[usize::from(*x)]);
        }
    }
}

/// Stretches each channel to all of 0 to 255; a channel of one byte stays as it is.
pub(super) fn autocontrast(pixels: &mut [u8], c: usize) {
    map_channels(pixels, c, |histogram| {
        let darkest = histogram.iter().position(|&count| count > 0)?;
        let lightest = histogram.iter().rposition(|&count| count > 0)?;
        if darkest == lightest {
            return None;
        }
        let scale = 255.0 / (lightest - darkest) as f64;
        let offset = -(darkest as f64) * scale;
        Some(std::array::from_fn(|byte| (byte as f64 * scale + offset) as u8))
    });
}

/// Gives each channel a flat histogram, as far as a table of bytes can: a byte becomes the number
/// of pixels below it, in steps of a 255th of all pixels that are not of the lightest byte.
pub(super) fn equalize(pixels: &mut [u8], c: usize) {
    map_channels(pixels, c, |histogram| {
        let lightest = histogram.iter().rposition(|&count| count > 0)?;
        let below: usize = histogram[..lightest].iter().sum();
        let step = below / 255;
        if step == 0 {
            return None;
        }
        let mut sum = step / 2;
        Some(std::array::from_fn(|byte| {
            let level = (sum / step).min(255) as u8;
            sum += histogram[byte];
            level
        }))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_stretched_apart() {
        let mut pixels = [10, 7, 20, 7, 30, 7];
        autocontrast(&mut pixels, 2);
        assert_eq!(pixels, [0, 7, 127, 7, 255, 7]);
    }

    #[test]
    fn an_equalized_ramp_is_flat_and_few_pixels_stay() {
        // Each byte up to 63 occurs 16 times: 1008 of 1024 are below the lightest, in steps of 3.
        let mut pixels: Vec<u8> = (0..1024).map(|i| (i / 16) as u8).collect();
        equalize(&mut pixels, 1);
        let expected: Vec<u8> = (0..1024usize).map(|i| ((1 + i / 16 * 16) / 3).min(255) as u8).collect();
        assert_eq!(pixels, expected);
        let mut few = [3, 9, 200];
        equalize(&mut few, 1);
        assert_eq!(few, [3, 9, 200]);
    }
}
