//! A heat map over an image, as PNG.

use super::HeatMap;

/// Height and width in the picture of each pixel of the image.
const SCALE: usize = 8;
/// Width of the white gap between the image and the heat map.
const GAP: usize = SCALE;

/// Encodes an image `[height, width, 3]` with values in [0, 1], and next to it the same image under
/// the heat map.
pub(crate) fn png(
    image: &[f32],
    [height, width]: [usize; 2],
    map: &HeatMap,
) -> Result<Vec<u8>, png::EncodingError> {
    let [rows, columns] = [height * SCALE, width * SCALE];
    let heat = resized(map, [rows, columns]);
    let mut bytes = Vec::with_capacity(rows * (2 * columns + GAP) * 3);
    let mut put = |color: [f32; 3]| bytes.extend(color.map(|x| (x.clamp(0.0, 1.0) * 255.0).round() as u8));
    for y in 0..rows {
        let pixel = |x: usize| {
            let at = (y / SCALE * width + x / SCALE) * 3;
            [image[at], image[at + 1], image[at + 2]]
        };
        (0..columns).for_each(|x| put(pixel(x)));
        (0..GAP).for_each(|_| put([1.0; 3]));
        for x in 0..columns {
            let (below, above) = (pixel(x), color(heat[y * columns + x]));
            put([0, 1, 2].map(|c| 0.5 * below[c] + 0.5 * above[c]));
        }
    }
    let mut file = vec![];
    let mut encoder = png::Encoder::new(&mut file, (2 * columns + GAP) as u32, rows as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&bytes)?;
    Ok(file)
}

/// Resizes a heat map, bilinearly between the centers of its pixels.
pub(crate) fn resized(map: &HeatMap, [rows, columns]: [usize; 2]) -> Vec<f32> {
    let [height, width] = map.size;
    let between = |to: usize, at: usize, from: usize| {
        let x = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
        (x as usize, (x as usize + 1).min(from - 1), x.fract())
    };
    let mut resized = Vec::with_capacity(rows * columns);
    for y in 0..rows {
        let (above, below, down) = between(rows, y, height);
        for x in 0..columns {
            let (left, right, across) = between(columns, x, width);
            let row = |y: usize| {
                let (left, right) = (map.heat[y * width + left], map.heat[y * width + right]);
                left + across * (right - left)
            };
            resized.push(row(above) + down * (row(below) - row(above)));
        }
    }
    resized
}

/// Maps [0, 1] to colors from blue through green to red.
fn color(heat: f32) -> [f32; 3] {
    [3.0, 2.0, 1.0].map(|middle| (1.5 - (4.0 * heat - middle).abs()).clamp(0.0, 1.0))
}
