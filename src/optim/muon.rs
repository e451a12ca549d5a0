//! Muon: orthogonal steps of matrices.

use super::{
    Group, NamedSettings, Optimizer,
    adam::{Decay, Moments},
    apply, check,
    groups::Groups,
    named,
    param_state::ParamState,
    setting,
};
use crate::{
    Result, Shape, Tensor,
    autograd::{NamedTensors, Param, State, Updates},
    kernels::{Gemm, Isa, gemm},
};

/// Muon for the weights of convolutions and linear layers (Jordan et al. 2024, "Muon: an optimizer
/// for hidden layers in neural networks"), beside AdamW for the parameters of at most one axis:
///
/// ```text
/// v <- momentum v + (1 - momentum) g
/// u <- orthogonal((1 - momentum) g + momentum v)     all singular values become about 1
/// p <- (1 - lr weight_decay) p - lr sqrt(max(1, out / in)) u
/// ```
///
/// A weight is read as a matrix of `out` rows and `in` columns, where `in` counts the pixels of a
/// kernel too. It is made orthogonal by five steps of a Newton-Schulz iteration from X = u / |u|,
/// which leaves singular values between 0.7 and 1.2, about. Products are in f32:
///
/// ```text
/// X <- 3.4445 X - 4.775 (X X') X + 2.0315 (X X')^2 X
/// ```
///
/// The learning rate is that of Muon, usually 0.02 to 0.1; AdamW has a fraction of it.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Muon, Optimizer}};
/// let mut weight = Param::new(Tensor::zeros([2, 2])?);
/// let mut muon = Muon::new(0.1).weight_decay(0.0);
/// let tape = Tape::train(Rng::seed(0));
/// let gradient = tape.input(Tensor::new([2, 2], [3.0, 0.0, 0.0, 0.5])?);
/// let loss = tape.param(&weight).mul(&gradient)?.sum();
/// muon.step(&mut weight, loss.backward()?)?;
/// // However small a singular value of the gradient is, the step is about as large.
/// let step = weight.value().data();
/// assert!(step[0] < -0.06 && step[3] < -0.06 && step[1].abs() < 1e-6);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Muon {
    lr: f32,
    momentum: f32,
    weight_decay: f32,
    adamw_lr_scale: f32,
    groups: Groups,
    state: ParamState<1>,
    /// For the parameters of at most one axis; its groups and learning rate are not used.
    adamw: Moments,
}

/// Number of steps of the Newton-Schulz iteration.
const NEWTON_SCHULZ_STEPS: usize = 5;

/// The coefficients a, b and c of the iteration.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];

impl Muon {
    /// Creates Muon with the learning rate `lr`, at least 0, momentum 0.95 and weight decay 0.01,
    /// beside AdamW with a hundredth of the learning rate.
    pub fn new(lr: f32) -> Muon {
        Muon {
            lr,
            momentum: 0.95,
            weight_decay: 0.01,
            adamw_lr_scale: 0.01,
            groups: Groups::default(),
            state: ParamState::new(["momentum_buffer"]),
            adamw: Moments::new("muon", Decay::Decoupled, lr, 0.0),
        }
    }

    /// Sets the momentum, in [0, 1).
    pub fn momentum(self, momentum: f32) -> Muon {
        Muon { momentum, ..self }
    }

    /// Sets the weight decay, at least 0: a step shrinks a weight by the factor
    /// `1 - lr weight_decay`, with the learning rate of its optimizer.
    pub fn weight_decay(self, weight_decay: f32) -> Muon {
        Muon { weight_decay, ..self }
    }

    /// Sets the learning rate of AdamW as a fraction of that of Muon, at least 0; 0.01 by default.
    pub fn adamw_lr_scale(self, adamw_lr_scale: f32) -> Muon {
        Muon { adamw_lr_scale, ..self }
    }

    /// Sets the decay rates of AdamW's moments, each in [0, 1); 0.9 and 0.999 by default.
    pub fn betas(mut self, beta1: f32, beta2: f32) -> Muon {
        self.adamw.betas = [beta1, beta2];
        self
    }

    /// Turns weight decay off for the parameters of at most one axis: biases, and the scales and
    /// shifts of normalizations.
    pub fn no_decay_on_norms_and_biases(mut self) -> Muon {
        self.groups.add_no_decay();
        self
    }

    /// Adds a parameter group; see [`Sgd::group`](super::Sgd::group).
    pub fn group(
        mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) -> Muon {
        self.groups.add(predicate, group);
        self
    }

