//! Whether the pixels that the model gets are normalized.

use super::{
    diagnosis::{ChannelStats, Diagnosis},
    finding::{Finding, FindingKind, Severity},
};
use crate::Tensor;

pub(super) const NAME: &str = "inputs";

/// The largest mean of a channel, and the range of its deviation. Images that are scaled to [-1, 1]
/// have a deviation of about one half.
const MEAN: f64 = 1.0;
const STD: [f64; 2] = [0.35, 3.0];

/// The sums over the pixels so far.
#[derive(Default)]
pub(super) struct Inputs {
    channels: Vec<Sums>,
    not_finite: usize,
}

#[derive(Clone, Copy)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
    min: f32,
    max: f32,
}

impl Default for Sums {
    fn default() -> Sums {
        Sums { count: 0.0, sum: 0.0, squares: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY }
    }
}

impl Inputs {
    /// Adds images, `[N, H, W, C]`.
    pub(super) fn add(&mut self, images: &Tensor) {
        let channels = images.shape().num_channels();
        self.channels.resize(channels, Sums::default());
        for pixel in images.data().chunks_exact(channels.max(1)) {
            for (sums, &x) in self.channels.iter_mut().zip(pixel) {
                if !x.is_finite() {
                    self.not_finite += 1;
                    continue;
                }
                sums.count += 1.0;
                sums.sum += f64::from(x);
                sums.squares += f64::from(x) * f64::from(x);
                (sums.min, sums.max) = (sums.min.min(x), sums.max.max(x));
            }
        }
    }

    /// Judges the sums. Returns whether all pixels are finite.
    pub(super) fn judge(self, diagnosis: &mut Diagnosis) -> bool {
        diagnosis.channels = self.channels.iter().map(stats).collect();
        let channels = &diagnosis.channels;
        let range = |f: fn(&ChannelStats) -> f64| {
            let fold = |[low, high]: [f64; 2], x: f64| [low.min(x), high.max(x)];
            channels.iter().map(f).fold([f64::INFINITY, f64::NEG_INFINITY], fold)
        };
        let [[mean_low, mean_high], [std_low, std_high], [min, _], [_, max]] =
            [range(|c| c.mean), range(|c| c.std), range(|c| c.min.into()), range(|c| c.max.into())];
        let measured = format!(
            "mean {mean_low:.2} to {mean_high:.2}, deviation {std_low:.2} to {std_high:.2}, all in [{min:.2}, {max:.2}]"
        );
        if self.not_finite > 0 {
            let message = format!(
                "{} pixels are not finite, so the loss cannot be either. Look at the files and at the \
                 transforms that make them.",
                self.not_finite
            );
            let kind = FindingKind::NotFinite;
            diagnosis.add(Finding::new(kind, Severity::Error, self.not_finite as f64, message));
            diagnosis.check(NAME, measured, false, "pixels that are not finite");
            return false;
        }
        let mean = mean_low.abs().max(mean_high.abs());
        let is_normalized = min < 0.0 && mean <= MEAN && std_low >= STD[0] && std_high <= STD[1];
        if !is_normalized {
            let message = format!(
                "The images are not normalized: their channels have means of {mean_low:.2} to {mean_high:.2} and \
                 deviations of {std_low:.2} to {std_high:.2}, and lie in [{min:.2}, {max:.2}]. Add `Normalize` \
                 with the mean and deviation of the training images (`Normalize::fit` computes them) to the \
                 transforms of both loaders, so that they become about 0 and 1."
            );
            let value = if mean_high.abs() > mean_low.abs() { mean_high } else { mean_low };
            diagnosis.add(Finding::new(FindingKind::UnnormalizedInputs, Severity::Warning, value, message));
        }
        diagnosis.check(
            NAME,
            measured,
            is_normalized,
            if is_normalized { "normalized" } else { "not normalized" },
        );
        true
    }
}

fn stats(sums: &Sums) -> ChannelStats {
    let mean = sums.sum / sums.count;
    let std = (sums.squares / sums.count - mean * mean).max(0.0).sqrt();
    ChannelStats { mean, std, min: sums.min, max: sums.max }
}
