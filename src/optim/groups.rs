//! Parameter groups: settings that hold for some of the parameters.

use super::setting;
use crate::{
    Error, Result,
    autograd::{Param, State, StateRef},
};
use std::{fmt, sync::Arc};

/// Settings of a parameter group that differ from the optimizer's.
///
/// A parameter may be in several groups. Their learning-rate scales are multiplied; of their weight
/// decays the last one holds. A group without any parameter of the model is an error at the first
/// step, since its predicate is most likely misspelled.
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

/// A group, and how its parameters are found.
#[derive(Clone)]
struct Entry {
    predicate: Predicate,
    group: Group,
    /// Whether a model without any such parameter is an error.
    required: bool,
}

/// The groups of an optimizer, in the order in which they were added.
#[derive(Clone, Default)]
pub(super) struct Groups(Vec<Entry>);

impl Groups {
    /// Adds a group that must have parameters.
    pub(super) fn add(
        &mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) {
        self.0.push(Entry { predicate: Arc::new(predicate), group, required: true });
    }

    /// Adds a group without weight decay for biases and for the scales and shifts of
    /// normalizations: the parameters of at most one axis. A model need not have any.
    pub(super) fn add_no_decay(&mut self) {
        let predicate = |_: &str, param: &Param| param.value().shape().rank() <= 1;
        let group = Group::new().weight_decay(0.0);
        self.0.push(Entry { predicate: Arc::new(predicate), group, required: false });
    }

    /// Adds a group for each layer, from the input to the head: the learning rate of a layer is
    /// `decay` times that of the next one, and what is in no layer has that of the last one.
    pub(super) fn add_layer_decay<'a, L>(&mut self, decay: f32, layers: impl IntoIterator<Item = L>)
    where
        L: IntoIterator<Item = &'a str>,
    {
        let layers = layers.into_iter().map(|layer| layer.into_iter().map(String::from).collect());
        let layers: Vec<Vec<String>> = layers.collect();
        let last = layers.len().saturating_sub(1);
        for (i, prefixes) in layers.into_iter().enumerate() {
            let within = |name: &str, prefix: &String| {
                name.strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let predicate = move |name: &str, _: &Param| prefixes.iter().any(|prefix| within(name, prefix));
            // The power is computed in f64, as in timm.
            let scale = f64::from(decay).powf((last - i) as f64);
            self.add(predicate, Group::new().lr_scale(scale as f32));
        }
    }

    /// Checks that the settings of all groups are in range and that every group has parameters.
    pub(super) fn check(&self, op: &'static str, model: &dyn State) -> Result<()> {
        for entry in &self.0 {
            setting(op, "lr_scale", entry.group.lr_scale, 0.0..f32::INFINITY)?;
            setting(op, "weight_decay", entry.group.weight_decay.unwrap_or(0.0), 0.0..f32::INFINITY)?;
        }
        let counts = self.counts(model);
        match self.0.iter().zip(counts).position(|(entry, count)| entry.required && count == 0) {
            Some(i) => {
                let expected = "a group that has parameters of the model";
                let found = format!("none in group {i}, {:?}", self.0[i].group);
                Err(Error::argument(op, "group", expected, found))
            }
            None => Ok(()),
        }
    }

    /// Returns the number of parameters of each group, trainable or not.
    fn counts(&self, model: &dyn State) -> Vec<usize> {
        let mut counts = vec![0; self.0.len()];
        model.visit("", &mut |name, slot| {
            if let StateRef::Param(param) = slot {
                for (count, entry) in counts.iter_mut().zip(&self.0) {
                    *count += usize::from((entry.predicate)(name, param));
                }
            }
        });
        counts
    }

    /// Describes each group by its settings and its number of parameters.
    pub(super) fn describe(&self, model: &dyn State) -> Vec<String> {
        let counts = self.counts(model);
        let describe = |(entry, count): (&Entry, usize)| format!("{:?} for {count} parameters", entry.group);
        self.0.iter().zip(counts).map(describe).collect()
    }

    /// Returns the learning rate and the weight decay of one parameter.
    pub(super) fn settings(&self, name: &str, param: &Param, lr: f32, weight_decay: f32) -> (f32, f32) {
        let groups = self.0.iter().filter(|entry| (entry.predicate)(name, param));
        groups.fold((lr, weight_decay), |(lr, decay), Entry { group, .. }| {
            (lr * group.lr_scale, group.weight_decay.unwrap_or(decay))
        })
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| &entry.group)).finish()
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
        let model = vec![weight, bias];
        groups.add(|_, _| true, Group::new().lr_scale(f32::NAN));
        assert!(groups.check("sgd", &model).unwrap_err().to_string().contains("lr_scale"));
    }

    #[test]
    fn layers_decay_as_in_timm() {
        let mut groups = Groups::default();
        groups.add_layer_decay(0.5, [vec!["conv1", "bn1"], vec!["layer1"], vec!["layer2"], vec!["fc"]]);
        let weight = Param::new(Tensor::zeros([3, 3]).unwrap());
        let lr = |name: &str| groups.settings(name, &weight, 1.0, 0.0).0;
        // layer_decay ** (layer_max - layer_id)
        let names = ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer2.1.bn2.weight", "fc.bias"];
        assert_eq!(names.map(lr), [0.125, 0.125, 0.25, 0.5, 1.0]);
        assert_eq!((lr("layer10.weight"), lr("other")), (1.0, 1.0), "a whole part of the name counts");
        let model = vec![weight];
        assert!(groups.check("sgd", &model).unwrap_err().to_string().contains("a group that has parameters"));
    }

    #[test]
    fn a_group_without_parameters_is_an_error_unless_it_is_for_biases() {
        let model = vec![Param::new(Tensor::zeros([3, 3]).unwrap())];
        let mut groups = Groups::default();
        groups.add_no_decay();
        groups.add(|name, _| name == "0", Group::new().lr_scale(2.0));
        groups.check("sgd", &model).unwrap();
        assert_eq!(
            groups.describe(&model)[1],
            "Group { lr_scale: 2.0, weight_decay: None } for 1 parameters"
        );
        groups.add(|name, _| name.starts_with("linear."), Group::new().lr_scale(10.0));
        assert_eq!(
            groups.check("sgd", &model).unwrap_err().to_string(),
            "sgd: group: expected a group that has parameters of the model, found none in group 2, \
             Group { lr_scale: 10.0, weight_decay: None }"
        );
    }

    #[test]
    fn both_settings_of_a_group_are_checked() {
        let error = |group| {
            let mut groups = Groups::default();
            groups.add(|_, _| true, group);
            groups.check("sgd", &vec![Param::new(Tensor::scalar(0.0))]).unwrap_err().to_string()
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
