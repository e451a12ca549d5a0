//! Random rotations and other affine transforms.

use super::{
    Affine, ImageOp, Interpolation, Transform,
    image_op::{apply_all, check_channels},
};
use crate::{Error, Result, Rng};

/// Rotates the image around its center by a random angle, as torchvision's `RandomRotation` does.
///
/// The transform comes before [`Normalize`](super::Normalize), as every [`ImageOp`].
///
/// ```
/// use skipgrad::{Rng, data::RandomRotation};
/// let rotation = RandomRotation::new(15.0).draw(&mut Rng::seed(0));
/// assert!(rotation.angle.abs() <= 15.0 && rotation.scale == 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandomRotation {
    /// Least and largest angle in degrees, counterclockwise.
    pub degrees: [f32; 2],
    /// How pixels are read.
    pub interpolation: Interpolation,
    /// Gray level in [0, 1] of what comes from outside of the image.
    pub fill: f32,
}

impl RandomRotation {
    /// Creates the transform with an angle from `-degrees` to `degrees`, nearest pixels, and black
    /// outside.
    pub fn new(degrees: f32) -> RandomRotation {
        let interpolation = Interpolation::Nearest;
        RandomRotation { degrees: [-degrees, degrees], interpolation, fill: 0.0 }
    }

    /// Sets the least and the largest angle in degrees, counterclockwise.
    #[must_use]
    pub fn degrees(self, degrees: [f32; 2]) -> RandomRotation {
        RandomRotation { degrees, ..self }
    }

    /// Sets how pixels are read.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> RandomRotation {
        RandomRotation { interpolation, ..self }
    }

    /// Sets the gray level in [0, 1] of what comes from outside of the image.
    #[must_use]
    pub fn fill(self, fill: f32) -> RandomRotation {
        RandomRotation { fill, ..self }
    }

    /// Draws the rotation of one image.
    pub fn draw(&self, rng: &mut Rng) -> Affine {
        let angle = rng.uniform_in(self.degrees);
        Affine::rotation(angle.into()).interpolation(self.interpolation).fill(self.fill)
    }
}

impl Transform for RandomRotation {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        apply_all(&[ImageOp::Affine(self.draw(rng))], pixels, shape);
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        check_channels("random_rotation", shape)?;
        check_range("random_rotation", "degrees", self.degrees, f32::NEG_INFINITY)?;
        super::image_op::check_fill("random_rotation", self.fill)
    }
}

/// Rotates, translates, scales and shears the image at random, as torchvision's `RandomAffine`
/// does.
///
/// The angle is distributed uniformly in `degrees`, the translation up to a fraction of the width
/// and of the height, rounded to whole pixels, the scale in `scale`, and the angles of the shear in
/// `shear`. The transform comes before [`Normalize`](super::Normalize), as every [`ImageOp`].
///
/// ```
/// use skipgrad::{Rng, data::RandomAffine};
/// let affine = RandomAffine::new(10.0).translate([0.1, 0.1]).scale([0.9, 1.1]);
/// let drawn = affine.draw([32, 32], &mut Rng::seed(0));
/// assert!(drawn.angle.abs() <= 10.0 && (0.9..=1.1).contains(&drawn.scale));
/// assert!(drawn.translate[0].abs() <= 3.0 && drawn.shear == [0.0, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandomAffine {
    /// Least and largest angle in degrees, clockwise.
    pub degrees: [f32; 2],
    /// Largest translation, to either side as a fraction of the width, and up or down as a fraction
    /// of the height, in [0, 1].
    pub translate: [f32; 2],
    /// Least and largest factor of the size, above 0.
    pub scale: [f32; 2],
    /// Least and largest angle of the shear in degrees, parallel to the rows and to the columns,
    /// between -90 and 90.
    pub shear: [[f32; 2]; 2],
    /// How pixels are read.
    pub interpolation: Interpolation,
    /// Gray level in [0, 1] of what comes from outside of the image.
    pub fill: f32,
}

impl RandomAffine {
    /// Creates the transform with an angle from `-degrees` to `degrees`, without translation,
    /// scaling and shear, with nearest pixels, and black outside.
    pub fn new(degrees: f32) -> RandomAffine {
        RandomAffine {
            degrees: [-degrees, degrees],
            translate: [0.0; 2],
            scale: [1.0; 2],
            shear: [[0.0; 2]; 2],
            interpolation: Interpolation::Nearest,
            fill: 0.0,
        }
    }

    /// Sets the least and the largest angle in degrees, clockwise.
    #[must_use]
    pub fn degrees(self, degrees: [f32; 2]) -> RandomAffine {
        RandomAffine { degrees, ..self }
    }

    /// Sets the largest translation, as fractions of the width and of the height.
    #[must_use]
    pub fn translate(self, translate: [f32; 2]) -> RandomAffine {
        RandomAffine { translate, ..self }
    }

    /// Sets the least and the largest factor of the size.
    #[must_use]
    pub fn scale(self, scale: [f32; 2]) -> RandomAffine {
        RandomAffine { scale, ..self }
    }

    /// Sets the least and the largest angle of the shear in degrees, parallel to the rows, and
    /// then parallel to the columns.
    #[must_use]
    pub fn shear(self, shear: [[f32; 2]; 2]) -> RandomAffine {
        RandomAffine { shear, ..self }
    }

