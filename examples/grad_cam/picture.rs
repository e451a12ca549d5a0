//! A heat map over an image, as PNG.

use skipgrad::graph::HeatMap;

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
    let heat = map.resized([rows, columns]);
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

/// Maps [0, 1] to colors from blue through green to red.
fn color(heat: f32) -> [f32; 3] {
    [3.0, 2.0, 1.0].map(|middle| (1.5 - (4.0 * heat - middle).abs()).clamp(0.0, 1.0))
}
