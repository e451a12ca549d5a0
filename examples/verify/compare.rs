//! Compares the passes of a model with a reference file, tensor by tensor. The format of the file
//! is that of `reference.py`.

use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{Mode, StateRef, Tape, Updates, Var},
    graph::ModuleExt,
    inference::{InferenceModel, InferenceOptions},
    io::WeightsFile,
    models::Model,
};

/// The kind of a compared tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The logits or the loss.
    Output,
    /// The output of a module.
    Activation,
    /// The gradient of the loss with respect to a parameter or the images.
    Gradient,
    /// A running mean or variance after the pass.
    Statistic,
}

/// The comparison of a tensor with the reference.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Kind of the tensor.
    pub(crate) kind: Kind,
    /// Path of its module, or its name in weights files.
    pub(crate) name: String,
    /// Largest absolute value of the reference.
    pub(crate) largest: f64,
    /// Largest absolute difference.
    pub(crate) difference: f64,
    /// Largest difference of PyTorch's own float32, relative to the largest value, if the file has
    /// it.
    pub(crate) float32: Option<f64>,
}

impl Row {
    /// Returns the difference relative to the largest value.
    pub(crate) fn relative(&self) -> f64 {
        self.difference / self.largest.max(1e-30)
    }

    /// Returns whether the relative difference exceeds a tolerance; NaN does.
    pub(crate) fn exceeds(&self, tolerance: f64) -> bool {
        self.relative() > tolerance || self.relative().is_nan()
    }
}

/// Compares a pass with the reference, in the order of the pass: activations, outputs, gradients
/// from the last parameter to the first, statistics. The activations come from a separate pass, in
/// which every module computes its own output; all other tensors come from an ordinary pass with
/// fused operations.
///
/// # Errors
/// [`Error::Argument`] if the file has other names or shapes; errors of the pass.
pub(crate) fn compare(model: &dyn Model, file: &WeightsFile, mode: Mode) -> Result<Vec<Row>> {
    let of_mode = match mode {
        Mode::Train => "train",
        _ => "eval",
    };
    let reference = Reference { file, mode: of_mode };
    let images = file.read("images")?;
    let labels: Vec<usize> = file.read("labels")?.data().iter().map(|&label| label as usize).collect();
    let tape = || match mode {
        Mode::Train => Tape::train(Rng::seed(0)),
        _ => Tape::eval(),
    };
    let mut rows = reference.activations(model, &tape().recording(false), &images)?;

    if mode == Mode::Eval {
        let options = InferenceOptions::new(&images.shape()[1..]).batch_size(images.shape()[0]);
        let logits = InferenceModel::compile(model, &options)?.run(&images)?;
        rows.push(Row { name: "logits, compiled".into(), ..reference.row(Kind::Output, "logits", &logits)? });
    }
    let tape = tape().recording(true);
    let images = tape.watch(images);
    let logits = model.forward(&images)?;
    rows.push(reference.row(Kind::Output, "logits", logits.value())?);
    let loss = logits.cross_entropy(&labels[..])?;
    rows.push(reference.row(Kind::Output, "loss", loss.value())?);
    let updates = loss.backward()?;
    rows.extend(reference.gradients(model, &updates, &images)?);
    if mode == Mode::Train {
        rows.extend(reference.statistics(model, &updates)?);
    }
    Ok(rows)
}

struct Reference<'a> {
    file: &'a WeightsFile,
    mode: &'static str,
}

impl Reference<'_> {
    /// Compares a tensor with the one of the same name and mode in the file.
    fn row(&self, kind: Kind, name: &str, found: &Tensor) -> Result<Row> {
        let below = match kind {
            Kind::Output => "",
            Kind::Activation => "activation/",
            Kind::Gradient if name == "images" => "",
            Kind::Gradient => "gradient/",
            Kind::Statistic => "statistic/",
        };
        let mut path = format!("{}/{below}{name}", self.mode);
        // Our `fc` is `linear` in many networks for CIFAR.
        if self.file.shape(&path).is_none() {
            path = path.replace("/fc.", "/linear.");
        }
        let expected = self.file.read(&path)?;
        if expected.shape() != found.shape() {
            let what = format!("{} for {path}", expected.shape());
            return Err(Error::argument("verify", "reference", what, found.shape()));
        }
        let largest = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(
                0.0,
                |largest: f64, x| {
                    if x.is_nan() || largest.is_nan() { f64::NAN } else { largest.max(x.abs()) }
                },
            )
        };
        let pairs = found.data().iter().zip(expected.data());
        let own = format!("float32/{path}");
        let own = self.file.shape(&own).map(|_| self.file.read(&own)).transpose()?;
        Ok(Row {
            kind,
            name: name.to_string(),
            largest: largest(&mut expected.data().iter().map(|&x| x.into())),
            difference: largest(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b))),
            float32: own.map(|own| own.item().into()),
        })
    }

    /// Compares the outputs of the modules that both have, in the order of PyTorch's pass.
    fn activations(&self, model: &dyn Model, tape: &Tape, images: &Tensor) -> Result<Vec<Row>> {
        let listed = self.file.metadata().get("activations").map_or("", String::as_str);
        let mut names: Vec<&str> = listed.lines().collect();
        let maps = loop {
            match model.feature_maps(&tape.input(images.clone()), &names) {
                Err(Error::UnknownModule { name, .. }) if names.contains(&name.as_str()) => {
                    names.retain(|known| *known != name);
                }
                maps => break maps?,
            }
        };
        let rows = names.iter().zip(&maps);
        rows.map(|(name, map)| self.row(Kind::Activation, name, map.value())).collect()
    }

    /// Compares the gradients in the order of a backward pass, from the last parameter to the
    /// images.
    fn gradients(&self, model: &dyn Model, updates: &Updates, images: &Var<'_>) -> Result<Vec<Row>> {
        let mut found = named(model, |slot| match slot {
            StateRef::Param(param) => updates.grad(param).cloned(),
            _ => None,
        })?;
        found.reverse();
        if let Some(gradient) = updates.grad_of(images) {
            found.push(("images".to_string(), gradient.clone()));
        }
        found.iter().map(|(name, gradient)| self.row(Kind::Gradient, name, gradient)).collect()
    }

    fn statistics(&self, model: &dyn Model, updates: &Updates) -> Result<Vec<Row>> {
        let found = named(model, |slot| match slot {
            StateRef::Param(_) => None,
            StateRef::Buffer(buffer) => updates.observed(buffer).cloned(),
            _ => None,
        })?;
        found.iter().map(|(name, statistic)| self.row(Kind::Statistic, name, statistic)).collect()
    }
}

/// Collects one tensor for each piece of the model's state, under its name and in its layout in
/// files.
fn named(model: &dyn Model, of: impl Fn(StateRef<'_>) -> Option<Tensor>) -> Result<Vec<(String, Tensor)>> {
    let mut found = vec![];
    model.visit("", &mut |name, slot| {
        if let Some(tensor) = of(slot) {
            found.push(slot.layout().to_file(&tensor).map(|tensor| (name.to_string(), tensor)));
        }
    });
    found.into_iter().collect()
}
