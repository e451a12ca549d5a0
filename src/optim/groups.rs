//! Parameters that are treated differently.

use super::setting;
use crate::{Result, autograd::Param};
use std::{fmt, sync::Arc};

/// How the parameters of a group differ from the others.
///
/// A parameter may be in several groups: their scales multiply, and the last weight decay that is set holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Multiplies the learning rate; at least 0.
    pub lr_scale: f32,
    /// Weight decay in place of the optimizer's; at least 0.
    pub weight_decay: Option<f32>,
}

/// No difference.
impl Default for Group {
    fn default() -> Group {
        Group { lr_scale: 1.0, weight_decay: None }
    }
}

type Member = Arc<dyn Fn(&str, &Param) -> bool + Send + Sync>;

/// The groups of an optimizer, in the order in which they were added.
#[derive(Clone, Default)]
pub(super) struct Groups(Vec<(Member, Group)>);

impl Groups {
    pub(super) fn add(
        &mut self,
        member: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) {
        self.0.push((Arc::new(member), group));
    }

    /// Biases and the scales and shifts of norms are the parameters of at most one axis.
    pub(super) fn add_no_decay(&mut self) {
        let group = Group { weight_decay: Some(0.0), ..Group::default() };
        self.add(|_, param| param.value().shape().rank() <= 1, group);
    }

    pub(super) fn check(&self, op: &'static str) -> Result<()> {
        self.0.iter().try_for_each(|(_, group)| {
            setting(op, "lr_scale", group.lr_scale, 0.0..f32::INFINITY)?;
            setting(op, "weight_decay", group.weight_decay.unwrap_or(0.0), 0.0..f32::INFINITY)
        })
    }

    /// The learning rate and the weight decay of one parameter.
    pub(super) fn settings(&self, name: &str, param: &Param, lr: f32, weight_decay: f32) -> (f32, f32) {
        let groups = self.0.iter().filter(|(member, _)| member(name, param));
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
    fn groups_add_up_in_order() {
        let mut groups = Groups::default();
        groups.add_no_decay();
        groups.add(|name, _| name.starts_with("fc."), Group { lr_scale: 10.0, weight_decay: None });
        let bias = Param::new(Tensor::zeros([3]).unwrap());
        let weight = Param::new(Tensor::zeros([3, 3]).unwrap());
        let settings = |name, param| groups.settings(name, param, 0.5, 0.1);
        assert_eq!(settings("conv1.weight", &weight), (0.5, 0.1));
        assert_eq!(settings("conv1.bias", &bias), (0.5, 0.0));
        assert_eq!(settings("fc.weight", &weight), (5.0, 0.1));
        assert_eq!(settings("fc.bias", &bias), (5.0, 0.0));
        groups.add(|_, _| true, Group { lr_scale: f32::NAN, weight_decay: None });
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
