//! A whole image: background, lines behind the figure, the figure, lines in front of it, and noise.

use super::{
    SIDE,
    figure::{Figure, Point, between, direction, dot, length},
};
use crate::Rng;

/// Red, green, blue, each in [0, 1].
type Color = [f32; 3];

/// Least distance between the color of the figure and those of the background; the distance between
/// black and white is 1.73.
const MIN_CONTRAST: f32 = 0.5;
/// Largest standard deviation of the noise.
const MAX_NOISE: f32 = 0.08;

/// Draws an image of the class into bytes `[SIDE, SIDE, 3]`.
pub(super) fn draw(class: usize, rng: &mut Rng, pixels: &mut [u8]) {
    let figure = Figure::random(class, SIDE as f32, rng);
    let background = Background::random(rng);
    let color = contrasting_color(background.colors, rng);
    let shade = between(rng, -0.25, 0.25);
    let light = direction(rng);
    let behind: Vec<Segment> = (0..rng.below(7)).map(|_| Segment::random(rng)).collect();
    let front: Vec<Segment> = (0..rng.below(2)).map(|_| Segment::random(rng)).collect();
    let noise = between(rng, 0.0, MAX_NOISE);
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let point = [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5];
        let lit = 1.0 + shade * dot(from_center(point), light);
        let mut mixed = background.color(point);
        behind.iter().for_each(|segment| segment.draw_over(&mut mixed, point));
        blend(&mut mixed, color.map(|x| x * lit), figure.coverage(point));
        front.iter().for_each(|segment| segment.draw_over(&mut mixed, point));
        for (byte, x) in pixel.iter_mut().zip(mixed) {
            *byte = ((x + noise * approximately_normal(rng)).clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
}

/// Converts a point to coordinates in which the image reaches from -1 to 1.
fn from_center(point: Point) -> Point {
    point.map(|x| x / (SIDE as f32 / 2.0) - 1.0)
}

/// Blends the color `above` over the color `below`, with the coverage as its opacity.
fn blend(below: &mut Color, above: Color, coverage: f32) {
    for (below, above) in below.iter_mut().zip(above) {
        *below += (above - *below) * coverage;
    }
}

/// Draws an approximately normal number with mean 0 and standard deviation 1. It is a sum of four
/// uniform numbers, which is the same on every machine.
fn approximately_normal(rng: &mut Rng) -> f32 {
    let bits = rng.bits();
    let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8
}

/// Draws a uniformly distributed color.
fn random_color(rng: &mut Rng) -> Color {
    [rng.uniform(), rng.uniform(), rng.uniform()]
}

/// Computes the distance between two colors.
fn color_distance(a: Color, b: Color) -> f32 {
    let [r, g, b] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    (r * r + g * g + b * b).sqrt()
}

/// Draws a color with enough contrast to others: the first of sixteen random colors that has it, or
/// the last one.
fn contrasting_color(others: [Color; 2], rng: &mut Rng) -> Color {
    let mut color = random_color(rng);
    for _ in 1..16 {
        if others.iter().all(|&other| color_distance(color, other) >= MIN_CONTRAST) {
            break;
        }
        color = random_color(rng);
    }
    color
}

/// The background: a mixture of two colors, given by a linear gradient and value noise.
struct Background {
    colors: [Color; 2],
    /// Direction of the gradient, of length 1.
    direction: Point,
    /// Weight of the value noise in the mixture, in [0, 1]; the rest is the gradient.
    roughness: f32,
    /// Distance between the points of the noise grid, in pixels.
    spacing: f32,
    /// Value of the noise at each point of the grid.
    grid: [[f32; GRID]; GRID],
}

/// Number of points along an axis of the noise grid, enough for the smallest spacing.
const GRID: usize = 12;

impl Background {
    /// Creates a random background.
    fn random(rng: &mut Rng) -> Background {
        let first = random_color(rng);
        let other = random_color(rng);
        let share = between(rng, 0.1, 0.6);
        let second = [0, 1, 2].map(|k| first[k] + (other[k] - first[k]) * share);
        let mut grid = [[0.0; GRID]; GRID];
        grid.as_flattened_mut().iter_mut().for_each(|x| *x = rng.uniform());
        Background {
            colors: [first, second],
            direction: direction(rng),
            roughness: rng.uniform(),
            spacing: between(rng, 3.0, 10.0),
            grid,
        }
    }

    /// Computes the color at a point.
    fn color(&self, point: Point) -> Color {
        let gradient = 0.5 + 0.35 * dot(from_center(point), self.direction);
        let share = gradient + (self.noise(point) - gradient) * self.roughness;
        let [first, second] = self.colors;
        [0, 1, 2].map(|k| first[k] + (second[k] - first[k]) * share)
    }

    /// Interpolates the value noise at a point from the four grid points around it.
    fn noise(&self, point: Point) -> f32 {
        let [x, y] = point.map(|x| x / self.spacing);
        let (column, row) = (x as usize, y as usize);
        let (across, down) = (x - column as f32, y - row as f32);
        let mix = |row: &[f32; GRID]| row[column] + (row[column + 1] - row[column]) * across;
        let (above, below) = (mix(&self.grid[row]), mix(&self.grid[row + 1]));
        above + (below - above) * down
    }
}

/// A short line that is independent of the class.
struct Segment {
    center: Point,
    axis: Point,
    half_length: f32,
    half_width: f32,
    color: Color,
}

impl Segment {
    /// Creates a random line.
    fn random(rng: &mut Rng) -> Segment {
        Segment {
            center: [between(rng, 0.0, SIDE as f32), between(rng, 0.0, SIDE as f32)],
            axis: direction(rng),
            half_length: between(rng, 0.5, 4.5),
            half_width: between(rng, 0.5, 1.2),
            color: random_color(rng),
        }
    }

    /// Draws the line over the color at a point.
    fn draw_over(&self, below: &mut Color, point: Point) {
        let from_center = [point[0] - self.center[0], point[1] - self.center[1]];
        let along = dot(from_center, self.axis).clamp(-self.half_length, self.half_length);
        let from_line = [from_center[0] - along * self.axis[0], from_center[1] - along * self.axis[1]];
        blend(below, self.color, (0.5 - (length(from_line) - self.half_width)).clamp(0.0, 1.0));
    }
}
