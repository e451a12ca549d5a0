//! Brightness, contrast, saturation, hue and sharpness, in the integers and the f32 of PIL.

/// Returns the byte between `from` and `to` that a factor gives, rounded toward 0; a factor above 1
/// goes beyond `to`, up to black or white.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let (from, to) = (f32::from(from), f32::from(to));
    // The cast rounds toward 0, and to the nearest byte what is outside.
    (from + factor * (to - from)) as u8
}

/// Computes the luma of a color with the weights of ITU-R 601-2, in integers as PIL does.
pub(in crate::data) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
}

/// Returns the colors of an image of 3 channels.
fn colors(pixels: &mut [u8]) -> impl Iterator<Item = &mut [u8; 3]> {
    pixels.as_chunks_mut().0.iter_mut()
}

pub(super) fn adjust_brightness(pixels: &mut [u8], factor: f32) {
    pixels.iter_mut().for_each(|x| *x = blend(0, *x, factor));
}

pub(super) fn adjust_contrast(pixels: &mut [u8], c: usize, factor: f32) {
    let sum: u64 = match c {
        3 => colors(pixels).map(|color| u64::from(luma(*color))).sum(),
        _ => pixels.iter().map(|&x| u64::from(x)).sum(),
    };
    let mean = (sum as f64 / (pixels.len() / c) as f64 + 0.5) as u8;
    pixels.iter_mut().for_each(|x| *x = blend(mean, *x, factor));
}

pub(super) fn adjust_saturation(pixels: &mut [u8], c: usize, factor: f32) {
    if c == 3 {
        for color in colors(pixels) {
            let gray = luma(*color);
            *color = color.map(|x| blend(gray, x, factor));
        }
    }
}

/// Adds a fraction of the circle to the hue of every pixel. The hue is a byte, so it is turned by
/// whole 256ths.
pub(super) fn adjust_hue(pixels: &mut [u8], c: usize, factor: f32) {
    if c == 3 {
        let turn = (f64::from(factor) * 255.0) as i32 as u8;
        for color in colors(pixels) {
            let [hue, saturation, value] = to_hsv(*color);
            *color = from_hsv([hue.wrapping_add(turn), saturation, value]);
        }
    }
}

/// Converts a color to hue, saturation and value, each a byte (Smith 1978, "Color gamut transform
/// pairs").
fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    // The distances from the largest component, in units of the range.
    let [red, green, blue] = [r, g, b].map(|x| f32::from(most - x) / range);
    let sixth = if r == most {
        f64::from(blue - green)
    } else if g == most {
        2.0 + f64::from(red) - f64::from(blue)
    } else {
        4.0 + f64::from(green) - f64::from(red)
    };
    let hue = (f64::from((sixth as f32) / 6.0) + 1.0) % 1.0;
    let saturation = range / f32::from(most);
    [(hue * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most]
}

/// Converts hue, saturation and value, each a byte, to a color.
fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sixths = f64::from(hue) * 6.0 / 255.0;
    let (sector, fraction) = (sixths.floor(), sixths.fract());
    let saturation = f64::from(saturation) / 255.0;
    let component = |part: f64| (f64::from(value) * (1.0 - saturation * part)).round() as u8;
    let (low, falling, rising) = (component(1.0), component(fraction), component(1.0 - fraction));
    match sector as u8 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

/// Blends the image with a smoothed one: the mean of the 3 x 3 pixels around each, its own with the
/// weight 5 of 13. Pixels at the edge are not smoothed.
pub(super) fn adjust_sharpness(pixels: &mut [u8], [h, w, c]: [usize; 3], factor: f32) {
    let image = pixels.to_vec();
    for y in 1..h.saturating_sub(1) {
        for x in 1..w.saturating_sub(1) {
            for k in 0..c {
                let at = |y: usize, x: usize| (y * w + x) * c + k;
                let around = (y - 1..y + 2).flat_map(|y| (x - 1..x + 2).map(move |x| at(y, x)));
                let sum: u32 = around.map(|i| u32::from(image[i])).sum();
                let center = image[at(y, x)];
                // Rounded to the nearest: a thirteenth is never half of a level.
                let smooth = (2 * (sum + 4 * u32::from(center)) + 13) / 26;
                pixels[at(y, x)] = blend(smooth as u8, center, factor);
            }
        }
    }
}
