//! Learning-rate schedules: the learning rate of every step, as a value.

use serde::{Deserialize, Deserializer, Serialize};
use std::f64::consts::PI;

/// The shape of a learning-rate schedule after its warmup.
///
/// Learning rates are at least 0 and steps are counted from 0. After its last step a curve stays at
/// its last value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Curve {
    /// The same learning rate at every step (`ConstantLR`).
    Constant {
        /// Learning rate.
        lr: f32,
    },
    /// The learning rate is multiplied by `gamma` every `step_size` steps (`StepLR`).
    Step {
        /// Initial learning rate.
        lr: f32,
        /// Number of steps between two changes.
        step_size: usize,
        /// Factor of each change.
        gamma: f32,
    },
    /// The learning rate is multiplied by `gamma` at each milestone (`MultiStepLR`).
    MultiStep {
        /// Initial learning rate.
        lr: f32,
        /// Steps at which the learning rate changes, in any order.
        milestones: Vec<usize>,
        /// Factor of each change.
        gamma: f32,
    },
    /// Half a cosine from `lr` down to `min_lr` (`CosineAnnealingLR`; Loshchilov and Hutter 2017,
    /// equation 5).
    Cosine {
        /// Initial learning rate.
        lr: f32,
        /// Number of steps from the initial learning rate to the last one.
        steps: usize,
        /// Last learning rate.
        min_lr: f32,
    },
    /// Half a cosine from `lr` down to `min_lr`, again and again (`CosineAnnealingWarmRestarts`;
    /// Loshchilov and Hutter 2017).
    CosineWarmRestarts {
        /// Initial learning rate of each cosine.
        lr: f32,
        /// Number of steps of the first cosine (`T_0`).
        steps: usize,
        /// How many times as long as the one before it a cosine is (`T_mult`), at least 1.
        steps_factor: usize,
        /// Learning rate that each cosine falls to.
        min_lr: f32,
    },
    /// Half a cosine up to `max_lr`, then half a cosine down to almost 0 (`OneCycleLR`; Smith and
    /// Topin 2018).
    OneCycle {
        /// Highest learning rate.
        max_lr: f32,
        /// Number of steps of the whole cycle.
        steps: usize,
        /// Fraction of the steps in which the learning rate rises, in [0, 1].
        pct_start: f32,
        /// The initial learning rate is `max_lr / div_factor`.
        #[serde(deserialize_with = "null_as_infinity")]
        div_factor: f32,
        /// The last learning rate is the initial one divided by this.
        #[serde(deserialize_with = "null_as_infinity")]
        final_div_factor: f32,
    },
    /// `lr (1 - step / steps)^power` (`PolynomialLR`).
    Polynomial {
        /// Initial learning rate.
        lr: f32,
        /// Number of steps until the learning rate is 0.
        steps: usize,
        /// Exponent; 1 is linear decay.
        power: f32,
    },
}

/// Reads an `f32` that may be infinite: JSON has no infinity, and serde_json writes `null` for it.
pub(crate) fn null_as_infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Option::deserialize(deserializer).map(|value| value.unwrap_or(f32::INFINITY))
}

/// The learning rate of every step: a linear warmup, followed by a [`Curve`]. The values equal
/// those of PyTorch's schedulers of the same names when these are stepped once a batch.
///
/// A schedule is a value without a position: the learning rate of a step depends on nothing but the
/// number of the step. It implements serde's traits; checkpoints keep it as JSON.
///
/// ```
/// use skipgrad::optim::Schedule;
/// let schedule = Schedule::one_cycle(0.4, 100);
/// assert_eq!((schedule.lr(0), schedule.lr(29)), (0.016, 0.4));
/// assert_eq!(Schedule::cosine(0.1, 90).warmup(10).lr(10), 0.1);
/// let json = serde_json::to_string(&schedule).unwrap();
/// assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Schedule {
    /// Curve that the learning rate follows after the warmup.
    pub curve: Curve,
    /// Number of warmup steps, in which the learning rate rises linearly from a tenth of the
    /// curve's initial learning rate to the whole of it.
    pub warmup_steps: usize,
}

/// The first learning rate of a warmup, as a fraction of the curve's initial one (`start_factor` of
/// PyTorch's `LinearLR`).
const WARMUP_START_FACTOR: f64 = 0.1;

impl From<Curve> for Schedule {
    fn from(curve: Curve) -> Schedule {
        Schedule { curve, warmup_steps: 0 }
    }
}

impl Schedule {
    /// Returns the schedule with the learning rate `lr` at every step.
    pub fn constant(lr: f32) -> Schedule {
        Curve::Constant { lr }.into()
    }

    /// Returns the schedule that begins at `lr` and is multiplied by `gamma` every `step_size`
    /// steps.
    pub fn step(lr: f32, step_size: usize, gamma: f32) -> Schedule {
        Curve::Step { lr, step_size, gamma }.into()
    }

