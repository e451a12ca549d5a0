//! What messages say besides what is wrong: the nearest name, and what to do.

use super::COMPARED;
use std::fmt;

/// Returns how a module gets the name that was not found.
pub(super) fn how_to_name(has_state: bool) -> &'static str {
    match has_state {
        true => {
            "; it has parameters and gave no output under its name: run it by `x.apply(&self.part)`, \
             instead of `forward`, so that its name is known"
        }
        false => "; a part without parameters has a name where it runs in `Tape::scope`",
    }
}

/// Returns the known name that is spelled most like `name`, as part of a message. Neither case nor
/// punctuation count, so that `ResNet-50` is `resnet50`.
pub(super) fn suggested(name: &str, known: &[&str]) -> String {
    let plain = |name: &str| -> String {
        name.chars().filter(|c| c.is_alphanumeric()).take(COMPARED.1).flat_map(char::to_lowercase).collect()
    };
    let name = plain(name);
    let distances = known.iter().map(|other| (strsim::levenshtein(&name, &plain(other)), other));
    match distances.min_by_key(|(distance, _)| *distance) {
        Some((distance, nearest)) if 2 * distance <= name.chars().count() => format!(" (nearest: {nearest})"),
        _ => String::new(),
    }
}

/// Displays [`Error::NotInState`](super::Error::NotInState) with what to do.
pub(super) struct NotInState<'a> {
    pub(super) kind: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) after: Option<&'a str>,
}

impl fmt::Display for NotInState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} of shape {:?}", self.kind, self.shape)?;
        if let Some(after) = self.after {
            write!(f, ", read after {after},")?;
        }
        f.write_str(
            " is not in the state of the model, so that it is neither trained nor saved: show it in \
             `State` (without `#[state(skip)]`, or in `visit` and `visit_mut`), or freeze it; for a step \
             of a part of the model, freeze the rest or take the part's updates by `Updates::split_off`",
        )
    }
}
