//! The ten figures as signed distance functions: negative inside, 0 on the edge, in units of the
//! radius of the figure.

use crate::Rng;

/// Names of the classes.
pub(super) const NAMES: [&str; 10] =
    ["disc", "ring", "square", "triangle", "cross", "star", "crescent", "stripes", "checkerboard", "dots"];

/// A point or a direction, with x to the right and y down.
pub(super) type Point = [f32; 2];

/// Computes the length of a vector.
pub(super) fn length([x, y]: Point) -> f32 {
    (x * x + y * y).sqrt()
}

/// Computes the dot product of two vectors.
pub(super) fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

/// Draws a uniformly distributed number in [low, high).
pub(super) fn between(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.uniform()
}

/// Draws a uniformly distributed direction. (It normalizes a random point of a disc, because sine
/// and cosine differ between machines.)
pub(super) fn direction(rng: &mut Rng) -> Point {
    loop {
        let point = [between(rng, -1.0, 1.0), between(rng, -1.0, 1.0)];
        let length = length(point);
        if (0.1..1.0).contains(&length) {
            return point.map(|x| x / length);
        }
    }
}

/// One of the ten figures, at a position in the image.
pub(super) struct Figure {
    class: usize,
    /// Center of the figure, in pixels.
    center: Point,
    /// Radius of the figure, in pixels.
    radius: f32,
    /// Direction of the figure's own x axis, of length 1.
    axis: Point,
    /// Factor by which the figure is narrower than high.
    stretch: f32,
    /// Random detail of a figure of the class, in [0, 1): the thickness of a ring, the width of
    /// stripes.
    detail: f32,
    /// Whether the area of a texture is a square rather than a disc.
    square_patch: bool,
}

impl Figure {
    /// Creates a figure of the class with random size, position and details, in an image of `side`
    /// pixels.
    pub(super) fn random(class: usize, side: f32, rng: &mut Rng) -> Figure {
        let radius = between(rng, 0.25, 0.42) * side;
        let reach = 0.95 * radius;
        Figure {
            class,
            center: [between(rng, reach, side - reach), between(rng, reach, side - reach)],
            radius,
            axis: direction(rng),
            stretch: between(rng, 1.0, 1.25),
            detail: rng.uniform(),
            square_patch: rng.chance(0.5),
        }
    }

    /// Computes the fraction of a pixel that the figure covers, in [0, 1].
    pub(super) fn coverage(&self, [x, y]: Point) -> f32 {
        let from_center = [(x - self.center[0]) / self.radius, (y - self.center[1]) / self.radius];
        let point =
            [dot(from_center, self.axis) * self.stretch, dot(from_center, [-self.axis[1], self.axis[0]])];
        (0.5 - self.distance(point) * self.radius).clamp(0.0, 1.0)
    }

    /// Computes the signed distance of a point in the coordinates of the figure.
    fn distance(&self, point: Point) -> f32 {
        match self.class {
            0 => length(point) - 0.85,
            1 => (length(point) - 0.75).abs() - (0.12 + 0.1 * self.detail),
            2 => rectangle(point, [0.72, 0.72]),
            3 => triangle(point),
            4 => {
                let arm = 0.18 + 0.12 * self.detail;
                rectangle(point, [0.95, arm]).min(rectangle(point, [arm, 0.95]))
            }
            5 => star(point),
            6 => {
                let bite = length([point[0] - 0.3 - 0.2 * self.detail, point[1]]) - 0.75;
                (length(point) - 0.9).max(-bite)
            }
            _ => self.texture(point).max(self.patch(point)),
        }
    }

    /// Computes the signed distance to the area that a texture fills.
    fn patch(&self, point: Point) -> f32 {
        if self.square_patch { rectangle(point, [0.9, 0.9]) } else { length(point) - 1.05 }
    }

    /// Computes the signed distance to an endless pattern. Its period is at least four pixels,
    /// because a shorter one cannot be seen. Dots are further apart than the squares of a
    /// checkerboard, because noise makes the two alike at small sizes.
    fn texture(&self, point: Point) -> f32 {
        let pixels = if self.class == 9 { 5.5 } else { 4.0 };
        let period = ((pixels + 3.0 * self.detail) / self.radius).max(0.45);
        // Relative to the nearest multiple of the period, in [-period / 2, period / 2].
        let [x, y] = point.map(|x| (x / period - (x / period).round()) * period);
        let (column, row) = (x.abs() - 0.25 * period, y.abs() - 0.25 * period);
        match self.class {
            7 => column,
            8 => column.min(row).max(-column.max(row)),
            _ => length([x, y]) - 0.3 * period,
        }
    }
}

/// Computes the signed distance to a rectangle around the origin. (Outside of the corners the
/// distance is too small, by an amount that an edge of one pixel does not show.)
fn rectangle([x, y]: Point, half: Point) -> f32 {
    (x.abs() - half[0]).max(y.abs() - half[1])
}

/// Computes the signed distance to a star of five points, which is bounded by the extended sides of
/// a pentagon.
fn star(point: Point) -> f32 {
    /// Normals of the sides, at intervals of 72 degrees.
    const NORMALS: [Point; 5] = [
        [0.0, -1.0],
        [0.951_056_5, -0.309_017],
        [0.587_785_25, 0.809_017],
        [-0.587_785_25, 0.809_017],
        [-0.951_056_5, -0.309_017],
    ];
    // Every point of the star is inside of at least four lines, so the second largest distance
    // decides.
    let (mut first, mut second) = (f32::MIN, f32::MIN);
    for normal in NORMALS {
        let distance = dot(point, normal) - 0.32;
        second = second.max(distance.min(first));
        first = first.max(distance);
    }
    second
}

/// Computes the signed distance to an equilateral triangle whose corners have the distance 1 from
/// the origin.
fn triangle(point: Point) -> f32 {
    const NORMALS: [Point; 3] = [[0.0, 1.0], [0.866_025_4, -0.5], [-0.866_025_4, -0.5]];
    NORMALS.map(|normal| dot(point, normal) - 0.5).into_iter().fold(f32::MIN, f32::max)
}
