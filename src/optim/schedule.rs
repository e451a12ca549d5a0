//! The learning rate of every step, as a value.

use crate::{Error, Result};
use std::{collections::BTreeMap, f64::consts::PI, fmt, str::FromStr};

/// How the learning rate moves once warmed up. Rates are at least 0, steps are counted from 0; past its last step a curve
/// stays at its last value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Curve {
    /// Always `lr`.
    Constant {
        /// The rate.
        lr: f32,
    },
    /// Multiplied by `factor` after `every` steps, again and again (`StepLR`).
    Step {
        /// The first rate.
        lr: f32,
        /// Steps between changes.
        every: usize,
        /// What each change multiplies by.
        factor: f32,
    },
    /// Multiplied by `factor` at each of some steps (`MultiStepLR`).
    MultiStep {
        /// The first rate.
        lr: f32,
        /// The steps, in any order.
        at: Vec<usize>,
        /// What each change multiplies by.
        factor: f32,
    },
    /// Half a cosine from `lr` down to `floor` (`CosineAnnealingLR`; Loshchilov and Hutter 2017, equation 5).
    Cosine {
        /// The first rate.
        lr: f32,
        /// Steps on the way.
        steps: usize,
        /// The last rate.
        floor: f32,
    },
    /// Up to a peak and down to nearly nothing, a half cosine each (`OneCycleLR`; Smith and Topin 2018).
    OneCycle {
        /// The highest rate.
        peak: f32,
        /// Steps in all.
        steps: usize,
        /// The part of the steps on the way up, in [0, 1].
        pct_start: f32,
        /// The first rate is the peak divided by this.
        div_factor: f32,
        /// The last rate is the first divided by this.
        final_div_factor: f32,
    },
    /// `lr (1 - step / steps)^power` (`PolynomialLR`).
    Polynomial {
        /// The first rate.
        lr: f32,
        /// Steps on the way to 0.
        steps: usize,
        /// The power; 1 is a straight line.
        power: f32,
    },
}

/// The learning rate of every step: a [`Curve`] and a linear warm-up in front of it. Equal to PyTorch's schedulers of the
/// same names, stepped once a batch.
///
/// It is a value, without a position: the same step has the same rate, whatever came before. Its text, as [`fmt::Display`]
/// writes it and [`FromStr`] reads it, keeps it in a checkpoint.
///
/// ```
/// use skipgrad::optim::Schedule;
/// let schedule = Schedule::one_cycle(0.4, 100);
/// assert_eq!((schedule.lr(0), schedule.lr(29)), (0.016, 0.4));
/// assert_eq!(Schedule::cosine(0.1, 90).warm_up(10).lr(10), 0.1);
/// assert_eq!(schedule.to_string().parse::<Schedule>()?, schedule);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The curve, which begins when the warm-up ends.
    pub curve: Curve,
    /// Steps of the warm-up: a straight line from a tenth of the curve's first rate to the whole of it.
    pub warm_up: usize,
}

/// Where a warm-up starts, as a part of the curve's first rate.
const WARM_UP_START: f64 = 0.1;

impl From<Curve> for Schedule {
    fn from(curve: Curve) -> Schedule {
        Schedule { curve, warm_up: 0 }
    }
}

impl Schedule {
    /// Always `lr`.
    pub fn constant(lr: f32) -> Schedule {
        Curve::Constant { lr }.into()
    }

    /// `lr`, multiplied by `factor` after `every` steps, again and again.
    pub fn step(lr: f32, every: usize, factor: f32) -> Schedule {
        Curve::Step { lr, every, factor }.into()
    }

    /// `lr`, multiplied by `factor` at each of the steps `at`.
    pub fn multi_step(lr: f32, at: &[usize], factor: f32) -> Schedule {
        Curve::MultiStep { lr, at: at.to_vec(), factor }.into()
    }

    /// Half a cosine from `lr` down to 0.
    pub fn cosine(lr: f32, steps: usize) -> Schedule {
        Curve::Cosine { lr, steps, floor: 0.0 }.into()
    }

    /// Up to `peak` in the first 30 % of the steps and down again, from `peak / 25` to `peak / 250000`.
    pub fn one_cycle(peak: f32, steps: usize) -> Schedule {
        Curve::OneCycle { peak, steps, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 }.into()
    }

    /// `lr (1 - step / steps)^power`.
    pub fn polynomial(lr: f32, steps: usize, power: f32) -> Schedule {
        Curve::Polynomial { lr, steps, power }.into()
    }

