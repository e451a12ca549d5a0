//! The result of a pass.

use super::{
    param::{Buffer, Param, StateId},
    tape::Var,
    unnamed::Reader,
};
use crate::Tensor;
use std::collections::BTreeMap;

/// The result of a pass: gradients of parameters and new values of buffers. An optimizer applies
/// it.
///
/// Updates can be sent to other threads, so the shards of a batch can run in parallel, each with
/// its own tape:
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape, Updates}};
/// let weight = Param::new(Tensor::scalar(2.0));
/// let pass = |x: f32| -> skipgrad::Result<Updates> {
///     let tape = Tape::train(Rng::seed(0));
///     tape.input(Tensor::scalar(x)).mul(&tape.param(&weight))?.backward()
/// };
/// let shards = std::thread::scope(|s| {
///     let handles = [1.0, 5.0].map(|x| s.spawn(move || pass(x)));
///     handles.into_iter().map(|h| h.join().unwrap()).collect::<skipgrad::Result<Vec<_>>>()
/// })?;
/// let updates = Updates::mean(shards);
/// assert_eq!(updates.grad(&weight).unwrap().item(), 3.0);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Updates {
    pub(super) gradients: BTreeMap<StateId, Tensor>,
    pub(super) observed: BTreeMap<StateId, Tensor>,
    /// For each gradient of a parameter the operation that read it; other gradients are those of
    /// watched and retained values.
    pub(super) readers: BTreeMap<StateId, Reader>,
    pub(super) passes: usize,
}

impl Updates {
    /// Makes the updates of one pass; a buffer that was observed twice gets the later value.
    pub(super) fn of(observed: Vec<(StateId, Tensor)>) -> Updates {
        Updates { observed: observed.into_iter().collect(), passes: 1, ..Updates::default() }
    }

    pub(super) fn add_gradient(&mut self, id: StateId, gradient: Tensor) {
        add(&mut self.gradients, id, gradient);
    }

    /// Returns the gradient of a parameter, if the loss depends on it.
    pub fn grad(&self, param: &Param) -> Option<&Tensor> {
        self.gradients.get(&param.id())
    }

    /// Returns the gradient of a watched input, of a value with [`Var::retain_grad`], or of a
    /// parameter's `Var`.
    pub fn grad_of(&self, input: &Var<'_>) -> Option<&Tensor> {
        self.gradients.get(&input.id?)
    }

    /// Returns the new value of a buffer, if the pass observed one.
    pub fn observed(&self, buffer: &Buffer) -> Option<&Tensor> {
        self.observed.get(&buffer.id())
    }

    /// Removes and returns the gradient of a parameter.
    pub fn take_grad(&mut self, param: &Param) -> Option<Tensor> {
        self.gradients.remove(&param.id())
    }

    /// Removes and returns the new value of a buffer.
    pub fn take_observed(&mut self, buffer: &Buffer) -> Option<Tensor> {
        self.observed.remove(&buffer.id())
    }

    /// Returns the mean of the gradients and of the observations of shards, summed in the order
    /// given. The gradient of a parameter that a shard did not use counts as zero there.
    ///
    /// # Panics
    /// As [`Updates::accumulate`].
    pub fn mean(shards: Vec<Updates>) -> Updates {
        let share = 1.0 / shards.len().max(1) as f32;
        let mut sum = Updates::default();
        for shard in shards {
            sum.accumulate(shard);
        }
        sum.scale(share);
        sum
    }

    /// Adds the gradients of another pass, for a step of several micro-batches. For the mean, scale
    /// by `1 / passes` after the last one. Observations become the mean over the passes so far.
    ///
    /// # Panics
    /// Panics if the two have gradients of different shapes for one parameter.
    pub fn accumulate(&mut self, other: Updates) {
        for (id, gradient) in other.gradients {
            add(&mut self.gradients, id, gradient);
        }
        for (id, reader) in other.readers {
            self.readers.entry(id).or_insert(reader);
        }
        let passes = self.passes + other.passes;
        let weight = other.passes as f32 / passes.max(1) as f32;
        for (id, mut value) in other.observed {
            if let Some(mean) = self.observed.remove(&id) {
                value.scale(weight);
                value.axpy(1.0 - weight, &mean);
            }
            self.observed.insert(id, value);
        }
        self.passes = passes;
    }

    /// Multiplies every gradient by `alpha`.
    pub fn scale(&mut self, alpha: f32) {
        self.gradients.values_mut().for_each(|gradient| gradient.scale(alpha));
    }

    /// Returns the Euclidean norm of all gradients together.
    pub fn global_norm(&self) -> f32 {
        self.gradients.values().map(Tensor::sum_of_squares).sum::<f64>().sqrt() as f32
    }

    /// Scales all gradients so that their norm together is at most `max`, and returns the norm
    /// before. If that norm is not finite, nothing is scaled.
    pub fn clip_global_norm(&mut self, max: f32) -> f32 {
        let norm = self.global_norm();
        if norm.is_finite() && norm > max {
            self.scale(max / norm);
        }
        norm
    }
}

fn add(gradients: &mut BTreeMap<StateId, Tensor>, id: StateId, gradient: Tensor) {
    match gradients.get_mut(&id) {
        Some(sum) => sum.axpy(1.0, &gradient),
        None => {
            gradients.insert(id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates(param: &Param, gradient: f32, buffer: &Buffer, observed: f32) -> Updates {
        let mut updates = Updates::of(vec![(buffer.id(), Tensor::scalar(observed))]);
        updates.add_gradient(param.id(), Tensor::scalar(gradient));
        updates
    }

    #[test]
    fn micro_batches_sum_gradients_and_average_observations() {
        let (param, buffer) = (Param::new(Tensor::scalar(0.0)), Buffer::new(Tensor::scalar(0.0)));
        let mut sum = updates(&param, 1.0, &buffer, 10.0);
        sum.accumulate(updates(&param, 2.0, &buffer, 20.0));
        sum.accumulate(updates(&param, 3.0, &buffer, 60.0));
        assert_eq!(sum.grad(&param).unwrap().item(), 6.0);
        assert!((sum.observed(&buffer).unwrap().item() - 30.0).abs() < 1e-5);
        let shards = [1.0, 2.0].map(|g| updates(&param, g, &buffer, g)).into();
        let mean = Updates::mean(shards);
        assert_eq!((mean.grad(&param).unwrap().item(), mean.observed(&buffer).unwrap().item()), (1.5, 1.5));
    }

    #[test]
    fn clipping_is_global() {
        let (a, b, buffer) = (
            Param::new(Tensor::scalar(0.0)),
            Param::new(Tensor::scalar(0.0)),
            Buffer::new(Tensor::scalar(0.0)),
        );
        let mut all = updates(&a, 3.0, &buffer, 0.0);
        all.accumulate(updates(&b, 4.0, &buffer, 0.0));
        assert_eq!(all.clip_global_norm(10.0), 5.0);
        assert_eq!(all.grad(&b).unwrap().item(), 4.0);
        assert_eq!(all.clip_global_norm(1.0), 5.0);
        assert!((all.global_norm() - 1.0).abs() < 1e-6);
        all.scale(f32::NAN);
        assert!(all.clip_global_norm(1.0).is_nan());
    }
}
