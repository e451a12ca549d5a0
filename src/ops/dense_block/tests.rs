use super::*;
use crate::{
    Rng,
    autograd::{Tape, Updates},
    ops::BatchNorm,
};

/// A block: its input, and what its layers are made of.
#[derive(Clone, Copy)]
struct Case {
    input: [usize; 4],
    growth: usize,
    layers: usize,
    /// Maps of the bottleneck, if there is one.
    width: Option<usize>,
    dropout: f32,
    /// Which of the norms, counted through all layers, use fixed statistics.
    fixed: fn(usize) -> bool,
    mode: Mode,
}

const CASE: Case = Case {
    input: [2, 5, 4, 6],
    growth: 3,
    layers: 3,
    width: Some(8),
    dropout: 0.0,
    fixed: |_| false,
    mode: Mode::Train,
};

/// Operands of a layer that has the channels, and statistics for its norms.
struct Values {
    operands: Vec<Tensor>,
    fixed: Vec<(Tensor, Tensor)>,
}

impl Case {
    fn values(&self, rng: &mut Rng) -> Vec<Values> {
        let layer = |i: usize| {
            let mut values = Values { operands: vec![], fixed: vec![] };
            let mut channels = self.input[3] + i * self.growth;
            let norm = |values: &mut Values, channels: usize, rng: &mut Rng| {
                values.operands.push(Tensor::uniform([channels], 0.5, 1.5, rng).unwrap());
                values.operands.push(Tensor::normal([channels], 0.5, rng).unwrap());
                let mean = Tensor::normal([channels], 0.5, rng).unwrap();
                values.fixed.push((mean, Tensor::uniform([channels], 0.5, 2.0, rng).unwrap()));
            };
            norm(&mut values, channels, rng);
            if let Some(width) = self.width {
                let std = (2.0 / channels as f32).sqrt();
                values.operands.push(Tensor::normal([1, 1, channels, width], std, rng).unwrap());
                channels = width;
                norm(&mut values, channels, rng);
            }
            let std = (2.0 / (9 * channels) as f32).sqrt();
            values.operands.push(Tensor::normal([3, 3, channels, self.growth], std, rng).unwrap());
            values
        };
        (0..self.layers).map(layer).collect()
    }

    /// The layers, of `vars` in the order of the operands.
    fn layers<'t>(&self, values: &[Values], vars: &[Var<'t>]) -> Vec<DenseBlockLayer<Var<'t>>> {
        let (mut vars, mut norms) = (vars.iter().cloned(), 0);
        let mut next = || vars.next().unwrap();
        let mut layers = vec![];
        for values in values {
            let mut norm = |i: usize, gamma: Var<'t>, beta: Var<'t>| {
                let fixed = (self.mode == Mode::Eval || (self.fixed)(norms)).then(|| values.fixed[i].clone());
                norms += 1;
                DenseBlockNorm { gamma, beta, eps: 1e-5, fixed }
            };
            let norm1 = norm(0, next(), next());
            let bottleneck = self.width.map(|_| (next(), norm(1, next(), next())));
            let (weight, algorithm, dropout) = (next(), Algorithm::Auto, self.dropout);
            layers.push(DenseBlockLayer { norm1, bottleneck, weight, algorithm, dropout });
        }
        layers
    }

    fn tape(&self) -> Tape {
        match self.mode {
            Mode::Train => Tape::train(Rng::seed(5)),
            Mode::Eval => Tape::eval().recording(true),
        }
    }

    fn check(&self) {
        self.check_with(|_| true);
    }

    /// Holds the operation against the definition: the value, the statistics, the gradients of the
    /// operands that are `wanted` (the input is number 0).
    fn check_with(&self, wanted: impl Fn(usize) -> bool) {
        let mut rng = Rng::seed(3);
        let values = self.values(&mut rng);
        let mut operands = vec![Tensor::normal(self.input, 1.0, &mut rng).unwrap()];
        values.iter().for_each(|values| operands.extend(values.operands.iter().cloned()));
        let run = |block: Block| {
            let tape = self.tape();
            let vars: Vec<Var> = (operands.iter().enumerate())
                .map(
                    |(i, value)| {
                        if wanted(i) { tape.watch(value.clone()) } else { tape.input(value.clone()) }
                    },
                )
                .collect();
            let (y, moments) = block(&vars[0], &self.layers(&values, &vars[1..]));
            let dy = Tensor::normal(y.shape(), 1.0, &mut Rng::seed(8)).unwrap();
            let updates: Updates = y.backward_from(dy).unwrap();
            let gradients: Vec<Option<Tensor>> =
                vars.iter().map(|var| updates.grad_of(var).cloned()).collect();
            (y.value().clone(), moments, gradients)
        };
        let (y, moments, gradients) = run(|x, layers| x.dense_block(layers).unwrap());
        let (defined_y, defined_moments, defined_gradients) = run(by_definition);

        close("y", &y, &defined_y);
        if let (Some(moments), Some(defined)) = (&moments.maps, &defined_moments.maps) {
            close("mean of the maps", &moments.mean, &defined.mean);
            close("var of the maps", &moments.var, &defined.var);
        }
        for (moments, defined) in moments.layers.iter().zip(&defined_moments.layers) {
            let pairs = [
                (Some(&moments.norm1), Some(&defined.norm1)),
                (moments.norm2.as_ref(), defined.norm2.as_ref()),
            ];
            for (moments, defined) in pairs {
                assert_eq!(moments.is_some(), defined.is_some());
                let (Some(moments), Some(defined)) = (moments, defined) else { continue };
                assert_eq!(moments.count, defined.count);
                close("mean", &moments.mean, &defined.mean);
                close("var", &moments.var, &defined.var);
            }
        }
        for (i, (gradient, defined)) in gradients.iter().zip(&defined_gradients).enumerate() {
            assert_eq!((gradient.is_some(), defined.is_some()), (wanted(i), wanted(i)), "operand {i}");
            if let (Some(gradient), Some(defined)) = (gradient, defined) {
                close(&format!("gradient of operand {i}"), gradient, defined);
            }
        }

        // The same without a recording, where backward keeps nothing.
        let tape = self.tape().recording(false);
        let vars: Vec<Var> = operands.iter().map(|value| tape.input(value.clone())).collect();
        let (y, _) = vars[0].dense_block(&self.layers(&values, &vars[1..])).unwrap();
        close("y without a recording", y.value(), &defined_y);
    }
}

