//! Patterns of shapes, for errors that say which shape was expected.

use std::fmt;

/// One axis of a [`ShapePattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Axis {
    /// An axis of any size, with the name that it has in the documentation: `N`, `H`, `C`.
    Named(&'static str),
    /// An axis of exactly this size.
    Fixed(usize),
    /// An axis of at least this size.
    AtLeast(usize),
    /// Any number of axes of any size, shown as `...`.
    Rest,
}

/// The shapes that an argument may have: a size, a name or a bound for each axis.
///
/// It is the `expected` of [`Error::ShapeMismatch`](crate::Error::ShapeMismatch). Names of free
/// axes come from an array of strings, in which `"..."` stands for any number of axes; sizes come
/// from an array of numbers.
///
/// ```
/// use skipgrad::ShapePattern;
/// let images = ShapePattern::from(["N", "H", "W"]).fixed(16);
/// assert_eq!(images.to_string(), "[N, H, W, 16]");
/// assert!(images.matches(&[8, 32, 32, 16]) && !images.matches(&[8, 32, 32, 3]));
/// assert!(ShapePattern::from(["...", "K"]).matches(&[2, 10]));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ShapePattern(Box<Pattern>);

/// The content of a [`ShapePattern`], which is boxed so that an error stays small.
#[derive(Clone, Default, PartialEq, Eq)]
struct Pattern {
    axes: Vec<Axis>,
    context: String,
}

impl ShapePattern {
    fn new(axes: impl IntoIterator<Item = Axis>) -> ShapePattern {
        ShapePattern(Box::new(Pattern { axes: Vec::from_iter(axes), context: String::new() }))
    }

    /// Appends an axis of any size, called `name`; `"..."` stands for any number of axes.
    pub fn named(self, name: &'static str) -> ShapePattern {
        self.with(Axis::from(name))
    }

    /// Appends an axis of exactly `size`.
    pub fn fixed(self, size: usize) -> ShapePattern {
        self.with(Axis::Fixed(size))
    }

    /// Appends an axis of at least `size`.
    pub fn at_least(self, size: usize) -> ShapePattern {
        self.with(Axis::AtLeast(size))
    }

    fn with(mut self, axis: Axis) -> ShapePattern {
        self.0.axes.push(axis);
        self
    }

    /// Says what the pattern follows from; the text is shown after the pattern.
    pub fn with_context(mut self, context: impl Into<String>) -> ShapePattern {
        self.0.context = context.into();
        self
    }

    /// Returns the axes, outermost first.
    pub fn axes(&self) -> &[Axis] {
        &self.0.axes
    }

    /// Returns whether a tensor with these sizes fits the pattern.
    pub fn matches(&self, sizes: &[usize]) -> bool {
        matches(self.axes(), sizes)
    }
}

fn matches(axes: &[Axis], sizes: &[usize]) -> bool {
    let Some((axis, axes)) = axes.split_first() else {
        return sizes.is_empty();
    };
    let fits = match (axis, sizes.first()) {
        (Axis::Rest, _) => return (0..=sizes.len()).any(|n| matches(axes, &sizes[n..])),
        (_, None) => false,
        (Axis::Named(_), Some(_)) => true,
        (Axis::Fixed(expected), Some(size)) => size == expected,
        (Axis::AtLeast(least), Some(size)) => size >= least,
    };
    fits && matches(axes, &sizes[1..])
}

impl From<&'static str> for Axis {
    fn from(name: &'static str) -> Axis {
        if name == "..." { Axis::Rest } else { Axis::Named(name) }
    }
}

impl<const N: usize> From<[&'static str; N]> for ShapePattern {
    fn from(names: [&'static str; N]) -> ShapePattern {
        ShapePattern::new(names.map(Axis::from))
    }
}

impl<const N: usize> From<[usize; N]> for ShapePattern {
    fn from(sizes: [usize; N]) -> ShapePattern {
        ShapePattern::from(&sizes[..])
    }
}

impl From<&[usize]> for ShapePattern {
    fn from(sizes: &[usize]) -> ShapePattern {
        ShapePattern::new(sizes.iter().copied().map(Axis::Fixed))
    }
}

impl From<&super::Shape> for ShapePattern {
    fn from(shape: &super::Shape) -> ShapePattern {
        ShapePattern::from(&shape[..])
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Named(name) => write!(f, "{name}"),
            Axis::Fixed(size) => write!(f, "{size}"),
            Axis::AtLeast(size) => write!(f, "{size} or more"),
            Axis::Rest => write!(f, "..."),
        }
    }
}

impl fmt::Display for ShapePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.axes().iter().map(Axis::to_string).collect();
        write!(f, "[{}]", axes.join(", "))?;
        match self.0.context.as_str() {
            "" => Ok(()),
            context => write!(f, " {context}"),
        }
    }
}

impl fmt::Debug for ShapePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_shows_and_matches_names_sizes_bounds_and_any_number_of_axes() {
        let weight = ShapePattern::from([1, 1, 9]).at_least(1);
        assert_eq!(weight.to_string(), "[1, 1, 9, 1 or more]");
        assert!(weight.matches(&[1, 1, 9, 4]) && !weight.matches(&[1, 1, 9, 0]));
        assert!(!weight.matches(&[1, 1, 9]) && !weight.matches(&[1, 1, 9, 4, 1]));
        let middle = ShapePattern::from(["N", "...", "C"]).with_context("of the batch");
        assert_eq!(middle.to_string(), "[N, ..., C] of the batch");
        assert!(middle.matches(&[2, 3]) && middle.matches(&[2, 5, 5, 3]) && !middle.matches(&[2]));
        assert!(ShapePattern::from([0; 0]).matches(&[]));
    }
}