    /// Sets how pixels are read.
    #[must_use]
    pub fn interpolation(self, interpolation: Interpolation) -> RandomAffine {
        RandomAffine { interpolation, ..self }
    }

    /// Sets the gray level in [0, 1] of what comes from outside of the image.
    #[must_use]
    pub fn fill(self, fill: f32) -> RandomAffine {
        RandomAffine { fill, ..self }
    }

    /// Draws the transform of one image of `h` rows and `w` columns.
    pub fn draw(&self, [h, w]: [usize; 2], rng: &mut Rng) -> Affine {
        let angle = rng.uniform_in(self.degrees);
        let [x, y] = [self.translate[0] * w as f32, self.translate[1] * h as f32];
        let translate = [x, y].map(|most| f64::from(rng.uniform_in([-most, most]).round_ties_even()));
        let scale = rng.uniform_in(self.scale);
        let shear = self.shear.map(|range| f64::from(rng.uniform_in(range)));
        let affine = Affine::new().angle(angle.into()).translate(translate).scale(scale.into()).shear(shear);
        affine.interpolation(self.interpolation).fill(self.fill)
    }
}

impl Transform for RandomAffine {
    fn apply(&self, pixels: &mut [f32], shape @ [h, w, _]: [usize; 3], rng: &mut Rng) {
        apply_all(&[ImageOp::Affine(self.draw([h, w], rng))], pixels, shape);
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        let op = "random_affine";
        check_channels(op, shape)?;
        check_range(op, "degrees", self.degrees, f32::NEG_INFINITY)?;
        if !self.translate.iter().all(|fraction| (0.0..=1.0).contains(fraction)) {
            let found = format!("{:?}", self.translate);
            return Err(Error::argument(op, "translate", "two fractions in [0, 1]", found));
        }
        check_range(op, "scale", self.scale, 0.0)?;
        for range in self.shear {
            if !range.iter().all(|degrees| degrees.abs() < 90.0) {
                let found = format!("{range:?}");
                return Err(Error::argument(op, "shear", "angles between -90 and 90 degrees", found));
            }
            check_range(op, "shear", range, -90.0)?;
        }
        super::image_op::check_fill(op, self.fill)
    }
}

/// Checks that a range has two finite ascending numbers above `least`.
fn check_range(op: &'static str, argument: &'static str, range: [f32; 2], least: f32) -> Result<()> {
    let [low, high] = range;
    if low > least && low <= high && high.is_finite() {
        return Ok(());
    }
    let expected = match least {
        f32::NEG_INFINITY => "two ascending finite numbers".to_string(),
        least => format!("two ascending finite numbers above {least}"),
    };
    Err(Error::argument(op, argument, expected, format_args!("{range:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_fill_their_ranges() {
        let affine = RandomAffine::new(30.0)
            .translate([0.25, 0.5])
            .scale([0.5, 2.0])
            .shear([[-10.0, 10.0], [5.0, 6.0]]);
        let mut rng = Rng::seed(6);
        let drawn: Vec<Affine> = (0..1000).map(|_| affine.draw([10, 40], &mut rng)).collect();
        let range = |of: &dyn Fn(&Affine) -> f64| {
            let values = drawn.iter().map(of);
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], x| [low.min(x), high.max(x)])
        };
        let near = |[low, high]: [f64; 2], [from, to]: [f64; 2]| {
            let slack = 0.01 * (to - from);
            assert!(low >= from && low < from + slack && high <= to && high > to - slack, "{low} {high}");
        };
        near(range(&|affine| affine.angle), [-30.0, 30.0]);
        near(range(&|affine| affine.scale), [0.5, 2.0]);
        near(range(&|affine| affine.shear[0]), [-10.0, 10.0]);
        near(range(&|affine| affine.shear[1]), [5.0, 6.0]);
        assert_eq!(range(&|affine| affine.translate[0]), [-10.0, 10.0]);
        assert_eq!(range(&|affine| affine.translate[1]), [-5.0, 5.0]);
        assert!(drawn.iter().all(|affine| affine.translate[0].fract() == 0.0));
    }

    #[test]
    fn ranges_are_checked() {
        let error = |affine: RandomAffine| affine.check([8, 8, 3]).unwrap_err().to_string();
        let affine = RandomAffine::new(10.0);
        assert_eq!(
            error(affine.scale([0.0, 1.0])),
            "random_affine: scale: expected two ascending finite numbers above 0, found [0.0, 1.0]"
        );
        assert!(error(affine.degrees([5.0, -5.0])).contains("degrees"));
        assert!(error(affine.translate([0.0, 1.5])).contains("translate"));
        assert!(error(affine.shear([[0.0, 90.0], [0.0, 0.0]])).contains("shear"));
        assert!(error(affine.shear([[3.0, 2.0], [0.0, 0.0]])).contains("shear"));
        assert!(error(affine.fill(-1.0)).contains("fill"));
        let rotation = RandomRotation::new(-5.0).check([8, 8, 3]).unwrap_err().to_string();
        assert!(rotation.starts_with("random_rotation: degrees"), "{rotation}");
        assert!(RandomRotation::new(5.0).check([8, 8, 2]).is_err());
    }
}
