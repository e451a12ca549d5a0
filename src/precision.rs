//! The precision of a pass: the type in which its operations multiply.

use crate::{Error, Result, kernels::Engine};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Once};

/// The type in which the operations of a pass multiply, as `torch.autocast` sets it.
///
/// | operations | `F32` | `Bf16` |
/// |---|---|---|
/// | `conv2d` and `linear`, forward and backward | f32 | operands rounded to bf16, sums f32 |
/// | all others, also `dense_block` | f32 | f32 |
///
/// A bf16 number is the upper half of an f32: it has the same exponents, so that losses need no
/// scaling, and 8 bits of precision. Values between operations, parameters, their gradients and
/// the state of optimizers are f32 with every precision.
///
/// Products in bf16 have the same bits on every processor, and on any number of threads. They are
/// fast where the processor has matrix units for bf16 (AMX); elsewhere they take longer than those
/// in f32.
///
/// ```
/// use skipgrad::{Precision, Rng, Tensor, autograd::Tape};
/// let product = |precision| {
///     let tape = Tape::train(Rng::seed(0)).precision(precision);
///     let x = tape.input(Tensor::new([1, 2], [257.0, 1.0])?);
///     let weight = tape.input(Tensor::new([2, 1], [1.0, 0.5])?);
///     Ok::<f32, skipgrad::Error>(x.linear(&weight, None)?.item())
/// };
/// assert_eq!(product(Precision::F32)?, 257.5);
/// assert_eq!(product(Precision::Bf16)?, 256.5);
/// assert_eq!("bf16".parse::<Precision>()?, Precision::Bf16);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// Everything is f32.
    #[default]
    F32,
    /// Convolutions and linear layers multiply in bf16.
    Bf16,
    /// `Bf16` where the processor has matrix units for it, otherwise `F32`. The first pass logs
    /// which at the info level.
    Auto,
}

impl Precision {
    /// Returns whether convolutions and linear layers multiply in bf16 on this processor.
    pub fn is_bf16(self) -> bool {
        static LOGGED: Once = Once::new();
        match self {
            Precision::F32 => false,
            Precision::Bf16 => true,
            Precision::Auto => {
                let is_fast = Engine::active() == Engine::Amx;
                LOGGED.call_once(|| {
                    let chosen = if is_fast { Precision::Bf16 } else { Precision::F32 };
                    log::info!("precision auto: {chosen}, with the engine {}", Engine::active().name());
                });
                is_fast
            }
        }
    }
}

/// Formats the name: `f32`, `bf16` or `auto`.
impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Auto => "auto",
        })
    }
}

/// Parses a name.
impl FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Precision> {
        [Precision::F32, Precision::Bf16, Precision::Auto]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| Error::argument("precision", "name", "f32, bf16 or auto", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_formatted() {
        for name in ["f32", "bf16", "auto"] {
            assert_eq!(name.parse::<Precision>().unwrap().to_string(), name);
            let json = serde_json::to_string(&name.parse::<Precision>().unwrap()).unwrap();
            assert_eq!(json, format!("{name:?}"));
        }
        let error = "fp16".parse::<Precision>().unwrap_err().to_string();
        assert_eq!(error, "precision: name: expected f32, bf16 or auto, found fp16");
    }

    #[test]
    fn auto_is_bf16_on_matrix_units_alone() {
        assert_eq!(Precision::Auto.is_bf16(), Engine::active() == Engine::Amx);
        assert!(Precision::Bf16.is_bf16() && !Precision::F32.is_bf16());
    }
}