    /// Returns the schedule that begins at `lr` and is multiplied by `gamma` at each of the steps
    /// `milestones`.
    pub fn multi_step(lr: f32, milestones: &[usize], gamma: f32) -> Schedule {
        Curve::MultiStep { lr, milestones: milestones.to_vec(), gamma }.into()
    }

    /// Returns the schedule of half a cosine from `lr` down to 0.
    pub fn cosine(lr: f32, steps: usize) -> Schedule {
        Curve::Cosine { lr, steps, min_lr: 0.0 }.into()
    }

    /// Returns the schedule of half a cosine from `lr` down to 0, which begins again after `steps`
    /// steps, and then after `steps_factor` times as many, and so on.
    ///
    /// ```
    /// use skipgrad::optim::Schedule;
    /// let schedule = Schedule::cosine_warm_restarts(0.1, 10, 2);
    /// assert_eq!([0, 5, 10, 20, 30].map(|step| schedule.lr(step)), [0.1, 0.05, 0.1, 0.05, 0.1]);
    /// ```
    pub fn cosine_warm_restarts(lr: f32, steps: usize, steps_factor: usize) -> Schedule {
        Curve::CosineWarmRestarts { lr, steps, steps_factor, min_lr: 0.0 }.into()
    }

    /// Returns the schedule that rises from `max_lr / 25` to `max_lr` in the first 30 % of the
    /// steps and falls to `max_lr / 250000` in the others.
    pub fn one_cycle(max_lr: f32, steps: usize) -> Schedule {
        Curve::OneCycle { max_lr, steps, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }.into()
    }

    /// Returns the schedule `lr (1 - step / steps)^power`.
    pub fn polynomial(lr: f32, steps: usize, power: f32) -> Schedule {
        Curve::Polynomial { lr, steps, power }.into()
    }

    /// Puts a linear warmup of `steps` steps before the curve (Goyal et al. 2017, section 2.2).
    pub fn warmup(self, steps: usize) -> Schedule {
        Schedule { warmup_steps: steps, ..self }
    }

    /// Returns the learning rate of a step, counted from 0.
    pub fn lr(&self, step: usize) -> f32 {
        let lr = if step < self.warmup_steps {
            let done = step as f64 / self.warmup_steps as f64;
            self.curve.lr(0) * (WARMUP_START_FACTOR + (1.0 - WARMUP_START_FACTOR) * done)
        } else {
            self.curve.lr(step - self.warmup_steps)
        };
        lr as f32
    }
}

impl Curve {
    fn lr(&self, step: usize) -> f64 {
        match self {
            Curve::Constant { lr } => f64::from(*lr),
            Curve::Step { lr, step_size, gamma } => {
                f64::from(*lr) * f64::from(*gamma).powf((step / step_size.max(&1)) as f64)
            }
            Curve::MultiStep { lr, milestones, gamma } => {
                let changes = milestones.iter().filter(|&&milestone| milestone <= step).count();
                f64::from(*lr) * f64::from(*gamma).powf(changes as f64)
            }
            Curve::Cosine { lr, steps, min_lr } => {
                half_cosine(f64::from(*lr), f64::from(*min_lr), fraction(step as f64, *steps as f64))
            }
            Curve::CosineWarmRestarts { lr, steps, steps_factor, min_lr } => {
                let (done, length) = since_restart(step, (*steps).max(1), *steps_factor);
                half_cosine(f64::from(*lr), f64::from(*min_lr), fraction(done as f64, length as f64))
            }
            Curve::OneCycle { max_lr, steps, pct_start, div_factor, final_div_factor } => {
                let max_lr = f64::from(*max_lr);
                let initial = max_lr / f64::from(*div_factor);
                // As in PyTorch, the step of the highest learning rate need not be a whole number.
                let top = f64::from(*pct_start) * *steps as f64 - 1.0;
                let (step, last) = (step as f64, *steps as f64 - 1.0);
                if step <= top {
                    half_cosine(initial, max_lr, fraction(step, top))
                } else {
                    let end = initial / f64::from(*final_div_factor);
                    half_cosine(max_lr, end, fraction(step - top, last - top))
                }
            }
            Curve::Polynomial { lr, steps, power } => {
                f64::from(*lr) * (1.0 - fraction(step as f64, *steps as f64)).powf(f64::from(*power))
            }
        }
    }
}

/// Returns the number of steps since the last restart, and how many there are until the next one,
/// both from that restart on.
fn since_restart(step: usize, length: usize, factor: usize) -> (usize, usize) {
    if factor <= 1 {
        return (step % length, length);
    }
    let (mut step, mut length) = (step, length);
    while step >= length {
        step -= length;
        length = length.saturating_mul(factor);
    }
    (step, length)
}

/// Returns `done / all`, at most 1; where `all` is 0, everything is done.
fn fraction(done: f64, all: f64) -> f64 {
    if done < all { done / all } else { 1.0 }
}

