//! Where in a network a pass is, and which outputs are captured on the way.
//!
//! A module has no name of its own: its path is found from the identity of its parameters and
//! buffers, under the names that an outer module's [`State`] gives them.

use super::{
    param::StateId,
    saved::Recompute,
    state::{State, join},
    tape::{Tape, Var},
};
use crate::{At, Result, Tensor};
use std::{collections::BTreeMap, fmt, iter, mem};

/// The state of a pass whose outputs are captured.
pub(super) struct Capture {
    /// The names of the root module's parameters and buffers.
    names: BTreeMap<StateId, String>,
    /// The path of the module that runs, such as `layer1.0`.
    path: String,
    target: CaptureTarget,
}

enum CaptureTarget {
    /// No module; the pass only names the paths of its operations.
    Nowhere,
    /// Every module; the paths of those that have returned an output, in that order.
    Everywhere(Vec<String>),
    /// The modules with these paths, and their latest outputs.
    At(BTreeMap<String, Option<CapturedVar>>),
}

impl Capture {
    fn new(root: &(impl State + ?Sized), target: CaptureTarget) -> Capture {
        let mut names = BTreeMap::new();
        root.visit("", &mut |name, state| {
            names.insert(state.id(), name.to_string());
        });
        Capture { names, path: String::new(), target }
    }

    /// Returns the path of a module; that of the module around it if the root does not know it, or
    /// knows its parts by other names.
    fn path_of(&self, module: &(impl State + ?Sized)) -> String {
        let path = first_state(module)
            .and_then(|(id, name)| parent(self.names.get(&id)?, &name).map(str::to_string));
        path.unwrap_or_else(|| self.path.clone())
    }
}

