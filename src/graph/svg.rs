//! A drawing of a network.
//!
//! Modules are boxes from top to bottom, in the order in which they run; frames around them are the
//! modules that contain them. A value that is read later than by the next box is an arc on the
//! right: a shortcut, or one of the connections of a dense block.

use super::{Graph, Source};
use crate::{Shape, autograd::Kind};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The height of a row, in pixels.
const ROW: f64 = 34.0;
/// The height of a box.
const BOX: f64 = 24.0;
/// The left edge of the boxes.
const LEFT: f64 = 150.0;
/// The right edge of the boxes.
const RIGHT: f64 = 470.0;
/// The space above the first row.
const TOP: f64 = 46.0;
/// The farthest that an arc reaches to the right of the boxes.
const ARC: f64 = 190.0;

impl Graph {
    /// Returns a drawing of the network as an SVG document. Modules are folded to one box at this
    /// depth of their paths: at depth 1 `layer1` is a box, at depth 2 `layer1.0`.
    ///
    /// ```
    /// use skipgrad::{Rng, graph::Graph, models::ResNet};
    /// let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0))?;
    /// let svg = Graph::trace(&model, &[1, 224, 224, 3])?.to_svg(3);
    /// assert!(svg.starts_with("<svg") && svg.contains(">layer4<") && svg.contains("1 x 1000"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn to_svg(&self, depth: usize) -> String {
        Drawing::new(self, depth.max(1)).to_svg()
    }
}

/// A box of the drawing.
struct Row {
    /// The path of the module, or of the module that calls an operation of its own.
    path: String,
    /// The operations, with the number of times that each runs.
    operations: Vec<(&'static str, usize)>,
    style: Style,
    shape: Shape,
}

/// How a box looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Style {
    Other,
    Pool,
    Conv,
    Linear,
    /// A sum of a shortcut and what it skips.
    Sum,
}

impl Style {
    fn of(kind: &Kind) -> Style {
        match kind {
            Kind::Conv2d { .. } => Style::Conv,
            Kind::Linear | Kind::MatMul => Style::Linear,
            Kind::MaxPool2d { .. } | Kind::AvgPool2d { .. } | Kind::GlobalAvgPool => Style::Pool,
            Kind::Add => Style::Sum,
            _ => Style::Other,
        }
    }

    /// Returns the colors of the inside and of the edge.
    fn colors(self) -> [&'static str; 2] {
        match self {
            Style::Conv => ["#dbe9f6", "#3b6ea5"],
            Style::Linear => ["#fde6cd", "#c2701c"],
            Style::Pool => ["#dcefdc", "#3f8f4a"],
            Style::Sum => ["#fbdcdc", "#b8413d"],
            Style::Other => ["#eeeeee", "#888888"],
        }
    }
}

struct Drawing<'g> {
    graph: &'g Graph,
    depth: usize,
    rows: Vec<Row>,
    /// The row of each node; that of the input is the first.
    row_of: Vec<usize>,
    /// The rows that each row reads, with whether a concatenation lies between.
    edges: BTreeSet<(usize, usize, bool)>,
}

