//! The outputs of modules inside of a network.

use crate::{
    Error, Result,
    autograd::{Tape, Var},
    nn::Module,
};

/// The number of names that an error suggests.
const SUGGESTED: usize = 5;

pub(super) fn feature_maps<'t, M: Module + ?Sized>(
    module: &M,
    x: &Var<'t>,
    names: &[&str],
) -> Result<Vec<Var<'t>>> {
    let meta = Tape::meta(x.tape().mode()).capture_all(module);
    meta.placeholder(x.shape())?.apply(module)?;
    let module_paths = meta.module_paths();
    let path = |name: &&str| {
        path(name, &module_paths).map_err(|nearest| unknown(name, nearest, has_state(module, name)))
    };
    let paths = names.iter().map(path).collect::<Result<Vec<_>>>()?;
    let mut whole = None;
    let found = x.tape().capture_outputs(module, &paths, || {
        whole = Some(x.apply(module)?);
        Ok(())
    })?;
    let of_path = |(var, path): (Option<Var<'t>>, &String)| match path.is_empty() {
        true => whole.clone().ok_or_else(|| unknown(path, vec![], false)),
        false => var.ok_or_else(|| unknown(path, vec![], false)),
    };
    found.into_iter().zip(&paths).map(of_path).collect()
}

/// Returns the path of this name, or the one path that ends with it.
///
/// # Errors
/// The names to suggest.
fn path(name: &str, module_paths: &[String]) -> Result<String, Vec<String>> {
    if name.is_empty() || module_paths.iter().any(|path| path == name) {
        return Ok(name.to_string());
    }
    let mut ending: Vec<&String> = module_paths.iter().filter(|path| ends_with(path, name)).collect();
    ending.sort();
    ending.dedup();
    match ending[..] {
        [path] => Ok(path.clone()),
        [] => Err(nearest(name, module_paths)),
        _ => Err(ending.into_iter().take(SUGGESTED).cloned().collect()),
    }
}

/// Returns whether the last segments of a path are this name.
fn ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|above| above.ends_with('.'))
}

/// Returns the paths at the least edit distance.
fn nearest(name: &str, module_paths: &[String]) -> Vec<String> {
    let mut distances: Vec<(usize, &String)> =
        module_paths.iter().map(|path| (strsim::levenshtein(name, path), path)).collect();
    distances.sort();
    distances.dedup();
    distances.into_iter().take(SUGGESTED).map(|(_, path)| path.clone()).collect()
}

/// Returns whether a module has a parameter or a buffer below this name.
fn has_state<M: Module + ?Sized>(module: &M, name: &str) -> bool {
    let mut has_state = false;
    module.visit("", &mut |path, _| {
        has_state |= path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    });
    has_state
}

fn unknown(name: &str, nearest: Vec<String>, has_state: bool) -> Error {
    Error::UnknownModule { name: name.to_string(), nearest, has_state }
}