impl CaptureTarget {
    /// Takes note of a module's output, and retains its gradient if it is captured.
    fn record(&mut self, path: &str, output: &mut Var<'_>) {
        match self {
            CaptureTarget::Nowhere => {}
            CaptureTarget::Everywhere(module_paths) => module_paths.push(path.to_string()),
            CaptureTarget::At(captured) => {
                if let Some(captured) = captured.get_mut(path) {
                    *output = output.clone().retain_grad();
                    let Var { value, node, id, recompute, .. } = output.clone();
                    *captured = Some(CapturedVar { value, node, id, recompute });
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

/// The innermost module in which an error arose.
pub(super) struct FaultSite {
    /// The module's first parameter or buffer.
    id: StateId,
    /// The name of that tensor inside of the module.
    name: String,
    /// The names of the scopes inside of the module in which the error arose.
    below: String,
}

/// Returns the first parameter or buffer of a module, and its name there.
fn first_state(module: &(impl State + ?Sized)) -> Option<(StateId, String)> {
    let mut first = None;
    module.visit("", &mut |name, state| {
        first.get_or_insert_with(|| (state.id(), name.to_string()));
    });
    first
}

/// Returns the name of a parameter or buffer in a module.
fn name_of(module: &(impl State + ?Sized), id: StateId) -> Option<String> {
    let mut found = None;
    module.visit("", &mut |name, state| {
        if state.id() == id {
            found.get_or_insert_with(|| name.to_string());
        }
    });
    found
}

/// Returns the path of the module in which a tensor of this path is called `name`, if there is one.
fn parent<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let parent = path.strip_suffix(name)?;
    if parent.is_empty() || name.is_empty() { Some(parent) } else { parent.strip_suffix('.') }
}

/// Returns the paths whose output is that of `path`: its own and, as the output of a list is that
/// of its last element, those of the lists that begin between `outside` and `path`.
fn output_paths<'a>(path: &'a str, outside: &str) -> impl Iterator<Item = &'a str> {
    let begin = if path.starts_with(outside) { outside.len() } else { 0 };
    let is_element = move |end: usize| {
        let element = path[end + 1..].split('.').next().unwrap_or_default();
        end > begin && element.bytes().all(|byte| byte.is_ascii_digit())
    };
    let ends = path.match_indices('.').map(|(end, _)| end);
    ends.filter(move |&end| is_element(end)).map(|end| &path[..end]).chain(iter::once(path))
}

/// What a module returns: a value, perhaps together with something else.
pub trait Scoped<'t> {
    /// Returns the value.
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
    /// Runs a module, so that errors carry its path and its output can be captured. The path is
    /// found from the module's parameters and buffers, by the names under which the modules around
    /// it know them.
    ///
    /// All layers, blocks and models of this crate enter themselves in
    /// [`forward`](crate::nn::Module::forward), and [`Var::apply`] enters any module.
    ///
    /// # Errors
    /// Returns the error of `run`, with its path.
    ///
    /// ```
    /// use skipgrad::{Result, Tensor, autograd::{Param, State, Tape, Var}};
    /// #[derive(State)]
    /// struct Bias { bias: Param }
    /// #[derive(State)]
    /// struct Net { first: Bias, second: Bias }
    ///
    /// fn add<'t>(x: &Var<'t>, module: &Bias) -> Result<Var<'t>> {
    ///     x.tape().enter(module, || x.add(&x.tape().param(&module.bias)))
    /// }
    /// let bias = |n: usize| -> Result<Bias> {
    ///     Ok(Bias { bias: Param::new(Tensor::zeros([n])?) })
    /// };
    /// let net = Net { first: bias(2)?, second: bias(3)? };
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::zeros([2])?);
    /// let error = tape.enter(&net, || add(&add(&x, &net.first)?, &net.second)).unwrap_err();
    /// assert_eq!(error.path(), Some("second"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn enter<'t, T: Scoped<'t>>(
        &'t self,
        module: &(impl State + ?Sized),
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.fault.take();
        let outside = self.begin(|capture| capture.path_of(module));
        let result = self.locate(module, run());
        self.end(outside, result)
    }

    /// Runs a part without parameters, such as a pooling, under a name of its own, for errors and
    /// captured outputs. [`Tape::enter`] finds the names of other parts.
    ///
    /// # Errors
    /// Returns the error of `run`, with `name` in front of its path.
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
        self.fault.take();
        let outside = self.begin(|capture| join(&capture.path, &name));
        let result = run().at(name);
        self.end(outside, result)
    }

    /// Returns whether the output of a module is captured. It must then be computed as the module
    /// defines it: not in one pass over memory with what follows, and not folded into it.
    ///
    /// ```
    /// use skipgrad::{autograd::Tape, nn::BatchNorm2d};
    /// assert!(!Tape::eval().captures(&BatchNorm2d::new(8)?));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn captures(&self, module: &(impl State + ?Sized)) -> bool {
        self.capture.borrow().as_ref().is_some_and(|capture| match &capture.target {
            CaptureTarget::Nowhere => false,
            CaptureTarget::Everywhere(_) => true,
            CaptureTarget::At(captured) => {
                let path = capture.path_of(module);
                output_paths(&path, &capture.path).any(|path| captured.contains_key(path))
            }
        })
    }

    /// Returns whether the output of any part of the module that runs is captured.
    ///
    /// ```
    /// # use skipgrad::autograd::Tape;
    /// assert!(!Tape::eval().captures_within());
    /// ```
    pub fn captures_within(&self) -> bool {
        self.capture.borrow().as_ref().is_some_and(|capture| match &capture.target {
            CaptureTarget::Nowhere => false,
            CaptureTarget::Everywhere(_) => true,
            CaptureTarget::At(captured) => {
                captured.keys().any(|path| match path.strip_prefix(&capture.path) {
                    Some(rest) => !rest.is_empty() && (capture.path.is_empty() || rest.starts_with('.')),
                    None => false,
                })
            }
        })
    }

    /// Returns the same tape, which captures the outputs of all modules of `root`: each value is
    /// computed as it is defined.
    pub(crate) fn capture_all(self, root: &(impl State + ?Sized)) -> Tape {
        self.capture.replace(Some(Capture::new(root, CaptureTarget::Everywhere(vec![]))));
        self
    }

    /// Returns the same tape, which knows the path of the module of `root` that runs, and captures
    /// nothing.
    pub(crate) fn track_paths(self, root: &(impl State + ?Sized)) -> Tape {
        self.capture.replace(Some(Capture::new(root, CaptureTarget::Nowhere)));
        self
    }

    /// Returns the paths of the modules that have returned an output since [`Tape::capture_all`].
    pub(crate) fn module_paths(&self) -> Vec<String> {
        match &self.capture.borrow().as_ref().map(|capture| &capture.target) {
            Some(CaptureTarget::Everywhere(module_paths)) => module_paths.clone(),
            _ => vec![],
        }
    }

    /// Returns the latest outputs of the modules of `root` with these paths while `run` runs, and
    /// `None` for a module that did not run.
    pub(crate) fn capture_outputs<'t, T>(
        &'t self,
        root: &(impl State + ?Sized),
        paths: &[String],
        run: impl FnOnce() -> Result<T>,
    ) -> Result<Vec<Option<Var<'t>>>> {
        let target = CaptureTarget::At(paths.iter().map(|path| (path.clone(), None)).collect());
        let before = self.capture.replace(Some(Capture::new(root, target)));
        let result = run();
        let capture = self.capture.replace(before);
        result?;
        let captured = |path: &String| match &capture.as_ref()?.target {
            CaptureTarget::At(captured) => {
                let CapturedVar { value, node, id, recompute } = captured.get(path)?.clone()?;
                Some(Var { value, node, id, recompute, tape: self })
            }
            CaptureTarget::Nowhere | CaptureTarget::Everywhere(_) => None,
        };
        Ok(paths.iter().map(captured).collect())
    }

    /// Returns the path of the module that runs, if outputs are captured.
    pub(super) fn path(&self) -> String {
        self.capture.borrow().as_ref().map_or(String::new(), |capture| capture.path.clone())
    }

    /// Gives an error the path that it has as seen from a module, which ran into it.
    pub(crate) fn locate<T>(&self, module: &(impl State + ?Sized), result: Result<T>) -> Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some((id, name)) = first_state(module) else { return Err(error) };
        let mut fault = self.fault.borrow_mut();
        if let Some(inner) = &*fault {
            let Some(path) = name_of(module, inner.id) else { return Err(error) };
            if let Some(path) = parent(&path, &inner.name) {
                return Err(error.in_module(join(path, &inner.below)));
            }
        }
        // The module is the innermost one, or the innermost one's parts have other names in it.
        let below = match fault.take() {
            Some(inner) => inner.below,
            None => error.path().unwrap_or_default().to_string(),
        };
        *fault = Some(FaultSite { id, name, below: below.clone() });
        Err(error.in_module(below))
    }

    /// Begins a part, if outputs are captured; returns the path around it.
    fn begin(&self, path: impl FnOnce(&Capture) -> String) -> Option<String> {
        let mut capture = self.capture.borrow_mut();
        let capture = capture.as_mut()?;
        let path = path(capture);
        Some(mem::replace(&mut capture.path, path))
    }

    /// Ends a part that [`Tape::begin`] began.
    fn end<'t, T: Scoped<'t>>(&'t self, outside: Option<String>, mut result: Result<T>) -> Result<T> {
        let Some(outside) = outside else { return result };
        if let Some(Capture { path, target, .. }) = self.capture.borrow_mut().as_mut() {
            let path = mem::replace(path, outside.clone());
            // A part whose names are those of the module around it has no path of its own.
            if path != outside
                && let Ok(output) = &mut result
            {
                output_paths(&path, &outside).for_each(|path| target.record(path, output.var()));
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_a_name() {
        assert_eq!(parent("layer1.0.conv.weight", "conv.weight"), Some("layer1.0"));
        assert_eq!(parent("conv.weight", "conv.weight"), Some(""));
        assert_eq!(parent("layer1.0.conv1.weight", "conv.weight"), None);
        assert_eq!(parent("deconv.weight", "conv.weight"), None);
        assert_eq!(parent("weight", ""), Some("weight"));
    }

    #[test]
    fn the_output_of_a_list_is_that_of_its_last_element() {
        let paths = |path, outside| output_paths(path, outside).collect::<Vec<_>>();
        assert_eq!(
            paths("layer2.0.downsample.0", "layer2.0"),
            ["layer2.0.downsample", "layer2.0.downsample.0"]
        );
        assert_eq!(paths("layer2.0", "layer2"), ["layer2.0"]);
        assert_eq!(paths("body.conv", ""), ["body.conv"]);
    }
}
