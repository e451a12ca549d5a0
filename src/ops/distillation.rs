//! Distillation: the divergence of a network's probabilities from those of its teacher, both
//! softened by a temperature T (Hinton et al. 2015, "Distilling the knowledge in a neural
//! network", section 2):
//!
//! ```text
//! loss = T^2/N Σ_n Σ_k q log(q / p)         p = softmax(x / T), q = softmax(teacher / T)
//! dx = T (p - q) dloss / N
//! ```
//!
//! In PyTorch this is `kl_div(log_softmax(x / T), softmax(teacher / T), reduction="batchmean")`
//! times T squared, which makes its gradients as large as those of the cross entropy. Forward
//! computes the gradient, too, and saves it for backward.

use super::{expect_logits, expect_shape};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
};

struct Distillation {
    teacher: Tensor,
    temperature: f32,
}

impl Distillation {
    fn check(&self, logits: &Shape) -> Result<()> {
        expect_logits("distillation", logits)?;
        expect_shape("distillation", "teacher", logits, self.teacher.shape())?;
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let expected = "a finite number above 0";
            return Err(Error::argument("distillation", "temperature", expected, self.temperature));
        }
        Ok(())
    }
}

/// Returns the logarithms of the probabilities of a row of logits, divided by the temperature.
fn log_softmax(row: &[f32], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = row.iter().map(|&x| f64::from(x) / temperature).collect();
    let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = largest + scaled.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
    scaled.into_iter().map(|x| x - log_sum).collect()
}

impl Op for Distillation {
    /// The gradient of the logits for a gradient of the loss of 1.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "distillation"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        self.check(inputs[0].shape()).map_err(|error| Fault::new(error, Shape::scalar()))?;
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let [rows, classes] = [x.shape().num_rows(), x.shape().num_channels()];
        let temperature = f64::from(self.temperature);
        let mut sum = 0.0;
        let gradient = Tensor::build(*x.shape(), |gradient| {
            let logits = x.data().chunks_exact(classes).zip(self.teacher.data().chunks_exact(classes));
            for ((x, teacher), gradient) in logits.zip(gradient.chunks_exact_mut(classes)) {
                let (x, teacher) = (log_softmax(x, temperature), log_softmax(teacher, temperature));
                for ((log_p, log_q), gradient) in x.into_iter().zip(teacher).zip(gradient) {
                    let (p, q) = (log_p.exp(), log_q.exp());
                    // A probability that is 0 adds nothing, whatever its logarithm.
                    sum += if q > 0.0 { q * (log_q - log_p) } else { 0.0 };
                    *gradient = (temperature * (p - q) / rows as f64) as f32;
                }
            }
        });
        (Tensor::scalar((temperature * temperature * sum / rows as f64) as f32), gradient)
    }

    fn backward(&self, mut gradient: Tensor, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        gradient.scale(dy.item());
        vec![Some(gradient)]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().save_intermediate(*inputs[0].shape()).gradients([GradientMemory::Intermediate])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

impl<'t> Var<'t> {
    /// Returns the Kullback-Leibler divergence of the probabilities of logits `[N, K]` from those
    /// of a teacher's logits `[N, K]`, both divided by the temperature before the softmax, times
    /// the square of the temperature, the mean over the rows, of shape `[]`, in nats.
    ///
    /// The temperature is above 0; 1 to 20 in the paper. No gradient flows into the teacher's
    /// logits, which an [`InferenceModel`](crate::inference::InferenceModel) computes.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input is not `[N, K]` or the teacher's logits have another
    /// shape; [`Error::Argument`] if there is no row or no class, or for the temperature.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::zeros([1, 2])?);
    /// let teacher = Tensor::new([1, 2], [2.0 * 3f32.ln(), 0.0])?; // 3/4 and 1/4 at T = 2
    /// let exact = 4.0 * (0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln());
    /// assert!((x.distillation(&teacher, 2.0)?.item() - exact).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn distillation(&self, teacher: &Tensor, temperature: f32) -> Result<Var<'t>> {
        Distillation { teacher: teacher.clone(), temperature }.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape};

    #[test]
    fn values_are_those_of_f64() {
        let mut rng = Rng::seed(1);
        let [x, teacher] = [0, 1].map(|_| Tensor::normal([3, 4], 3.0, &mut rng).unwrap());
        let softmax = |row: &[f32]| -> Vec<f64> {
            let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) / 1.5).exp()).collect();
            powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect()
        };
        let row = |n: usize| -> f64 {
            let (p, q) = (softmax(&x.data()[4 * n..4 * n + 4]), softmax(&teacher.data()[4 * n..4 * n + 4]));
            p.iter().zip(q).map(|(p, q)| q * (q / p).ln()).sum()
        };
        let exact = 2.25 * (row(0) + row(1) + row(2)) / 3.0;
        let loss = f64::from(Tape::eval().input(x.clone()).distillation(&teacher, 1.5).unwrap().item());
        assert!((loss - exact).abs() < 1e-6 * exact, "{loss} {exact}");
    }

    #[test]
    fn a_pupil_like_its_teacher_has_no_loss_and_a_certain_one_a_finite_one() {
        let tape = Tape::train(Rng::seed(0));
        let logits = Tensor::new([1, 2], [1e5, -1e5]).unwrap();
        let same = tape.input(logits.clone()).distillation(&logits, 1.0).unwrap();
        assert_eq!(same.item(), 0.0);
        let x = tape.watch(Tensor::new([1, 2], [-1e5, 1e5]).unwrap());
        let loss = x.distillation(&logits, 1.0).unwrap();
        assert_eq!(loss.item(), 2e5);
        assert_eq!(loss.backward().unwrap().grad_of(&x).unwrap().data(), [-1.0, 1.0]);
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([2, 3]).unwrap());
        let error = |teacher: &[usize], temperature| {
            x.distillation(&Tensor::zeros(teacher).unwrap(), temperature).unwrap_err().to_string()
        };
        assert_eq!(error(&[3, 2], 1.0), "distillation: teacher: expected [2, 3], found [3, 2]");
        assert_eq!(
            error(&[2, 3], 0.0),
            "distillation: temperature: expected a finite number above 0, found 0"
        );
        let vector = tape.input(Tensor::zeros([3]).unwrap());
        let error = vector.distillation(&Tensor::zeros([3]).unwrap(), 1.0).unwrap_err().to_string();
        assert_eq!(error, "distillation: logits: expected [N, K], found [3]");
    }
}
