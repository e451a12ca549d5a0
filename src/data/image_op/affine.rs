//! Rotation, scaling, shearing and translation.

use crate::{Error, Result};

/// How a pixel is read between those of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interpolation {
    /// The pixel that is nearest (`InterpolationMode.NEAREST`), the default of torchvision's
    /// transforms.
    #[default]
    Nearest,
    /// The four pixels around, by their distances (`InterpolationMode.BILINEAR`), which
    /// torchvision's references use.
    Bilinear,
}

/// An affine transform of an image that keeps its center, or another point, in place, as
/// torchvision's functional `affine` for an image of PIL.
///
/// The image is sheared, scaled, rotated and then translated. Pixels that come from outside of the
/// image have the gray level `fill`.
///
/// ```
/// use skipgrad::{Rng, data::{Affine, ImageOp, Transform}};
/// let mut pixels = [1.0, 0.0, 0.0, 0.0];
/// let rotation = ImageOp::Affine(Affine::rotation(90.0)); // counterclockwise
/// rotation.apply(&mut pixels, [2, 2, 1], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.0, 0.0, 1.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Affine {
    /// Angle of the rotation in degrees, clockwise.
    pub angle: f64,
    /// Translation in pixels, to the right and down.
    pub translate: [f64; 2],
    /// Factor of the size, above 0.
    pub scale: f64,
    /// Angles of the shear in degrees, parallel to the rows and to the columns.
    pub shear: [f64; 2],
    /// The point that only the translation moves, `[x, y]` in pixels from the upper left corner;
    /// by default the center.
    pub center: Option<[f64; 2]>,
    /// How pixels are read.
    pub interpolation: Interpolation,
    /// Gray level in [0, 1] of what comes from outside of the image.
    pub fill: f32,
}

impl Affine {
    /// Creates the transform that changes nothing, with nearest pixels, and black outside.
    pub fn new() -> Affine {
        Affine {
            angle: 0.0,
            translate: [0.0; 2],
            scale: 1.0,
            shear: [0.0; 2],
            center: None,
            interpolation: Interpolation::Nearest,
            fill: 0.0,
        }
    }

    /// Creates a rotation around the center, in degrees counterclockwise, as torchvision's
    /// functional `rotate`. (The angle of `affine` is clockwise.)
    pub fn rotation(degrees: f64) -> Affine {
        Affine::new().angle(-degrees)
    }

    /// Sets the angle of the rotation, in degrees clockwise.
    #[must_use]
    pub fn angle(self, angle: f64) -> Affine {
        Affine { angle, ..self }
    }

    /// Sets the translation in pixels, to the right and down.
    #[must_use]
    pub fn translate(self, translate: [f64; 2]) -> Affine {
        Affine { translate, ..self }
    }

    /// Sets the factor of the size, above 0.
    #[must_use]
    pub fn scale(self, scale: f64) -> Affine {
        Affine { scale, ..self }
    }

    /// Sets the angles of the shear in degrees, parallel to the rows and to the columns.
    #[must_use]
    pub fn shear(self, shear: [f64; 2]) -> Affine {
        Affine { shear, ..self }
    }

    /// Sets the point that only the translation moves, `[x, y]` in pixels from the upper left
    /// corner.
    #[must_use]
    pub fn center(self, center: [f64; 2]) -> Affine {
        Affine { center: Some(center), ..self }
    }

