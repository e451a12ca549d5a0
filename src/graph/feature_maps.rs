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
    let paths = names.iter().map(|name| path(name, &module_paths)).collect::<Result<Vec<_>>>()?;
    let mut whole = None;
    let found = x.tape().capture_outputs(module, &paths, || {
        whole = Some(x.apply(module)?);
        Ok(())
    })?;
    let of_path = |(var, path): (Option<Var<'t>>, &String)| match path.is_empty() {
        true => whole.clone().ok_or_else(|| unknown(path, vec![])),
        false => var.ok_or_else(|| unknown(path, vec![])),
    };
    found.into_iter().zip(&paths).map(of_path).collect()
}

/// Returns the path of this name, or the one path that ends with it.
fn path(name: &str, module_paths: &[String]) -> Result<String> {
    if name.is_empty() || module_paths.iter().any(|path| path == name) {
        return Ok(name.to_string());
    }
    let mut ending: Vec<&String> = module_paths.iter().filter(|path| ends_with(path, name)).collect();
    ending.sort();
    ending.dedup();
    match ending[..] {
        [path] => Ok(path.clone()),
        [] => Err(unknown(name, nearest(name, module_paths))),
        _ => Err(unknown(name, ending.into_iter().take(SUGGESTED).cloned().collect())),
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

fn unknown(name: &str, nearest: Vec<String>) -> Error {
    Error::UnknownModule { name: name.to_string(), nearest }
}
