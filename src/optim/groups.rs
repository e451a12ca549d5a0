//! Parameter groups: settings that hold for some of the parameters.

use super::setting;
use crate::{Result, autograd::Param};
use std::{fmt, sync::Arc};

/// Settings of a parameter group that differ from the optimizer's.
///
/// A parameter may be in several groups. Their learning-rate scales are multiplied; of their weight
/// decays the last one holds.
///
/// ```
/// use skipgrad::optim::{Group, Sgd};
/// let slow = Group::new().lr_scale(0.1).weight_decay(0.0);
/// let sgd = Sgd::new(0.01).weight_decay(1e-4).group(|name, _| name.starts_with("layer1."), slow);
/// # let _ = sgd;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Group {
    /// Factor of the learning rate, at least 0; 1 by default.
    pub lr_scale: f32,
    /// Weight decay that replaces the optimizer's, at least 0; by default the optimizer's holds.
    pub weight_decay: Option<f32>,
}

impl Group {
    /// Creates a group whose settings are the optimizer's.
    pub fn new() -> Group {
        Group { lr_scale: 1.0, weight_decay: None }
    }

    /// Multiplies the learning rate by `lr_scale`, at least 0.
    pub fn lr_scale(self, lr_scale: f32) -> Group {
        Group { lr_scale, ..self }
    }

    /// Replaces the optimizer's weight decay; at least 0.
    pub fn weight_decay(self, weight_decay: f32) -> Group {
        Group { weight_decay: Some(weight_decay), ..self }
    }
}

impl Default for Group {
    fn default() -> Group {
        Group::new()
    }
}

type Predicate = Arc<dyn Fn(&str, &Param) -> bool + Send + Sync>;

/// The groups of an optimizer, each with the predicate that selects its parameters, in the order in
/// which they were added.
#[derive(Clone, Default)]
pub(super) struct Groups(Vec<(Predicate, Group)>);

impl Groups {
    pub(super) fn add(
        &mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) {
        self.0.push((Arc::new(predicate), group));
    }

    /// Adds a group without weight decay for biases and for the scales and shifts of
    /// normalizations: the parameters of at most one axis.
    pub(super) fn add_no_decay(&mut self) {
        self.add(|_, param| param.value().shape().rank() <= 1, Group::new().weight_decay(0.0));
    }

    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        self.0.iter().try_for_each(|(_, group)| {
            setting(op, "lr_scale", group.lr_scale, 0.0..f32::INFINITY)?;
            setting(op, "weight_decay", group.weight_decay.unwrap_or(0.0), 0.0..f32::INFINITY)
        })
    }

    /// Returns the learning rate and the weight decay of one parameter.
    pub(super) fn settings(&self, name: &str, param: &Param, lr: f32, weight_decay: f32) -> (f32, f32) {
        let groups = self.0.iter().filter(|(predicate, _)| predicate(name, param));
        groups.fold((lr, weight_decay), |(lr, decay), (_, group)| {
            (lr * group.lr_scale, group.weight_decay.unwrap_or(decay))
        })
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, group)| group)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn groups_combine_in_order() {
        let mut groups = Groups::default();
        groups.add_no_decay();
        groups.add(|name, _| name.starts_with("fc."), Group::new().lr_scale(10.0));
        let bias = Param::new(Tensor::zeros([3]).unwrap());
        let weight = Param::new(Tensor::zeros([3, 3]).unwrap());
        let settings = |name, param| groups.settings(name, param, 0.5, 0.1);
        assert_eq!(settings("conv1.weight", &weight), (0.5, 0.1));
        assert_eq!(settings("conv1.bias", &bias), (0.5, 0.0));
        assert_eq!(settings("fc.weight", &weight), (5.0, 0.1));
        assert_eq!(settings("fc.bias", &bias), (5.0, 0.0));
        groups.add(|_, _| true, Group::new().lr_scale(f32::NAN));
        assert!(groups.check("sgd").unwrap_err().to_string().contains("lr_scale"));
    }

    #[test]
    fn both_settings_of_a_group_are_checked() {
        let error = |group| {
            let mut groups = Groups::default();
            groups.add(|_, _| true, group);
            groups.check("sgd").unwrap_err().to_string()
        };
        assert!(error(Group { lr_scale: -1.0, weight_decay: None }).starts_with("sgd: lr_scale: "));
        assert!(error(Group { lr_scale: 0.0, weight_decay: Some(-1.0) }).starts_with("sgd: weight_decay: "));
    }

    #[test]
    fn the_differences_are_shown() {
        let mut groups = Groups::default();
        groups.add_no_decay();
        assert_eq!(format!("{groups:?}"), "[Group { lr_scale: 1.0, weight_decay: Some(0.0) }]");
    }
}
