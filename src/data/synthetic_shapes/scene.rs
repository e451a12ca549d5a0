//! A whole image: background, clutter, the figure, something in front of it, noise.

use super::{
    SIDE,
    figure::{Figure, Point, between, direction, dot, length},
};
use crate::Rng;

/// Red, green, blue, each in [0, 1].
type Color = [f32; 3];

/// The least distance between the figure's color and those of the background, of at most 1.73.
const CONTRAST: f32 = 0.5;
/// The most that noise deviates a pixel, as a standard deviation.
const NOISE: f32 = 0.08;

/// Draws an image of the class into bytes `[SIDE, SIDE, 3]`.
pub(super) fn draw(class: usize, rng: &mut Rng, pixels: &mut [u8]) {
    let figure = Figure::random(class, SIDE as f32, rng);
    let ground = Ground::random(rng);
    let color = contrasting(ground.colors, rng);
    let shade = between(rng, -0.25, 0.25);
    let light = direction(rng);
    let behind: Vec<Scratch> = (0..rng.below(7)).map(|_| Scratch::random(rng)).collect();
    let front: Vec<Scratch> = (0..rng.below(2)).map(|_| Scratch::random(rng)).collect();
    let noise = between(rng, 0.0, NOISE);
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let point = [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5];
        let lit = 1.0 + shade * dot(from_middle(point), light);
        let mut seen = ground.color(point);
        behind.iter().for_each(|scratch| scratch.over(&mut seen, point));
        blend(&mut seen, color.map(|x| x * lit), figure.coverage(point));
        front.iter().for_each(|scratch| scratch.over(&mut seen, point));
        for (byte, x) in pixel.iter_mut().zip(seen) {
            *byte = ((x + noise * bell(rng)).clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
}

/// A place relative to the middle of the image, whose edges are at -1 and 1.
fn from_middle(point: Point) -> Point {
    point.map(|x| x / (SIDE as f32 / 2.0) - 1.0)
}

fn blend(below: &mut Color, above: Color, coverage: f32) {
    for (below, above) in below.iter_mut().zip(above) {
        *below += (above - *below) * coverage;
    }
}

/// About normal, with mean 0 and deviation 1: the sum of four uniform numbers, because it is the same on every machine.
fn bell(rng: &mut Rng) -> f32 {
    let bits = rng.bits();
    let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
    (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8
}

fn any_color(rng: &mut Rng) -> Color {
    [rng.uniform(), rng.uniform(), rng.uniform()]
}

fn difference(a: Color, b: Color) -> f32 {
    let [r, g, b] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    (r * r + g * g + b * b).sqrt()
}

/// A color that stands out from others: the first of sixteen that does, or the last.
fn contrasting(others: [Color; 2], rng: &mut Rng) -> Color {
    let mut color = any_color(rng);
    for _ in 1..16 {
        if others.iter().all(|&other| difference(color, other) >= CONTRAST) {
            break;
        }
        color = any_color(rng);
    }
    color
}

/// The background: two colors, mixed by a gradient and by patches.
struct Ground {
    colors: [Color; 2],
    direction: Point,
    /// How much of the mixture the patches make, in [0, 1]; the gradient makes the rest.
    rough: f32,
    /// The size of a patch in pixels.
    grain: f32,
    /// The strength of each patch, `PATCHES` x `PATCHES`.
    patches: [[f32; PATCHES]; PATCHES],
}

/// Enough patches of the smallest grain for the image.
const PATCHES: usize = 12;

impl Ground {
    fn random(rng: &mut Rng) -> Ground {
        let first = any_color(rng);
        let other = any_color(rng);
        let share = between(rng, 0.1, 0.6);
        let second = [0, 1, 2].map(|k| first[k] + (other[k] - first[k]) * share);
        let mut patches = [[0.0; PATCHES]; PATCHES];
        patches.as_flattened_mut().iter_mut().for_each(|x| *x = rng.uniform());
        Ground {
            colors: [first, second],
            direction: direction(rng),
            rough: rng.uniform(),
            grain: between(rng, 3.0, 10.0),
            patches,
        }
    }

    fn color(&self, point: Point) -> Color {
        let gradient = 0.5 + 0.35 * dot(from_middle(point), self.direction);
        let share = gradient + (self.patch(point) - gradient) * self.rough;
        let [first, second] = self.colors;
        [0, 1, 2].map(|k| first[k] + (second[k] - first[k]) * share)
    }

    /// The strengths of the four patches around a point, mixed by its distance to them.
    fn patch(&self, point: Point) -> f32 {
        let [x, y] = point.map(|x| x / self.grain);
        let (column, row) = (x as usize, y as usize);
        let (across, down) = (x - column as f32, y - row as f32);
        let mix = |row: &[f32; PATCHES]| row[column] + (row[column + 1] - row[column]) * across;
        let (above, below) = (mix(&self.patches[row]), mix(&self.patches[row + 1]));
        above + (below - above) * down
    }
}

/// A short line that belongs to nothing.
struct Scratch {
    middle: Point,
    axis: Point,
    half_length: f32,
    half_width: f32,
    color: Color,
}

impl Scratch {
    fn random(rng: &mut Rng) -> Scratch {
        Scratch {
            middle: [between(rng, 0.0, SIDE as f32), between(rng, 0.0, SIDE as f32)],
            axis: direction(rng),
            half_length: between(rng, 0.5, 4.5),
            half_width: between(rng, 0.5, 1.2),
            color: any_color(rng),
        }
    }

    fn over(&self, below: &mut Color, point: Point) {
        let from_middle = [point[0] - self.middle[0], point[1] - self.middle[1]];
        let along = dot(from_middle, self.axis).clamp(-self.half_length, self.half_length);
        let from_line = [from_middle[0] - along * self.axis[0], from_middle[1] - along * self.axis[1]];
        blend(below, self.color, (0.5 - (length(from_line) - self.half_width)).clamp(0.0, 1.0));
    }
}