/// A way to compute a block.
type Block = for<'t> fn(&Var<'t>, &[DenseBlockLayer<Var<'t>>]) -> (Var<'t>, DenseBlockMoments);

/// A one for each channel.
fn ones<'t>(x: &Var<'t>) -> Var<'t> {
    x.tape().input(Tensor::full([x.shape().num_channels()], 1.0).unwrap())
}

/// The block as the paper defines it.
fn by_definition<'t>(x: &Var<'t>, layers: &[DenseBlockLayer<Var<'t>>]) -> (Var<'t>, DenseBlockMoments) {
    let norm = |x: &Var<'t>, norm: &DenseBlockNorm<Var<'t>>| {
        let fixed = norm.fixed.clone();
        let fixed = fixed.map(|(mean, var)| (x.tape().input(mean), x.tape().input(var)));
        let fixed = fixed.as_ref().map(|(mean, var)| (mean, var));
        let options = BatchNorm::new(&norm.gamma, &norm.beta).eps(norm.eps).statistics(fixed).relu(true);
        x.batch_norm(&options).unwrap()
    };
    let mut maps = x.clone();
    let mut all = vec![];
    for layer in layers {
        let (mut y, norm1) = norm(&maps, &layer.norm1);
        let mut moments = DenseBlockLayerMoments { norm1, norm2: None };
        if let Some((weight, norm2)) = &layer.bottleneck {
            let z = y.conv2d(weight, None, &Conv2dOptions::default()).unwrap();
            let (a, norm2) = norm(&z, norm2);
            moments.norm2 = Some(norm2);
            y = a;
        }
        let options = Conv2dOptions::new().padding(1);
        let new = y.conv2d(&layer.weight, None, &options).unwrap().dropout(layer.dropout).unwrap();
        maps = Var::concat(&[&maps, &new]).unwrap();
        all.push(moments);
    }
    let statistics = maps.batch_norm(&BatchNorm::new(&ones(&maps), &ones(&maps)));
    let of_maps = statistics.ok().map(|(_, moments)| moments);
    (maps, DenseBlockMoments { layers: all, maps: of_maps })
}

#[track_caller]
fn close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let largest = expected.data().iter().fold(1e-3f32, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.data().iter().zip(expected.data()).enumerate() {
        assert!(
            (found - expected).abs() <= 2e-4 * largest,
            "{what} [{i}]: {found}, expected {expected} of {largest}"
        );
    }
}

#[test]
fn any_width_growth_and_size_is_as_defined() {
    for [height, width] in [[2, 3], [5, 3], [7, 5], [8, 9]] {
        for inputs in [1, 5, 16] {
            for growth in [1, 4, 12] {
                for bottleneck in [None, Some(4 * growth)] {
                    let input = [2, height, width, inputs];
                    Case { input, growth, width: bottleneck, layers: 2, ..CASE }.check();
                }
            }
        }
    }
}

#[test]
fn a_batch_of_one_and_many_rows_are_as_defined() {
    for width in [None, Some(48)] {
        Case { input: [1, 6, 6, 8], width, ..CASE }.check();
        Case { input: [3, 16, 17, 24], growth: 12, width, layers: 4, ..CASE }.check();
    }
    // Beyond a part of the channels.
    Case { input: [1, 8, 8, 250], growth: 12, layers: 2, ..CASE }.check();
}