    /// The same schedule behind a linear warm-up of `steps` steps (Goyal et al. 2017, section 2.2).
    pub fn warm_up(self, steps: usize) -> Schedule {
        Schedule { warm_up: steps, ..self }
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr(&self, step: usize) -> f32 {
        let lr = if step < self.warm_up {
            let done = step as f64 / self.warm_up as f64;
            self.curve.lr(0) * (WARM_UP_START + (1.0 - WARM_UP_START) * done)
        } else {
            self.curve.lr(step - self.warm_up)
        };
        lr as f32
    }
}

impl Curve {
    fn lr(&self, step: usize) -> f64 {
        match self {
            Curve::Constant { lr } => f64::from(*lr),
            Curve::Step { lr, every, factor } => {
                f64::from(*lr) * f64::from(*factor).powf((step / every.max(&1)) as f64)
            }
            Curve::MultiStep { lr, at, factor } => {
                let changes = at.iter().filter(|&&at| at <= step).count();
                f64::from(*lr) * f64::from(*factor).powf(changes as f64)
            }
            Curve::Cosine { lr, steps, floor } => {
                half_cosine(f64::from(*lr), f64::from(*floor), part(step as f64, *steps as f64))
            }
            Curve::OneCycle { peak, steps, pct_start, div_factor, final_div_factor } => {
                let peak = f64::from(*peak);
                let first = peak / f64::from(*div_factor);
                // PyTorch puts the peak at this step, which need not be whole.
                let top = f64::from(*pct_start) * *steps as f64 - 1.0;
                let (step, last) = (step as f64, *steps as f64 - 1.0);
                if step <= top {
                    half_cosine(first, peak, part(step, top))
                } else {
                    let end = first / f64::from(*final_div_factor);
                    half_cosine(peak, end, part(step - top, last - top))
                }
            }
            Curve::Polynomial { lr, steps, power } => {
                f64::from(*lr) * (1.0 - part(step as f64, *steps as f64)).powf(f64::from(*power))
            }
        }
    }

    /// The name and the numbers, as text.
    fn fields(&self) -> (&'static str, Vec<(&'static str, String)>) {
        match self {
            Curve::Constant { lr } => ("constant", vec![("lr", lr.to_string())]),
            Curve::Step { lr, every, factor } => (
                "step",
                vec![("lr", lr.to_string()), ("every", every.to_string()), ("factor", factor.to_string())],
            ),
            Curve::MultiStep { lr, at, factor } => {
                let at: Vec<String> = at.iter().map(usize::to_string).collect();
                let fields =
                    vec![("lr", lr.to_string()), ("at", at.join(",")), ("factor", factor.to_string())];
                ("multi-step", fields)
            }
            Curve::Cosine { lr, steps, floor } => (
                "cosine",
                vec![("lr", lr.to_string()), ("steps", steps.to_string()), ("floor", floor.to_string())],
            ),
            Curve::OneCycle { peak, steps, pct_start, div_factor, final_div_factor } => (
                "one-cycle",
                vec![
                    ("peak", peak.to_string()),
                    ("steps", steps.to_string()),
                    ("pct_start", pct_start.to_string()),
                    ("div_factor", div_factor.to_string()),
                    ("final_div_factor", final_div_factor.to_string()),
                ],
            ),
            Curve::Polynomial { lr, steps, power } => (
                "polynomial",
                vec![("lr", lr.to_string()), ("steps", steps.to_string()), ("power", power.to_string())],
            ),
        }
    }
}

/// How much of a way is done, at most all of it; a way of no length is done.
fn part(done: f64, all: f64) -> f64 {
    if done < all { done / all } else { 1.0 }
}

/// From `from` to `to` along half a cosine, `done` in [0, 1].
fn half_cosine(from: f64, to: f64, done: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (PI * done).cos())
}

/// The curve's name and numbers: `one-cycle peak=0.4 steps=1950 pct_start=0.3 div_factor=25 final_div_factor=10000 warm_up=0`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, fields) = self.curve.fields();
        write!(f, "{name}")?;
        fields.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))?;
        write!(f, " warm_up={}", self.warm_up)
    }
}

/// The names that schedules have in text.
const NAMES: [&str; 6] = ["constant", "step", "multi-step", "cosine", "one-cycle", "polynomial"];

/// Reads what [`fmt::Display`] writes.
impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let fields: BTreeMap<&str, &str> = words.filter_map(|word| word.split_once('=')).collect();
        let curve = match name {
            "constant" => Curve::Constant { lr: number(&fields, "lr")? },
            "step" => Curve::Step {
                lr: number(&fields, "lr")?,
                every: number(&fields, "every")?,
                factor: number(&fields, "factor")?,
            },
            "multi-step" => Curve::MultiStep {
                lr: number(&fields, "lr")?,
                at: numbers(&fields, "at")?,
                factor: number(&fields, "factor")?,
            },
            "cosine" => Curve::Cosine {
                lr: number(&fields, "lr")?,
                steps: number(&fields, "steps")?,
                floor: number(&fields, "floor")?,
            },
            "one-cycle" => Curve::OneCycle {
                peak: number(&fields, "peak")?,
                steps: number(&fields, "steps")?,
                pct_start: number(&fields, "pct_start")?,
                div_factor: number(&fields, "div_factor")?,
                final_div_factor: number(&fields, "final_div_factor")?,
            },
            "polynomial" => Curve::Polynomial {
                lr: number(&fields, "lr")?,
                steps: number(&fields, "steps")?,
                power: number(&fields, "power")?,
            },
            _ => {
                let known = NAMES.to_vec();
                return Err(Error::UnknownName { kind: "schedule", name: name.to_string(), known });
            }
        };
        Ok(Schedule { curve, warm_up: number(&fields, "warm_up")? })
    }
}