    /// Sets how pixels are read.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> Affine {
        Affine { interpolation, ..self }
    }

    /// Sets the gray level in [0, 1] of what comes from outside of the image.
    #[must_use]
    pub fn fill(self, fill: f32) -> Affine {
        Affine { fill, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        let error = |argument, expected, found: &dyn std::fmt::Debug| {
            Err(Error::argument("affine", argument, expected, format_args!("{found:?}")))
        };
        let finite = |values: &[f64]| values.iter().all(|x| x.is_finite());
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return error("scale", "a finite number above 0", &self.scale);
        }
        if !self.angle.is_finite() {
            return error("angle", "a finite number of degrees", &self.angle);
        }
        if !self.shear.iter().all(|degrees| (-90.0..90.0).contains(degrees) && *degrees > -90.0) {
            return error("shear", "two angles between -90 and 90 degrees", &self.shear);
        }
        if !finite(&self.translate) || !finite(&self.center.unwrap_or_default()) {
            return error("translate", "finite numbers of pixels", &(self.translate, self.center));
        }
        check_fill("affine", self.fill)
    }

    /// Returns the matrix `[a, b, c, d, e, f]` that leads from the middle (x, y) of a pixel of the
    /// result to its place (a x + b y + c, d x + e y + f) in an image of `h` rows and `w` columns.
    fn inverse(&self, [h, w]: [usize; 2]) -> [f64; 6] {
        let [cx, cy] = self.center.unwrap_or([w as f64 * 0.5, h as f64 * 0.5]);
        let [tx, ty] = self.translate;
        let (angle, [sx, sy]) = (self.angle.to_radians(), self.shear.map(f64::to_radians));
        // Rotation, shear along the columns, shear along the rows: a matrix of determinant 1.
        let (cos, sin) = ((angle - sy).cos() / sy.cos(), (angle - sy).sin() / sy.cos());
        let [a, b, c, d] = [cos, -cos * sx.tan() - angle.sin(), sin, -sin * sx.tan() + angle.cos()];
        // Rounded as in PIL, so that a right angle has zeros.
        let [a, b, c, d] = [d, -b, -c, a].map(|x| (x * 1e15).round() / 1e15 / self.scale);
        let (x, y) = (-cx - tx, -cy - ty);
        [a, b, a * x + b * y + cx, c, d, c * x + d * y + cy]
    }

    /// Applies the transform to an image `[H, W, C]`.
    pub(super) fn apply_to_bytes(&self, pixels: &mut [u8], shape @ [h, w, _]: [usize; 3]) {
        let before = pixels.to_vec();
        let image = Source { pixels: &before, shape };
        let inverse = self.inverse([h, w]);
        let fill = (self.fill * 255.0).round() as u8;
        match self.interpolation {
            Interpolation::Bilinear => image.bilinear(inverse, fill, pixels),
            Interpolation::Nearest if inverse[1] == 0.0 && inverse[3] == 0.0 => {
                image.nearest_on_axes(inverse, fill, pixels);
            }
            Interpolation::Nearest => image.nearest(inverse, fill, pixels),
        }
    }
}

impl Default for Affine {
    fn default() -> Affine {
        Affine::new()
    }
}

/// Checks the gray level of what is outside of an image.
pub(in crate::data) fn check_fill(op: &'static str, fill: f32) -> Result<()> {
    if (0.0..=1.0).contains(&fill) {
        return Ok(());
    }
    Err(Error::argument(op, "fill", "a gray level in [0, 1]", fill))
}

/// An image `[H, W, C]` that pixels are read from.
struct Source<'a> {
    pixels: &'a [u8],
    shape: [usize; 3],
}