impl<'g> Drawing<'g> {
    fn new(graph: &'g Graph, depth: usize) -> Drawing<'g> {
        let (path, shape) = ("input".to_string(), *graph.input());
        let input = Row { path, operations: vec![], style: Style::Other, shape };
        let mut drawing = Drawing { graph, depth, rows: vec![input], row_of: vec![], edges: BTreeSet::new() };
        for node in 0..graph.nodes().len() {
            drawing.add(node);
        }
        drawing
    }

    /// Adds a node: to the last row, if that is of the same module, or else as a new row.
    fn add(&mut self, index: usize) {
        let node = &self.graph.nodes()[index];
        let last = self.rows.len() - 1;
        if *node.kind() == Kind::Concat {
            // It is drawn as the connections through it.
            self.row_of.push(last);
            return;
        }
        let parts: Vec<&str> = node.path().split('.').take(self.depth).collect();
        let is_folded = node.path().split('.').count() >= self.depth && !node.path().is_empty();
        let path = parts.join(".");
        let is_in_row = is_folded && self.rows[last].path == path && last > 0;
        // What only rectifies or reshapes the box before is no box of its own.
        let is_minor = matches!(node.kind(), Kind::Relu | Kind::Flatten | Kind::Reshape);
        let follows = matches!(node.inputs()[0], Source::Node(read) if self.row_of[read] == last);
        let is_joined = is_in_row || (is_minor && follows);
        if !is_joined {
            let (operations, style) = (vec![], Style::Other);
            self.rows.push(Row { path, operations, style, shape: *node.shape() });
        }
        let current = self.rows.len() - 1;
        self.row_of.push(current);
        let row = &mut self.rows[current];
        row.shape = *node.shape();
        let sums_inside = is_folded && Style::of(node.kind()) == Style::Sum;
        row.style = if sums_inside { row.style } else { row.style.max(Style::of(node.kind())) };
        match row.operations.iter_mut().find(|(name, _)| *name == node.name()) {
            Some((_, count)) => *count += 1,
            None => row.operations.push((node.name(), 1)),
        }
        for source in node.inputs() {
            self.connect(source, current, false);
        }
    }

    /// Adds the edges from a value, through concatenations, to a row.
    fn connect(&mut self, source: &Source, to: usize, through_concat: bool) {
        let from = match source {
            Source::Constant(..) => return,
            Source::Input => 0,
            Source::Node(node) if *self.graph.nodes()[*node].kind() == Kind::Concat => {
                let graph = self.graph;
                for part in graph.nodes()[*node].inputs() {
                    self.connect(part, to, true);
                }
                return;
            }
            Source::Node(node) => self.row_of[*node],
        };
        if from != to {
            self.edges.insert((from, to, through_concat));
        }
    }

    fn to_svg(&self) -> String {
        let height = TOP + self.rows.len() as f64 * ROW + 10.0;
        let width = RIGHT + ARC + 146.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        self.heading(&mut svg);
        self.frames(&mut svg);
        self.arcs(&mut svg);
        for index in 0..self.rows.len() {
            self.row(&mut svg, index);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn heading(&self, svg: &mut String) {
        let operations = self.graph.nodes().len();
        let billions = self.graph.multiply_adds() as f64 / 1e9;
        let text = format!("{operations} operations, {billions:.2} billion multiply-adds");
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"24\" font-size=\"14\" fill=\"#333\">{text}</text>");
    }

    /// Draws a frame around the rows of each module that contains several.
    fn frames(&self, svg: &mut String) {
        for level in 1..self.depth {
            let mut begin = 0;
            while begin < self.rows.len() {
                let prefix = prefix(&self.rows[begin].path, level);
                let same = |row: &&Row| prefix.is_some() && self::prefix(&row.path, level) == prefix;
                let count = self.rows[begin..].iter().take_while(same).count().max(1);
                if let Some(name) = prefix.filter(|_| count > 1) {
                    let inset = 8.0 * level as f64;
                    let (x, y) = (inset, center(begin) - ROW / 2.0 + 1.0 + level as f64);
                    let width = RIGHT + ARC + 138.0 - 2.0 * inset;
                    let height = count as f64 * ROW - 2.0 - 2.0 * level as f64;
                    let label = center(begin) + 4.0 + 14.0 * (level - 1) as f64;
                    let _ = writeln!(
                        svg,
                        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" \
                         fill=\"#00306010\" stroke=\"#00306030\"/>\n<text x=\"{}\" y=\"{label}\" \
                         fill=\"#345\">{}</text>",
                        x + 6.0,
                        escaped(self.short_name(name, level - 1)),
                    );
                }
                begin += count;
            }
        }
    }

    /// Draws what a row reads from other rows than the one before.
    fn arcs(&self, svg: &mut String) {
        let longest = self.edges.iter().map(|(from, to, _)| to - from).max().unwrap_or(1);
        for &(from, to, through_concat) in &self.edges {
            let (begin, end) = (center(from), center(to));
            if to - from == 1 {
                let x = (LEFT + RIGHT) / 2.0;
                let _ = writeln!(
                    svg,
                    "<path d=\"M{x} {} V{}\" stroke=\"#888\" fill=\"none\"/>",
                    begin + BOX / 2.0,
                    end - BOX / 2.0
                );
                continue;
            }
            let bulge = RIGHT + ARC * ((to - from) as f64 / longest.max(4) as f64).sqrt();
            let (color, opacity) = match (through_concat, self.rows[to].style) {
                (true, _) => ("#3b6ea5", 0.55),
                (false, Style::Sum) => ("#b8413d", 0.9),
                _ => ("#777777", 0.9),
            };
            let [(_, leave), (_, enter)] = [from, to].map(|row| self.edges_of(row));
            let (begin, end) = (begin + 5.0, end - 5.0);
            let _ = writeln!(
                svg,
                "<path d=\"M{leave} {begin} C{bulge} {begin} {bulge} {end} {enter} {end}\" stroke=\"{color}\" \
                 stroke-opacity=\"{opacity}\" stroke-width=\"1.6\" fill=\"none\"/>\n\
                 <path d=\"M{enter} {end} l7 -4 v8 z\" fill=\"{color}\" fill-opacity=\"{opacity}\"/>",
            );
        }
    }

    fn row(&self, svg: &mut String, index: usize) {
        let row = &self.rows[index];
        let [fill, stroke] = row.style.colors();
        let (y, middle) = (center(index) - BOX / 2.0, center(index) + 4.0);
        let is_operation = row.path.split('.').count() < self.depth && row.operations.len() == 1;
        let (x, width) =
            if is_operation { (LEFT + 60.0, RIGHT - LEFT - 120.0) } else { (LEFT, RIGHT - LEFT) };
        let radius = if is_operation { BOX / 2.0 } else { 4.0 };
        let operations: Vec<String> = row
            .operations
            .iter()
            .map(|(name, count)| if *count == 1 { name.to_string() } else { format!("{count} {name}") })
            .collect();
        let label = operations.join(", ");
        let label = if label.len() > 46 { format!("{}…", &label[..45]) } else { label };
        let name = self.short_name(&row.path, self.depth - 1);
        let text = [name, &label].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX}\" rx=\"{radius}\" fill=\"{fill}\" \
             stroke=\"{stroke}\"/>\n<text x=\"{}\" y=\"{middle}\" text-anchor=\"middle\">{}</text>\n\
             <text x=\"{}\" y=\"{middle}\" fill=\"#666\" font-size=\"11\" text-anchor=\"end\">{}</text>",
            (LEFT + RIGHT) / 2.0,
            escaped(&text),
            RIGHT + ARC + 108.0,
            size(&row.shape),
        );
    }