/// Interpolates between `from` and `to` along half a cosine, for `done` in [0, 1].
fn half_cosine(from: f64, to: f64, done: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * done).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_cycle(pct_start: f32, final_div_factor: f32) -> Schedule {
        Curve::OneCycle { max_lr: 0.1, steps: 4, pct_start, div_factor: 25.0, final_div_factor }.into()
    }

    fn all() -> Vec<Schedule> {
        vec![
            Schedule::constant(0.1),
            Schedule::step(0.1, 7, 0.1),
            Schedule::multi_step(0.3, &[3, 20], 0.2),
            Schedule::multi_step(0.3, &[], 0.2),
            Curve::Cosine { lr: 1e-3, steps: 50, min_lr: 1e-6 }.into(),
            Schedule::one_cycle(0.4, 1950).warmup(5),
            one_cycle(0.5, f32::INFINITY),
            Schedule::polynomial(0.1, 33, 0.9).warmup(12),
            Schedule::cosine_warm_restarts(0.1, 10, 2).warmup(3),
        ]
    }

    #[test]
    fn json_and_back_is_the_same_value() {
        let parse = |json: &str| serde_json::from_str::<Schedule>(json);
        for schedule in all() {
            let json = serde_json::to_string(&schedule).unwrap();
            assert_eq!(parse(&json).unwrap(), schedule, "{json}");
        }
        let error = |json: &str| parse(json).unwrap_err().to_string();
        let unknown = error(r#"{"curve":{"sine":{"lr":1}},"warmup_steps":0}"#);
        assert!(unknown.contains("`constant`, `step`, `multi_step`"), "{unknown}");
        let text = error(r#"{"curve":{"cosine":{"lr":1,"steps":"ten","min_lr":0}},"warmup_steps":0}"#);
        assert!(text.contains("invalid type: string \"ten\", expected usize"), "{text}");
        let missing = error(r#"{"curve":{"cosine":{"lr":1,"steps":3}},"warmup_steps":0}"#);
        assert!(missing.contains("missing field `min_lr`"), "{missing}");
        assert!(error(r#"{"curve":{"constant":{"lr":1}}}"#).contains("missing field `warmup_steps`"));
    }

    #[test]
    fn every_rate_is_a_number_even_where_a_schedule_has_no_length() {
        let none = [
            Schedule::step(0.1, 0, 0.1),
            Schedule::cosine(0.1, 0),
            Schedule::one_cycle(0.1, 0),
            Schedule::one_cycle(0.1, 1),
            one_cycle(0.25, 1e4),
            one_cycle(1.0, 1e4),
            Schedule::polynomial(0.1, 0, 1.0),
        ];
        for schedule in all().iter().chain(&none) {
            for step in [0, 1, 2, 3, 4, 5, 100, usize::MAX] {
                let lr = schedule.lr(step);
                assert!((0.0..1.0).contains(&lr), "{schedule:?} at {step}: {lr}");
            }
        }
    }

    #[test]
    fn past_the_end_the_last_rate_stays() {
        assert_eq!(Schedule::cosine(0.1, 10).lr(11), 0.0);
        assert_eq!(Schedule::one_cycle(0.25, 10).lr(50), 1e-6);
        assert_eq!(Schedule::step(0.1, 10, 0.5).lr(25), 0.025);
    }

    #[test]
    fn a_warmup_is_linear_up_to_the_initial_rate() {
        let schedule = Schedule::constant(1.0).warmup(9);
        let rates: Vec<f32> = [0, 1, 5, 9, 10].map(|step| schedule.lr(step)).into();
        assert_eq!(rates, [0.1, 0.2, 0.6, 1.0, 1.0]);
    }

    #[test]
    fn rates_by_hand() {
        let one_cycle = Curve::OneCycle {
            max_lr: 0.5,
            steps: 10,
            pct_start: 0.5,
            div_factor: 5.0,
            final_div_factor: 10.0,
        };
        let cases: [(Schedule, &[(usize, f32)]); 7] = [
            (Schedule::step(0.1, 10, 0.5), &[(0, 0.1), (9, 0.1), (10, 0.05), (20, 0.025)]),
            (Schedule::multi_step(0.4, &[3, 20], 0.5), &[(2, 0.4), (3, 0.2), (19, 0.2), (20, 0.1)]),
            (Schedule::cosine(0.1, 10), &[(0, 0.1), (5, 0.05), (10, 0.0)]),
            (Curve::Cosine { lr: 0.3, steps: 4, min_lr: 0.1 }.into(), &[(2, 0.2), (4, 0.1)]),
            // The peak is at step 0.5 * 10 - 1, the end at step 9.
            (one_cycle.clone().into(), &[(0, 0.1), (2, 0.3), (4, 0.5), (9, 0.01), (10, 0.01)]),
            (Schedule::from(one_cycle).warmup(1), &[(0, 0.01), (1, 0.1), (3, 0.3), (5, 0.5)]),
            (Schedule::polynomial(0.1, 10, 2.0), &[(0, 0.1), (5, 0.025), (10, 0.0)]),
        ];
        for (schedule, rates) in cases {
            for &(step, expected) in rates {
                let lr = schedule.lr(step);
                assert!((lr - expected).abs() < 1e-7, "{schedule:?} at {step}: {lr}, not {expected}");
            }
        }
    }
}
