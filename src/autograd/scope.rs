//! Where in a network a pass is, by the names of its modules, and what is looked at on the way.

use super::{
    param::StateId,
    saved::Recompute,
    state::join,
    tape::{Tape, Var},
};
use crate::{At, Result, Tensor};
use std::{collections::BTreeMap, fmt};

/// The place of a pass that somebody follows.
pub(super) struct Capture {
    /// The names of the modules that run now, outermost first: `layer1.0`.
    path: String,
    target: CaptureTarget,
}

enum CaptureTarget {
    /// At every value; these modules gave one, in that order.
    Everywhere(Vec<String>),
    /// At the outputs of the modules with these paths.
    At(BTreeMap<String, Option<CapturedVar>>),
}

impl CaptureTarget {
    /// A module gave a value, which is watched from here on if it is looked at.
    fn see(&mut self, path: &str, output: &mut Var<'_>) {
        match self {
            CaptureTarget::Everywhere(module_paths) => module_paths.push(path.to_string()),
            CaptureTarget::At(found) => {
                if let Some(found) = found.get_mut(path) {
                    *output = output.clone().retain_grad();
                    let Var { value, node, id, recompute, .. } = output.clone();
                    *found = Some(CapturedVar { value, node, id, recompute });
                }
            }
        }
    }
}

/// A [`Var`] without its tape, which can lie on the tape.
#[derive(Clone)]
struct CapturedVar {
    value: Tensor,
    node: Option<usize>,
    id: Option<StateId>,
    recompute: Option<Recompute>,
}

/// What a module gives: a value, perhaps with something beside it.
pub trait Scoped<'t> {
    /// The value.
    fn var(&mut self) -> &mut Var<'t>;
}

impl<'t> Scoped<'t> for Var<'t> {
    fn var(&mut self) -> &mut Var<'t> {
        self
    }
}

impl<'t, T> Scoped<'t> for (Var<'t>, T) {
    fn var(&mut self) -> &mut Var<'t> {
        &mut self.0
    }
}

impl Tape {
    /// Runs a part of a module under the part's name: errors say where they arose, as [`At::at`] does, and a pass that is followed
    /// knows where it is. A container runs its children so.
    ///
    /// # Errors
    /// Those of `run`, below `name`.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::full([2], 3.0)?);
    /// assert_eq!(tape.scope("twice", || x.add(&x))?.value().data(), [6.0, 6.0]);
    /// let error = tape.scope("block", || tape.scope("sum", || x.add(&x.sum()))).unwrap_err();
    /// assert_eq!(error.path(), Some("block.sum"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn scope<'t, T: Scoped<'t>>(
        &'t self,
        name: impl fmt::Display,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(outside) = self.enter(&name) else { return run().at(name) };
        let mut result = run().at(name);
        self.leave(outside, result.as_mut().ok().map(Scoped::var));
        result
    }

    /// Whether somebody looks at the output of a part of this name. It must then be the part's own, as it is defined: nothing that
    /// follows may be computed in the same pass over memory, and nothing folded into it.
    ///
    /// ```
    /// # use skipgrad::autograd::Tape;
    /// assert!(!Tape::eval().captures("conv1"));
    /// ```
    pub fn captures(&self, name: &str) -> bool {
        self.capture.borrow().as_ref().is_some_and(|capture| match &capture.target {
            CaptureTarget::Everywhere(_) => true,
            CaptureTarget::At(found) => found.contains_key(&join(&capture.path, name)),
        })
    }

    /// Whether somebody looks at the output of any part of what runs now.
    ///
    /// ```
    /// # use skipgrad::autograd::Tape;
    /// assert!(!Tape::eval().captures_within());
    /// ```
    pub fn captures_within(&self) -> bool {
        self.capture.borrow().as_ref().is_some_and(|capture| match &capture.target {
            CaptureTarget::Everywhere(_) => true,
            CaptureTarget::At(found) => {
                let begin = join(&capture.path, "");
                found.range(begin.clone()..).next().is_some_and(|(name, _)| name.starts_with(&begin))
            }
        })
    }

    /// The same tape, on which every value is computed as it is defined.
    pub(crate) fn capture_all(self) -> Tape {
        self.capture
            .replace(Some(Capture { path: String::new(), target: CaptureTarget::Everywhere(vec![]) }));
        self
    }

    /// The paths of the modules that gave a value on a tape that is looking everywhere.
    pub(crate) fn module_paths(&self) -> Vec<String> {
        match &self.capture.borrow().as_ref().map(|capture| &capture.target) {
            Some(CaptureTarget::Everywhere(module_paths)) => module_paths.clone(),
            _ => vec![],
        }
    }

    /// The outputs of the modules with these paths while `run` runs, those of the last time; nothing for one that did not run.
    pub(crate) fn capture_outputs<'t, T>(
        &'t self,
        paths: &[String],
        run: impl FnOnce() -> Result<T>,
    ) -> Result<Vec<Option<Var<'t>>>> {
        let target = CaptureTarget::At(paths.iter().map(|path| (path.clone(), None)).collect());
        let before = self.capture.replace(Some(Capture { path: String::new(), target }));
        let result = run();
        let capture = self.capture.replace(before);
        result?;
        let found = |path: &String| match &capture.as_ref()?.target {
            CaptureTarget::At(found) => {
                let CapturedVar { value, node, id, recompute } = found.get(path)?.clone()?;
                Some(Var { value, node, id, recompute, tape: self })
            }
            CaptureTarget::Everywhere(_) => None,
        };
        Ok(paths.iter().map(found).collect())
    }

    /// The path of the module that runs, if the pass is followed.
    pub(super) fn path(&self) -> String {
        self.capture.borrow().as_ref().map_or(String::new(), |capture| capture.path.clone())
    }

    /// Begins a part, if the pass is followed; returns what [`Tape::leave`] needs.
    fn enter(&self, name: &impl fmt::Display) -> Option<usize> {
        let mut capture = self.capture.borrow_mut();
        let capture = capture.as_mut()?;
        let outside = capture.path.len();
        capture.path = join(&capture.path, name);
        Some(outside)
    }

    /// Ends a part, which gave this output, if any.
    fn leave<'t>(&'t self, outside: usize, output: Option<&mut Var<'t>>) {
        let mut capture = self.capture.borrow_mut();
        let Some(Capture { path, target }) = capture.as_mut() else { return };
        if let Some(output) = output {
            // A name of several parts is that of a module which is alone in others: their outputs are its own.
            let parts = path.match_indices('.').map(|(end, _)| end).filter(|end| *end > outside);
            for path in parts.chain([path.len()]).map(|end| &path[..end]) {
                target.see(path, output);
            }
        }
        path.truncate(outside);
    }
}