fn number<T: FromStr>(fields: &BTreeMap<&str, &str>, name: &'static str) -> Result<T> {
    let text = fields.get(name).copied().unwrap_or_default();
    text.parse().map_err(|_| Error::argument("schedule", name, "a number", format_args!("{text:?}")))
}

fn numbers(fields: &BTreeMap<&str, &str>, name: &'static str) -> Result<Vec<usize>> {
    let text = fields.get(name).copied().unwrap_or_default();
    let parsed = text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect::<Result<_, _>>();
    parsed.map_err(|_| Error::argument("schedule", name, "numbers with commas", format_args!("{text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Schedule> {
        vec![
            Schedule::constant(0.1),
            Schedule::step(0.1, 7, 0.1),
            Schedule::multi_step(0.3, &[3, 20], 0.2),
            Schedule::multi_step(0.3, &[], 0.2),
            Curve::Cosine { lr: 1e-3, steps: 50, floor: 1e-6 }.into(),
            Schedule::one_cycle(0.4, 1950).warm_up(5),
            Schedule::polynomial(0.1, 33, 0.9).warm_up(12),
        ]
    }

    #[test]
    fn text_and_back_is_the_same_value() {
        for schedule in all() {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        let unknown = "sine lr=1".parse::<Schedule>().unwrap_err();
        assert!(unknown.to_string().contains("constant, step, multi-step"), "{unknown}");
        let error = "cosine lr=1 steps=ten floor=0".parse::<Schedule>().unwrap_err();
        assert_eq!(error.to_string(), "schedule: steps: expected a number, found \"ten\"");
        assert!("cosine lr=1 steps=3".parse::<Schedule>().is_err());
    }

    #[test]
    fn every_rate_is_a_number_even_where_a_schedule_has_no_length() {
        let none = [
            Schedule::step(0.1, 0, 0.1),
            Schedule::cosine(0.1, 0),
            Schedule::one_cycle(0.1, 0),
            Schedule::one_cycle(0.1, 1),
            Curve::OneCycle { peak: 0.1, steps: 4, pct_start: 0.25, div_factor: 25.0, final_div_factor: 1e4 }
                .into(),
            Curve::OneCycle { peak: 0.1, steps: 4, pct_start: 1.0, div_factor: 25.0, final_div_factor: 1e4 }
                .into(),
            Schedule::polynomial(0.1, 0, 1.0),
        ];
        for schedule in all().iter().chain(&none) {
            for step in [0, 1, 2, 3, 4, 5, 100, usize::MAX] {
                let lr = schedule.lr(step);
                assert!((0.0..1.0).contains(&lr), "{schedule} at {step}: {lr}");
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
    fn a_warm_up_is_a_straight_line_to_the_first_rate() {
        let schedule = Schedule::constant(1.0).warm_up(9);
        let rates: Vec<f32> = [0, 1, 5, 9, 10].map(|step| schedule.lr(step)).into();
        assert_eq!(rates, [0.1, 0.2, 0.6, 1.0, 1.0]);
    }

    #[test]
    fn rates_by_hand() {
        let one_cycle =
            Curve::OneCycle { peak: 0.5, steps: 10, pct_start: 0.5, div_factor: 5.0, final_div_factor: 10.0 };
        let cases: [(Schedule, &[(usize, f32)]); 7] = [
            (Schedule::step(0.1, 10, 0.5), &[(0, 0.1), (9, 0.1), (10, 0.05), (20, 0.025)]),
            (Schedule::multi_step(0.4, &[3, 20], 0.5), &[(2, 0.4), (3, 0.2), (19, 0.2), (20, 0.1)]),
            (Schedule::cosine(0.1, 10), &[(0, 0.1), (5, 0.05), (10, 0.0)]),
            (Curve::Cosine { lr: 0.3, steps: 4, floor: 0.1 }.into(), &[(2, 0.2), (4, 0.1)]),
            // The peak is at step 0.5 * 10 - 1, the end at step 9.
            (one_cycle.clone().into(), &[(0, 0.1), (2, 0.3), (4, 0.5), (9, 0.01), (10, 0.01)]),
            (Schedule::from(one_cycle).warm_up(1), &[(0, 0.01), (1, 0.1), (3, 0.3), (5, 0.5)]),
            (Schedule::polynomial(0.1, 10, 2.0), &[(0, 0.1), (5, 0.025), (10, 0.0)]),
        ];
        for (schedule, rates) in cases {
            for &(step, expected) in rates {
                let lr = schedule.lr(step);
                assert!((lr - expected).abs() < 1e-7, "{schedule} at {step}: {lr}, not {expected}");
            }
        }
    }

    #[test]
    fn steps_in_text_are_whole_numbers_with_commas() {
        let parsed = |at: &str| format!("multi-step lr=1 at={at} factor=1 warm_up=0").parse::<Schedule>();
        assert_eq!(parsed("3,20").unwrap(), Schedule::multi_step(1.0, &[3, 20], 1.0));
        let error = parsed("3,x").unwrap_err().to_string();
        assert_eq!(error, "schedule: at: expected numbers with commas, found \"3,x\"");
    }
}