    /// Returns the left and the right edge of a row: those of a single operation are narrower.
    fn edges_of(&self, row: usize) -> (f64, f64) {
        let row = &self.rows[row];
        let is_operation = row.path.split('.').count() < self.depth && row.operations.len() == 1;
        let inset = if is_operation { 60.0 } else { 0.0 };
        (LEFT + inset, RIGHT - inset)
    }

    /// Returns the name of a module inside of the innermost frame around it, of those of at most
    /// `levels` segments.
    fn short_name<'a>(&self, path: &'a str, levels: usize) -> &'a str {
        let frame = (1..=levels).rev().filter_map(|level| prefix(path, level)).find(|frame| {
            let is_inside = |row: &&Row| {
                row.path.strip_prefix(frame).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            self.rows.iter().filter(is_inside).count() > 1
        });
        frame.map_or(path, |frame| path[frame.len()..].trim_start_matches('.'))
    }
}

/// Returns the first segments of a path, if it has as many.
fn prefix(path: &str, segments: usize) -> Option<&str> {
    let mut ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.nth(segments - 1).map(|end| &path[..end])
}

/// Returns the height of the center of a row.
fn center(row: usize) -> f64 {
    TOP + row as f64 * ROW + ROW / 2.0
}

fn size(shape: &Shape) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

fn escaped(text: &str) -> String {
    let names: BTreeMap<char, &str> = [('<', "&lt;"), ('>', "&gt;"), ('&', "&amp;")].into();
    text.chars().map(|c| names.get(&c).map_or(c.to_string(), |name| name.to_string())).collect()
}
