//! Where in a network a pass is, by the names of its modules, and what is looked at on the way.

use super::{
    kept::Again,
    param::StateId,
    state::join,
    tape::{Tape, Var},
};
use crate::{At, Result, Tensor};
use std::{collections::BTreeMap, fmt};

/// The place of a pass that somebody follows.
pub(super) struct Follow {
    /// The names of the modules that run now, outermost first: `layer1.0`.
    path: String,
    looks: Looks,
}

enum Looks {
    /// At every value; these modules gave one, in that order.
    Everywhere(Vec<String>),
    /// At the outputs of the modules with these paths.
    At(BTreeMap<String, Option<Seen>>),
}

impl Looks {
    /// A module gave a value, which is watched from here on if it is looked at.
    fn see(&mut self, path: &str, output: &mut Var<'_>) {
        match self {
            Looks::Everywhere(ran) => ran.push(path.to_string()),
            Looks::At(found) => {
                if let Some(found) = found.get_mut(path) {
                    *output = output.clone().watched();
                    let Var { value, node, id, again, .. } = output.clone();
                    *found = Some(Seen { value, node, id, again });
                }
            }
        }
    }
}

/// A [`Var`] without its tape, which can lie on the tape.
#[derive(Clone)]
struct Seen {
    value: Tensor,
    node: Option<usize>,
    id: Option<StateId>,
    again: Option<Again>,
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
    /// assert!(!Tape::eval().looks_at("conv1"));
    /// ```
    pub fn looks_at(&self, name: &str) -> bool {
        self.follow.borrow().as_ref().is_some_and(|follow| match &follow.looks {
            Looks::Everywhere(_) => true,
            Looks::At(found) => found.contains_key(&join(&follow.path, name)),
        })
    }

    /// Whether somebody looks at the output of any part of what runs now.
    ///
    /// ```
    /// # use skipgrad::autograd::Tape;
    /// assert!(!Tape::eval().looks_inside());
    /// ```
    pub fn looks_inside(&self) -> bool {
        self.follow.borrow().as_ref().is_some_and(|follow| match &follow.looks {
            Looks::Everywhere(_) => true,
            Looks::At(found) => {
                let begin = join(&follow.path, "");
                found.range(begin.clone()..).next().is_some_and(|(name, _)| name.starts_with(&begin))
            }
        })
    }

    /// The same tape, on which every value is computed as it is defined.
    pub(crate) fn looking_everywhere(self) -> Tape {
        self.follow.replace(Some(Follow { path: String::new(), looks: Looks::Everywhere(vec![]) }));
        self
    }

    /// The paths of the modules that gave a value on a tape that is looking everywhere.
    pub(crate) fn ran(&self) -> Vec<String> {
        match &self.follow.borrow().as_ref().map(|follow| &follow.looks) {
            Some(Looks::Everywhere(ran)) => ran.clone(),
            _ => vec![],
        }
    }

    /// The outputs of the modules with these paths while `run` runs, those of the last time; nothing for one that did not run.
    pub(crate) fn look_at<'t, T>(
        &'t self,
        paths: &[String],
        run: impl FnOnce() -> Result<T>,
    ) -> Result<Vec<Option<Var<'t>>>> {
        let looks = Looks::At(paths.iter().map(|path| (path.clone(), None)).collect());
        let before = self.follow.replace(Some(Follow { path: String::new(), looks }));
        let result = run();
        let follow = self.follow.replace(before);
        result?;
        let found = |path: &String| match &follow.as_ref()?.looks {
            Looks::At(found) => {
                let Seen { value, node, id, again } = found.get(path)?.clone()?;
                Some(Var { value, node, id, again, tape: self })
            }
            Looks::Everywhere(_) => None,
        };
        Ok(paths.iter().map(found).collect())
    }

    /// The path of the module that runs, if the pass is followed.
    pub(super) fn path(&self) -> String {
        self.follow.borrow().as_ref().map_or(String::new(), |follow| follow.path.clone())
    }

    /// Begins a part, if the pass is followed; returns what [`Tape::leave`] needs.
    fn enter(&self, name: &impl fmt::Display) -> Option<usize> {
        let mut follow = self.follow.borrow_mut();
        let follow = follow.as_mut()?;
        let outside = follow.path.len();
        follow.path = join(&follow.path, name);
        Some(outside)
    }

    /// Ends a part, which gave this output, if any.
    fn leave<'t>(&'t self, outside: usize, output: Option<&mut Var<'t>>) {
        let mut follow = self.follow.borrow_mut();
        let Some(Follow { path, looks }) = follow.as_mut() else { return };
        if let Some(output) = output {
            // A name of several parts is that of a module which is alone in others: their outputs are its own.
            let parts = path.match_indices('.').map(|(end, _)| end).filter(|end| *end > outside);
            for path in parts.chain([path.len()]).map(|end| &path[..end]) {
                looks.see(path, output);
            }
        }
        path.truncate(outside);
    }
}