impl Source<'_> {
    /// Writes a pixel of the result: the one at row `y` and column `x`, or `fill` outside.
    fn copy(&self, y: i64, x: i64, fill: u8, to: &mut [u8]) {
        let [h, w, c] = self.shape;
        if (0..h as i64).contains(&y) && (0..w as i64).contains(&x) {
            let from = (y as usize * w + x as usize) * c;
            to.copy_from_slice(&self.pixels[from..from + c]);
        } else {
            to.fill(fill);
        }
    }

    /// Reads nearest pixels at places that are multiples of 2^-16, as PIL does.
    fn nearest(&self, inverse: [f64; 6], fill: u8, out: &mut [u8]) {
        let [_, w, c] = self.shape;
        let [a, b, c0, d, e, f0] = inverse;
        let fixed = |x: f64| (x * 65_536.0 + 0.5).floor() as i64;
        let [dx, dy] = [[a, d].map(fixed), [b, e].map(fixed)];
        let mut row_start = [c0 + a * 0.5 + b * 0.5, f0 + d * 0.5 + e * 0.5].map(fixed);
        for row in out.chunks_exact_mut(w * c) {
            let [mut x, mut y] = row_start;
            for pixel in row.chunks_exact_mut(c) {
                self.copy(y >> 16, x >> 16, fill, pixel);
                x = x.saturating_add(dx[0]);
                y = y.saturating_add(dx[1]);
            }
            row_start = [row_start[0].saturating_add(dy[0]), row_start[1].saturating_add(dy[1])];
        }
    }

    /// Reads nearest pixels where rows remain rows and columns remain columns: places are sums in
    /// `f64` then, as in PIL.
    fn nearest_on_axes(&self, inverse: [f64; 6], fill: u8, out: &mut [u8]) {
        let [_, w, c] = self.shape;
        let [a, _, c0, _, e, f0] = inverse;
        let place = |x: f64| if x < 0.0 { -1 } else { x as i64 };
        let mut y = f0 + e * 0.5;
        for row in out.chunks_exact_mut(w * c) {
            let mut x = c0 + a * 0.5;
            for pixel in row.chunks_exact_mut(c) {
                self.copy(place(y), place(x), fill, pixel);
                x += a;
            }
            y += e;
        }
    }

    /// Interpolates between the four pixels around each place; at the edge, pixels are repeated.
    fn bilinear(&self, inverse: [f64; 6], fill: u8, out: &mut [u8]) {
        let [h, w, c] = self.shape;
        let [a, b, c0, d, e, f0] = inverse;
        for (row, to) in out.chunks_exact_mut(w * c).enumerate() {
            for (column, pixel) in to.chunks_exact_mut(c).enumerate() {
                let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
                let (x, y) = (a * x + b * y + c0, d * x + e * y + f0);
                if !((0.0..w as f64).contains(&x) && (0.0..h as f64).contains(&y)) {
                    pixel.fill(fill);
                    continue;
                }
                let (left, top) = ((x - 0.5).floor(), (y - 0.5).floor());
                let (dx, dy) = (x - 0.5 - left, y - 0.5 - top);
                let within = |i: f64, size: usize| (i.max(0.0) as usize).min(size - 1);
                let [rows, columns] = [[top, top + 1.0], [left, left + 1.0]];
                let (rows, columns) = (rows.map(|i| within(i, h)), columns.map(|i| within(i, w)));
                for (k, out) in pixel.iter_mut().enumerate() {
                    let at = |y: usize, x: usize| f64::from(self.pixels[(y * w + x) * c + k]);
                    let [above, below] = rows.map(|y| {
                        let (left, right) = (at(y, columns[0]), at(y, columns[1]));
                        left + (right - left) * dx
                    });
                    *out = (above + (below - above) * dy) as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(affine: Affine, pixels: &[u8], shape: [usize; 3]) -> Vec<u8> {
        let mut pixels = pixels.to_vec();
        affine.apply_to_bytes(&mut pixels, shape);
        pixels
    }

    #[test]
    fn translations_and_right_angles_by_hand() {
        for interpolation in [Interpolation::Nearest, Interpolation::Bilinear] {
            let affine = Affine::new().interpolation(interpolation).fill(1.0);
            let image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
            let moved = applied(affine.translate([1.0, -1.0]), &image, [3, 3, 1]);
            assert_eq!(moved, [255, 4, 5, 255, 7, 8, 255, 255, 255]);
            assert_eq!(applied(affine.angle(90.0), &image, [3, 3, 1]), [7, 4, 1, 8, 5, 2, 9, 6, 3]);
            assert_eq!(applied(affine.angle(-180.0), &image, [3, 3, 1]), [9, 8, 7, 6, 5, 4, 3, 2, 1]);
            let corner = affine.scale(3.0).center([1.5, 1.5]);
            assert_eq!(applied(corner, &image, [3, 3, 1])[4], 5);
        }
    }

    #[test]
    fn places_far_outside_are_filled() {
        let affine = Affine::new().translate([1e30, -1e30]).angle(1.0).fill(0.5);
        assert_eq!(applied(affine, &[1; 12], [2, 2, 3]), [128; 12]);
        let tiny = Affine::new().scale(1e-30).angle(3.0).fill(1.0);
        assert_eq!(applied(tiny, &[1; 16], [4, 4, 1]), [255; 16]);
    }

    #[test]
    fn parameters_out_of_range_are_errors() {
        let error = |affine: Affine| affine.check().unwrap_err().to_string();
        assert_eq!(
            error(Affine::new().scale(-1.0)),
            "affine: scale: expected a finite number above 0, found -1.0"
        );
        assert!(error(Affine::new().angle(f64::NAN)).contains("angle"));
        assert!(error(Affine::new().shear([90.0, 0.0])).contains("between -90 and 90"));
        assert!(error(Affine::new().translate([f64::INFINITY, 0.0])).contains("translate"));
        assert!(error(Affine::new().fill(2.0)).contains("fill: expected a gray level"));
    }
}
