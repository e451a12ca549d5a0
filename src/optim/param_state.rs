//! The state that an optimizer keeps for each parameter between steps, by the name of the
//! parameter.

use super::same_shape;
use crate::{
    At, Error, Result, Shape, Tensor,
    autograd::{NamedTensors, Param, State, StateRef, join},
};
use std::collections::BTreeMap;

/// The name of the tensor that counts the steps of a parameter. Every other tensor has the shape of
/// the parameter.
pub(super) const STEP: &str = "step";

/// `N` named tensors for every parameter that was updated at least once, as in the `state` of a
/// PyTorch optimizer.
#[derive(Clone, Debug)]
pub(super) struct ParamState<const N: usize> {
    names: [&'static str; N],
    tensors: BTreeMap<String, [Tensor; N]>,
}

impl<const N: usize> ParamState<N> {
    pub(super) fn new(names: [&'static str; N]) -> ParamState<N> {
        ParamState { names, tensors: BTreeMap::new() }
    }

    /// Checks that the tensors have the shapes of the model's parameters.
    pub(super) fn check(&self, model: &dyn State) -> Result<()> {
        let mut result = Ok(());
        model.visit("", &mut |name, slot| {
            let (StateRef::Param(param), Some(tensors)) = (slot, self.tensors.get(name)) else { return };
            for (key, tensor) in self.names.into_iter().zip(tensors) {
                if result.is_ok() && key != STEP {
                    result = same_shape(key, param.value(), tensor).at(name);
                }
            }
        });
        result
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn get_or_insert(
        &mut self,
        name: &str,
        initial: impl FnOnce() -> [Tensor; N],
    ) -> &mut [Tensor; N] {
        self.tensors.entry(name.to_string()).or_insert_with(initial)
    }

    fn insert(&mut self, name: &str, tensors: [Tensor; N]) {
        self.tensors.insert(name.to_string(), tensors);
    }

    pub(super) fn export(&self) -> NamedTensors {
        let named = |(name, tensors): (&String, &[Tensor; N])| {
            let named = self.names.iter().zip(tensors).map(|(key, t)| (join(name, key), t.clone()));
            named.collect::<Vec<_>>()
        };
        self.tensors.iter().flat_map(named).collect()
    }

    pub(super) fn import(&mut self, model: &dyn State, mut tensors: NamedTensors) -> Result<()> {
        let mut imported = ParamState::new(self.names);
        let (mut missing, mut misshapen) = (vec![], vec![]);
        model.visit("", &mut |name, slot| {
            let StateRef::Param(param) = slot else { return };
            let found = self.names.map(|key| tensors.remove(&join(name, key)));
            // A parameter that was never updated has no state.
            if found.iter().all(Option::is_none) {
                return;
            }
            for (key, tensor) in self.names.iter().zip(&found) {
                let expected = shape_of(key, param);
                match tensor {
                    None => missing.push(join(name, key)),
                    Some(tensor) if *tensor.shape() != expected => {
                        misshapen.push((join(name, key), expected.to_vec(), tensor.shape().to_vec()));
                    }
                    Some(_) => {}
                }
            }
            let complete: Option<Vec<Tensor>> = found.into_iter().collect();
            if let Some(tensors) = complete.and_then(|tensors| tensors.try_into().ok()) {
                imported.insert(name, tensors);
            }
        });
        if let Some(error) = Error::state(missing, tensors.into_keys().collect(), misshapen) {
            return Err(error);
        }
        *self = imported;
        Ok(())
    }
}

fn shape_of(key: &str, param: &Param) -> Shape {
    if key == STEP { Shape::scalar() } else { *param.value().shape() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_error_lists_everything_that_does_not_fit() {
        let model = vec![Param::new(Tensor::zeros([2]).unwrap()), Param::new(Tensor::zeros([3]).unwrap())];
        let mut state = ParamState::new([STEP, "average"]);
        state.insert("0", [Tensor::scalar(1.0), Tensor::zeros([2]).unwrap()]);
        let tensors = state.export();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["0.average", "0.step"]);
        let mut wrong = tensors.clone();
        wrong.remove("0.step");
        wrong.insert("1.step".into(), Tensor::scalar(1.0));
        wrong.insert("1.average".into(), Tensor::zeros([2]).unwrap());
        wrong.insert("2.average".into(), Tensor::zeros([2]).unwrap());
        assert_eq!(
            state.import(&model, wrong).unwrap_err().to_string(),
            "the tensors do not fit the model; missing: 0.step; unexpected: 2.average; 1.average: expected [3], found [2]"
        );
        assert_eq!(state.export(), tensors);
        state.import(&model, NamedTensors::new()).unwrap();
        assert!(state.export().is_empty(), "a parameter that was never updated has no state");
    }

    #[test]
    fn state_of_another_model_is_an_error_before_a_step() {
        let model = vec![Param::new(Tensor::zeros([2]).unwrap())];
        let mut state = ParamState::new(["momentum_buffer"]);
        state.insert("0", [Tensor::zeros([5]).unwrap()]);
        let error = state.check(&model).unwrap_err();
        assert_eq!(error.to_string(), "0: step: momentum_buffer: expected [2], found [5]");
    }
}
