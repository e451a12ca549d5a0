//! The ten figures, as signed distances: negative inside, 0 on the edge, in units of the figure's radius.

use crate::Rng;

/// The names of the classes.
pub(super) const NAMES: [&str; 10] =
    ["disc", "ring", "square", "triangle", "cross", "star", "crescent", "stripes", "checkerboard", "dots"];

/// A place or a direction, x to the right and y down.
pub(super) type Point = [f32; 2];

pub(super) fn length([x, y]: Point) -> f32 {
    (x * x + y * y).sqrt()
}

pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

/// A number in [low, high).
pub(super) fn between(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.uniform()
}

/// A direction, all equally likely. (Points of a disc, brought to length 1: sine and cosine differ between machines.)
pub(super) fn direction(rng: &mut Rng) -> Point {
    loop {
        let point = [between(rng, -1.0, 1.0), between(rng, -1.0, 1.0)];
        let length = length(point);
        if (0.1..1.0).contains(&length) {
            return point.map(|x| x / length);
        }
    }
}

/// One of the ten figures at a place of the image.
pub(super) struct Figure {
    class: usize,
    /// In pixels.
    center: Point,
    radius: f32,
    /// The direction of the figure's own x axis.
    axis: Point,
    /// How much narrower than high it is.
    stretch: f32,
    /// What is free in the class, in [0, 1): the thickness of a ring, the width of stripes.
    form: f32,
    /// Whether the edge of a patch of texture is square rather than round.
    square_patch: bool,
}

impl Figure {
    /// A figure of the class, of random size, place and form, in an image of `side` pixels.
    pub(super) fn random(class: usize, side: f32, rng: &mut Rng) -> Figure {
        let radius = between(rng, 0.25, 0.42) * side;
        let reach = 0.95 * radius;
        Figure {
            class,
            center: [between(rng, reach, side - reach), between(rng, reach, side - reach)],
            radius,
            axis: direction(rng),
            stretch: between(rng, 1.0, 1.25),
            form: rng.uniform(),
            square_patch: rng.chance(0.5),
        }
    }

    /// How much of a pixel the figure covers, in [0, 1].
    pub(super) fn coverage(&self, [x, y]: Point) -> f32 {
        let from_centre = [(x - self.center[0]) / self.radius, (y - self.center[1]) / self.radius];
        let point =
            [dot(from_centre, self.axis) * self.stretch, dot(from_centre, [-self.axis[1], self.axis[0]])];
        (0.5 - self.distance(point) * self.radius).clamp(0.0, 1.0)
    }

    fn distance(&self, point: Point) -> f32 {
        match self.class {
            0 => length(point) - 0.85,
            1 => (length(point) - 0.75).abs() - (0.12 + 0.1 * self.form),
            2 => rectangle(point, [0.72, 0.72]),
            3 => triangle(point),
            4 => {
                let arm = 0.18 + 0.12 * self.form;
                rectangle(point, [0.95, arm]).min(rectangle(point, [arm, 0.95]))
            }
            5 => star(point),
            6 => {
                let bite = length([point[0] - 0.3 - 0.2 * self.form, point[1]]) - 0.75;
                (length(point) - 0.9).max(-bite)
            }
            _ => self.texture(point).max(self.patch(point)),
        }
    }

    /// The area that a texture fills.
    fn patch(&self, point: Point) -> f32 {
        if self.square_patch { rectangle(point, [0.9, 0.9]) } else { length(point) - 1.05 }
    }

    /// A pattern that goes on for ever. Its period is at least four pixels, else it could not be seen; dots are further
    /// apart than the squares of a board, else noise would make the one of the other.
    fn texture(&self, point: Point) -> f32 {
        let pixels = if self.class == 9 { 5.5 } else { 4.0 };
        let period = ((pixels + 3.0 * self.form) / self.radius).max(0.45);
        // From the nearest multiple of the period, in [-period / 2, period / 2].
        let [x, y] = point.map(|x| (x / period - (x / period).round()) * period);
        let (column, row) = (x.abs() - 0.25 * period, y.abs() - 0.25 * period);
        match self.class {
            7 => column,
            8 => column.min(row).max(-column.max(row)),
            _ => length([x, y]) - 0.3 * period,
        }
    }
}

/// A rectangle around the origin. (Outside of its corners the distance is a little too small, which the edge of a pixel's
/// width does not show.)
fn rectangle([x, y]: Point, half: Point) -> f32 {
    (x.abs() - half[0]).max(y.abs() - half[1])
}

/// The distances to the five sides of a pentagon, whose extensions are the lines of the star.
fn star(point: Point) -> f32 {
    /// Every 72 degrees.
    const NORMALS: [Point; 5] = [
        [0.0, -1.0],
        [0.951_056_5, -0.309_017],
        [0.587_785_25, 0.809_017],
        [-0.587_785_25, 0.809_017],
        [-0.951_056_5, -0.309_017],
    ];
    // A point of the star is inside of all lines but one: the second largest distance decides.
    let (mut first, mut second) = (f32::MIN, f32::MIN);
    for normal in NORMALS {
        let distance = dot(point, normal) - 0.32;
        second = second.max(distance.min(first));
        first = first.max(distance);
    }
    second
}

/// An equilateral triangle whose corners are at distance 1.
fn triangle(point: Point) -> f32 {
    const NORMALS: [Point; 3] = [[0.0, 1.0], [0.866_025_4, -0.5], [-0.866_025_4, -0.5]];
    NORMALS.map(|normal| dot(point, normal) - 0.5).into_iter().fold(f32::MIN, f32::max)
}