#[test]
fn frozen_norms_are_as_defined() {
    for width in [None, Some(8)] {
        for fixed in [|_| true, |i| i == 0, |i| i % 2 == 0, |i| i % 2 == 1, |i| i > 2] {
            Case { fixed, width, ..CASE }.check();
        }
    }
}

#[test]
fn evaluation_is_as_defined() {
    for width in [None, Some(8)] {
        Case { mode: Mode::Eval, dropout: 0.5, width, ..CASE }.check();
        Case { mode: Mode::Eval, input: [1, 1, 1, 6], width, ..CASE }.check();
    }
}

#[test]
fn packed_weights_of_either_algorithm_are_as_defined() {
    for (edge, growth) in [(7, 16), (14, 16), (15, 20)] {
        for width in [None, Some(4 * growth)] {
            Case { input: [1, edge, edge, 24], growth, mode: Mode::Eval, width, ..CASE }.check();
        }
    }
}

#[test]
fn dropout_draws_the_same_numbers_as_defined() {
    for width in [None, Some(8)] {
        Case { dropout: 0.4, width, ..CASE }.check();
    }
}

#[test]
fn only_what_is_wanted_has_a_gradient() {
    for width in [None, Some(8)] {
        let case = Case { width, ..CASE };
        let operands = if width.is_some() { 6 } else { 3 };
        case.check_with(|i| i > 0);
        case.check_with(|i| i == 0);
        case.check_with(|i| i > operands);
        for wanted in 1..=3 * operands {
            case.check_with(|i| i == wanted);
        }
    }
}

#[test]
fn no_layers_are_the_input_and_no_images_are_no_trouble() {
    let tape = Tape::eval();
    let x = tape.input(Tensor::zeros([1, 2, 2, 3]).unwrap());
    let (y, moments) = x.dense_block(&[]).unwrap();
    assert!(y.value() == x.value() && moments.layers.is_empty());
    for width in [None, Some(8)] {
        Case { input: [0, 4, 4, 6], mode: Mode::Eval, width, ..CASE }.check();
    }
}

#[test]
fn errors_name_the_layer() {
    let values = CASE.values(&mut Rng::seed(3));
    let error = |input: &[usize], change: &dyn Fn(&mut Vec<Var>)| {
        let tape = CASE.tape();
        let mut vars: Vec<Var> = values
            .iter()
            .flat_map(|values| &values.operands)
            .map(|value| tape.input(value.clone()))
            .collect();
        change(&mut vars);
        let x = tape.input(Tensor::zeros(input).unwrap());
        x.dense_block(&CASE.layers(&values, &vars)).unwrap_err().to_string()
    };
    let input = &CASE.input;
    assert!(error(&[2, 3], &|_| ()).starts_with("dense_block: input: expected [N, H, W, C]"));
    assert_eq!(
        error(&[2, 3, 3, 0], &|_| ()),
        "dense_block: input: expected at least one channel, found [2, 3, 3, 0]"
    );
    assert_eq!(error(&[2, 3, 3, 5], &|_| ()), "layer 0: dense_block: gamma: expected [5], found [6]");
    assert_eq!(
        error(&[1, 1, 1, 6], &|_| ()),
        "layer 0: dense_block: input: expected more than one value per channel, to have a variance, found 1"
    );
    assert_eq!(
        error(input, &|vars| vars[7] = vars[6].clone().tape().input(Tensor::zeros([8]).unwrap())),
        "layer 1: dense_block: beta: expected [9], found [8]"
    );
    assert_eq!(
        error(input, &|vars| vars[8] = vars[2].clone()),
        "layer 1: dense_block: weight: expected [1, 1, 9, 1 or more], found [1, 1, 6, 8]"
    );
    assert_eq!(
        error(input, &|vars| vars[17] = vars[14].clone()),
        "layer 2: dense_block: weight: expected [3, 3, 8, 1 or more], found [1, 1, 12, 8]"
    );
    let tape = CASE.tape();
    let vars: Vec<Var> =
        values.iter().flat_map(|values| &values.operands).map(|value| tape.input(value.clone())).collect();
    let x = tape.input(Tensor::zeros(CASE.input).unwrap());
    let mut layers = CASE.layers(&values, &vars);
    layers[1].dropout = 1.0;
    assert_eq!(
        x.dense_block(&layers).unwrap_err().to_string(),
        "layer 1: dense_block: p: expected a probability in [0, 1), found 1"
    );
    layers[0].norm1.eps = -1.0;
    assert!(x.dense_block(&layers).unwrap_err().to_string().starts_with("layer 0: dense_block: eps"));
}
