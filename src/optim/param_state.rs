//! What an optimizer remembers of each parameter from step to step, by the parameter's name.

use super::same_shape;
use crate::{
    At, Error, Result, Shape, Tensor,
    autograd::{NamedTensors, Param, State, StateRef, join},
};
use std::collections::BTreeMap;

/// The name of the piece that counts a parameter's steps; every other piece has the parameter's shape.
pub(super) const STEP: &str = "step";

/// `N` tensors for every parameter that had a step, each with a name of its own.
#[derive(Clone, Debug)]
pub(super) struct Memory<const N: usize> {
    names: [&'static str; N],
    pieces: BTreeMap<String, [Tensor; N]>,
}

impl<const N: usize> Memory<N> {
    pub(super) fn new(names: [&'static str; N]) -> Memory<N> {
        Memory { names, pieces: BTreeMap::new() }
    }

    /// Whether what is remembered has the shapes of the model's parameters.
    pub(super) fn check(&self, model: &dyn State) -> Result<()> {
        let mut result = Ok(());
        model.visit("", &mut |name, slot| {
            let (StateRef::Param(param), Some(pieces)) = (slot, self.pieces.get(name)) else { return };
            for (piece, tensor) in self.names.iter().zip(pieces) {
                if result.is_ok() && *piece != STEP {
                    result = same_shape("remembered", param.value(), tensor).at(name);
                }
            }
        });
        result
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.pieces.contains_key(name)
    }

    pub(super) fn get_or_insert(
        &mut self,
        name: &str,
        first: impl FnOnce() -> [Tensor; N],
    ) -> &mut [Tensor; N] {
        self.pieces.entry(name.to_string()).or_insert_with(first)
    }

    fn insert(&mut self, name: &str, pieces: [Tensor; N]) {
        self.pieces.insert(name.to_string(), pieces);
    }

    pub(super) fn export(&self) -> NamedTensors {
        let named = |(name, pieces): (&String, &[Tensor; N])| {
            let named = self.names.iter().zip(pieces).map(|(piece, t)| (join(name, piece), t.clone()));
            named.collect::<Vec<_>>()
        };
        self.pieces.iter().flat_map(named).collect()
    }

    pub(super) fn import(&mut self, model: &dyn State, mut tensors: NamedTensors) -> Result<()> {
        let mut read = Memory::new(self.names);
        let (mut missing, mut misshapen) = (vec![], vec![]);
        model.visit("", &mut |name, slot| {
            let StateRef::Param(param) = slot else { return };
            let found = self.names.map(|piece| tensors.remove(&join(name, piece)));
            // A parameter that had no step yet has nothing to remember.
            if found.iter().all(Option::is_none) {
                return;
            }
            for (piece, tensor) in self.names.iter().zip(&found) {
                let expected = shape_of(piece, param);
                match tensor {
                    None => missing.push(join(name, piece)),
                    Some(tensor) if *tensor.shape() != expected => {
                        misshapen.push((join(name, piece), expected.to_vec(), tensor.shape().to_vec()));
                    }
                    Some(_) => {}
                }
            }
            let complete: Option<Vec<Tensor>> = found.into_iter().collect();
            if let Some(pieces) = complete.and_then(|pieces| pieces.try_into().ok()) {
                read.insert(name, pieces);
            }
        });
        if let Some(error) = Error::state(missing, tensors.into_keys().collect(), misshapen) {
            return Err(error);
        }
        *self = read;
        Ok(())
    }
}

fn shape_of(piece: &str, param: &Param) -> Shape {
    if piece == STEP { Shape::scalar() } else { *param.value().shape() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_lists_everything_that_does_not_fit() {
        let model = vec![Param::new(Tensor::zeros([2]).unwrap()), Param::new(Tensor::zeros([3]).unwrap())];
        let mut memory = Memory::new([STEP, "average"]);
        memory.insert("0", [Tensor::scalar(1.0), Tensor::zeros([2]).unwrap()]);
        let tensors = memory.export();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["0.average", "0.step"]);
        let mut wrong = tensors.clone();
        wrong.remove("0.step");
        wrong.insert("1.step".into(), Tensor::scalar(1.0));
        wrong.insert("1.average".into(), Tensor::zeros([2]).unwrap());
        wrong.insert("2.average".into(), Tensor::zeros([2]).unwrap());
        assert_eq!(
            memory.import(&model, wrong).unwrap_err().to_string(),
            "the tensors do not fit the model; missing: 0.step; unexpected: 2.average; 1.average: expected [3], found [2]"
        );
        assert_eq!(memory.export(), tensors);
        memory.import(&model, NamedTensors::new()).unwrap();
        assert!(memory.export().is_empty(), "a parameter without a step has nothing to remember");
    }

    #[test]
    fn memory_of_another_model_is_found_before_a_step() {
        let model = vec![Param::new(Tensor::zeros([2]).unwrap())];
        let mut memory = Memory::new(["momentum_buffer"]);
        memory.insert("0", [Tensor::zeros([5]).unwrap()]);
        let error = memory.check(&model).unwrap_err();
        assert_eq!(error.to_string(), "0: step: remembered: expected [2], found [5]");
    }
}