    /// Gives each layer a learning rate of its own; see
    /// [`Sgd::layer_decay`](super::Sgd::layer_decay).
    pub fn layer_decay<'a, L>(mut self, decay: f32, layers: impl IntoIterator<Item = L>) -> Muon
    where
        L: IntoIterator<Item = &'a str>,
    {
        self.groups.add_layer_decay(decay, layers);
        self
    }
}

/// Makes a matrix of this many rows about orthogonal.
fn orthogonalize(matrix: &Tensor, rows: usize) -> Tensor {
    let columns = matrix.shape().num_elements() / rows.max(1);
    let small = rows.min(columns);
    let Ok(square) = Shape::new(&[small, small]) else { return matrix.clone() };
    let product = |sizes, a: &Tensor, b: &Tensor, shape| {
        Tensor::build(shape, |c| gemm(Isa::active(), sizes, a.data(), b.data(), c))
    };
    let [a, b, c] = COEFFICIENTS;
    let mut x = matrix.clone();
    x.scale((1.0 / (matrix.sum_of_squares().sqrt() + 1e-7)) as f32);
    for _ in 0..NEWTON_SCHULZ_STEPS {
        // The products of the shorter vectors with each other: X X', or X' X for a tall matrix.
        let gram = if rows <= columns {
            product(Gemm::new(small, small, columns).transpose_b(), &x, &x, square)
        } else {
            product(Gemm::new(small, small, rows).transpose_a(), &x, &x, square)
        };
        let mut polynomial = product(Gemm::new(small, small, small), &gram, &gram, square);
        polynomial.scale(c);
        polynomial.axpy(b, &gram);
        let shape = *x.shape();
        let mut next = if rows <= columns {
            product(Gemm::new(rows, columns, rows), &polynomial, &x, shape)
        } else {
            product(Gemm::new(rows, columns, columns), &x, &polynomial, shape)
        };
        next.axpy(a, &x);
        x = next;
    }
    x
}

impl Optimizer for Muon {
    fn check(&self, model: &dyn State) -> Result<()> {
        setting("muon", "lr", self.lr, 0.0..f32::INFINITY)?;
        setting("muon", "momentum", self.momentum, 0.0..1.0)?;
        setting("muon", "weight_decay", self.weight_decay, 0.0..f32::INFINITY)?;
        setting("muon", "adamw_lr_scale", self.adamw_lr_scale, 0.0..f32::INFINITY)?;
        self.groups.check("muon", model)?;
        self.state.check(model)?;
        self.adamw.check(model)
    }

    fn settings(&self, model: &dyn State) -> NamedSettings {
        let settings = [
            ("momentum", self.momentum.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
            ("adamw_lr_scale", self.adamw_lr_scale.to_string()),
            ("betas", format!("{:?}", self.adamw.betas)),
        ];
        named("muon", settings, &self.groups, model)
    }

    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check(model)?;
        check(model, &updates)?;
        let momentum = self.momentum;
        apply(model, updates, |name, param, mut gradient| {
            let (lr, weight_decay) = self.groups.settings(name, param, self.lr, self.weight_decay);
            let shape = *gradient.shape();
            if shape.rank() < 2 {
                let lr = lr * self.adamw_lr_scale;
                return self.adamw.update(name, param, gradient, (lr, weight_decay));
            }
            let [velocity] =
                self.state.get_or_insert(name, || [Tensor::build(shape, |zeros| zeros.fill(0.0))]);
            velocity.scale(momentum);
            velocity.axpy(1.0 - momentum, &gradient);
            gradient.scale(1.0 - momentum);
            gradient.axpy(momentum, velocity);
            // In memory, the outputs of a weight are its columns.
            let outputs = shape.num_channels();
            let inputs = shape.num_elements() / outputs.max(1);
            let step = orthogonalize(&gradient, inputs);
            let scale = (outputs as f32 / inputs.max(1) as f32).max(1.0).sqrt();
            let value = param.value_mut();
            value.scale(1.0 - lr * weight_decay);
            value.axpy(-lr * scale, &step);
        });
        Ok(())
    }

    fn lr(&self) -> f32 {
        self.lr
    }

    fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }

    fn export(&self) -> NamedTensors {
        let mut tensors = self.state.export();
        tensors.extend(self.adamw.state.export());
        tensors
    }

    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
        let is_velocity = |name: &String| name.ends_with("momentum_buffer");
        let (velocities, moments) = tensors.into_iter().partition(|(name, _)| is_velocity(name));
        let mut state = self.state.clone();
        state.import(model, velocities)?;
        self.adamw.state.import(model, moments)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape};

    type Matrix = Vec<Vec<f64>>;

    fn multiply(a: &Matrix, b: &Matrix) -> Matrix {
        let entry = |row: &[f64], k: usize| row.iter().zip(b).map(|(x, other)| x * other[k]).sum();
        a.iter().map(|row| (0..b[0].len()).map(|k| entry(row, k)).collect()).collect()
    }

    fn transpose(a: &Matrix) -> Matrix {
        (0..a[0].len()).map(|k| a.iter().map(|row| row[k]).collect()).collect()
    }

    fn combine(x: f64, a: &Matrix, y: f64, b: &Matrix) -> Matrix {
        let row = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| x * a + y * b).collect();
        a.iter().zip(b).map(row).collect()
    }

    /// The algorithm as its author wrote it, in f64, for matrices of `out` rows and `in` columns.
    struct Reference {
        weight: Matrix,
        velocity: Matrix,
    }

    impl Reference {
        fn orthogonalize(g: &Matrix) -> Matrix {
            let is_tall = g.len() > g[0].len();
            let g = if is_tall { transpose(g) } else { g.clone() };
            let norm = g.iter().flatten().map(|x| x * x).sum::<f64>().sqrt() + 1e-7;
            let mut x = combine(1.0 / norm, &g, 0.0, &g);
            for _ in 0..5 {
                let a = multiply(&x, &transpose(&x));
                let b = combine(-4.775, &a, 2.0315, &multiply(&a, &a));
                x = combine(3.4445, &x, 1.0, &multiply(&b, &x));
            }
            if is_tall { transpose(&x) } else { x }
        }

        fn step(&mut self, gradient: &Matrix, lr: f64, decay: f64) {
            self.velocity = combine(0.95, &self.velocity, 0.05, gradient);
            let nesterov = combine(0.05, gradient, 0.95, &self.velocity);
            let update = Reference::orthogonalize(&nesterov);
            let scale = (self.weight.len() as f64 / self.weight[0].len() as f64).max(1.0).sqrt();
            self.weight = combine(1.0 - lr * decay, &self.weight, -lr * scale, &update);
        }
    }

    /// A tensor whose last axis are the outputs, as a matrix of outputs and inputs.
    fn matrix(tensor: &Tensor) -> Matrix {
        let outputs = tensor.shape().num_channels();
        let rows = tensor.data().chunks(outputs).map(|row| row.iter().map(|&x| f64::from(x)).collect());
        transpose(&rows.collect())
    }

    #[test]
    fn twenty_steps_follow_the_reference() {
        for shape in [&[4, 6][..], &[6, 4], &[3, 3, 2, 5], &[1, 1, 3, 8], &[5, 5]] {
            let mut rng = Rng::seed(1);
            let mut param = Param::new(Tensor::normal(shape, 1.0, &mut rng).unwrap());
            let mut muon = Muon::new(0.05).weight_decay(0.1);
            let weight = matrix(param.value());
            let mut reference = Reference { velocity: combine(0.0, &weight, 0.0, &weight), weight };
            for step in 0..20 {
                let gradient = Tensor::normal(shape, 0.5, &mut rng).unwrap();
                let tape = Tape::train(Rng::seed(0));
                let loss = tape.param(&param).mul(&tape.input(gradient.clone())).unwrap().sum();
                muon.step(&mut param, loss.backward().unwrap()).unwrap();
                reference.step(&matrix(&gradient), 0.05, 0.1);
                let found = matrix(param.value());
                let pairs = found.iter().flatten().zip(reference.weight.iter().flatten());
                for (found, expected) in pairs {
                    assert!((found - expected).abs() < 1e-4, "{shape:?}, {step}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn what_has_one_axis_takes_the_steps_of_adamw() {
        let run = |optimizer: &mut dyn Optimizer| {
            let mut param = Param::new(Tensor::new([3], [1.0, -2.0, 3.0]).unwrap());
            for _ in 0..5 {
                let tape = Tape::train(Rng::seed(0));
                let p = tape.param(&param);
                optimizer.step(&mut param, p.mul(&p).unwrap().sum().backward().unwrap()).unwrap();
            }
            param.value().clone()
        };
        let muon = run(&mut Muon::new(0.5).adamw_lr_scale(0.25).weight_decay(0.1));
        assert_eq!(muon, run(&mut super::super::AdamW::new(0.125).weight_decay(0.1)));
    }

    #[test]
    fn a_gradient_of_zeros_moves_nothing() {
        let mut param = Param::new(Tensor::zeros([2, 3]).unwrap());
        let tape = Tape::train(Rng::seed(0));
        let p = tape.param(&param);
        let updates = p.mul(&p).unwrap().sum().backward().unwrap();
        Muon::new(0.1).step(&mut param, updates).unwrap();
        assert_eq!(param.value().data(), [0.0; 6]);
    }
}
