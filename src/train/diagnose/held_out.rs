//! Whether the labels have to do with the images: after a short training, those of other images
//! must be predicted better than by chance.
//!
//! "By chance" is a random exchange of the labels among these images. The loss with the true labels
//! is compared with the mean and the standard deviation that it has over all such exchanges, both
//! in closed form (Hoeffding 1951, "A combinatorial central limit theorem"). So it matters neither
//! how frequent the classes are, nor how sure of itself the model is, nor how much it has learned
//! by heart: if labels are shuffled, the score is about a standard normal number, for any model.

use super::{
    diagnosis::{Diagnosis, HeldOut},
    finding::{Finding, FindingKind, Severity},
    options::DiagnoseOptions,
    pass::{Sample, gradients, logits},
    restored::Restored,
};
use crate::{
    Result, Rng,
    data::Loader,
    nn::Module,
    optim::{Adam, Optimizer},
};

pub(super) const NAME: &str = "held-out images";

/// The learning rate of Adam.
const RATE: f32 = 1e-3;

/// The score at which labels have to do with images. Shuffled labels reach it in one of 30,000
/// evaluations.
const SCORE: f64 = 4.0;

/// The number of steps between two evaluations.
const EVERY: usize = 20;

/// The number of images to hold out, and the fewest to train on for a verdict: that many, and that
/// many of each class.
const HELD_OUT: usize = 256;
const TRAINED: usize = 512;
const TRAINED_OF_CLASS: usize = 10;

/// Trains on some images until the labels of others are predicted better than by chance, and judges
/// whether they are. `classes` is the number of classes.
pub(super) fn judge(
    run: &mut Restored<'_>,
    train: &Loader,
    classes: usize,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let batches = HELD_OUT.div_ceil(train.batch_size()).min(train.num_batches() / 4);
    let images = train.num_samples().saturating_sub(batches * train.batch_size());
    if batches == 0 || images < TRAINED.max(TRAINED_OF_CLASS * classes) {
        diagnosis.skip(NAME, "there are too few images");
        return Ok(());
    }
    let held_out = hold_out(train, batches, options)?;
    let result = train_until(run, train, batches, &held_out, options);
    run.restore()?;
    let Some(result) = result? else {
        diagnosis.skip(NAME, "the predictions do not depend on the image, or all labels are the same");
        return Ok(());
    };
    let HeldOut { images, steps, loss, loss_of_exchanged, score } = result;
    let is_related = score >= SCORE;
    if !is_related {
        let message = format!(
            "The labels look unrelated to the images: after {steps} steps, the loss of {images} images that were \
             held out is {loss:.2}, and {loss_of_exchanged:.2} if their labels are exchanged at random, a \
             difference of {score:.1} standard deviations where {SCORE} would be evidence, although the model can \
             memorize a batch. Look at some images with their labels: were one of the two shuffled or sorted \
             alone? A very hard problem looks the same after so few steps; more of them \
             (`DiagnoseOptions::held_out_steps`) tell."
        );
        diagnosis.add(Finding::new(FindingKind::ShuffledLabels, Severity::Warning, score, message));
    }
    let measured = format!(
        "loss {loss:.2}, {loss_of_exchanged:.2} with exchanged labels, after {steps} steps: {score:.1} deviations"
    );
    let verdict = if is_related { "labels fit images" } else { "labels look shuffled" };
    diagnosis.check(NAME, measured, is_related, verdict);
    diagnosis.held_out = Some(result);
    Ok(())
}

/// Returns the first images of the first epoch.
fn hold_out(train: &Loader, batches: usize, options: &DiagnoseOptions) -> Result<Vec<Sample>> {
    let (mut samples, mut images) = (vec![], 0);
    for batch in train.epoch(0)?.take(batches) {
        for sample in Sample::split(&batch?, options.images_per_step)? {
            if images < HELD_OUT {
                images += sample.labels.len();
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// Trains on the batches after the first ones until the score is high enough, or the steps are
/// used up. Returns `None` if there is no score.
fn train_until(
    run: &mut Restored<'_>,
    train: &Loader,
    held_out_batches: usize,
    held_out: &[Sample],
    options: &DiagnoseOptions,
) -> Result<Option<HeldOut>> {
    let (mut adam, mut step, mut result) = (Adam::new(RATE), 0, None);
    // The same epoch again and again: another one would train on the images that are held out.
    loop {
        for batch in train.epoch_from(0, held_out_batches)? {
            for sample in Sample::split(&batch?, options.images_per_step)? {
                // A normalization may need more than one image.
                if sample.labels.len() < 2 {
                    continue;
                }
                options.show(NAME, step, options.held_out_steps);
                let rng = Rng::keyed(options.seed, 2, step as u64);
                let (loss, updates) = gradients(&*run.model, &sample, rng)?;
                if !loss.is_finite() {
                    return Ok(result);
                }
                adam.step(&mut *run.model, updates)?;
                step += 1;
                let is_last = step >= options.held_out_steps;
                if step.is_multiple_of(EVERY) || is_last {
                    result = evaluate(&*run.model, held_out, step, options.seed)?;
                    if is_last || result.is_some_and(|held_out| held_out.score >= SCORE) {
                        return Ok(result);
                    }
                }
            }
        }
    }
}

/// Evaluates the model on images that were held out, with the statistics of their batches: the
/// running statistics are not yet known well.
fn evaluate(model: &dyn Module, held_out: &[Sample], steps: usize, seed: u64) -> Result<Option<HeldOut>> {
    let (mut losses, mut labels, mut classes) = (vec![], vec![], 0);
    for (i, sample) in held_out.iter().enumerate() {
        let logits = logits(model, &sample.images, Rng::keyed(seed, 3, i as u64))?;
        classes = logits.shape().num_channels();
        logits.data().chunks_exact(classes.max(1)).for_each(|row| losses.extend(cross_entropies(row)));
        labels.extend_from_slice(&sample.labels);
    }
    Ok(compare(&losses, &labels, classes).map(|held_out| HeldOut { steps, ..held_out }))
}

/// Returns the cross-entropy of a row of logits with every class.
fn cross_entropies(row: &[f32]) -> impl Iterator<Item = f64> {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    row.iter().map(move |&x| largest + sum.ln() - f64::from(x))
}

/// Compares the mean loss with that of exchanged labels. `losses` has a row for each image, with
/// the loss of each class.
fn compare(losses: &[f64], labels: &[usize], classes: usize) -> Option<HeldOut> {
    let images = labels.len();
    let n = images as f64;
    let mut shares = vec![0.0; classes];
    labels.iter().for_each(|&label| shares[label] += 1.0 / n);
    let rows = || losses.chunks_exact(classes.max(1));
    let loss = rows().zip(labels).map(|(row, &label)| row[label]).sum::<f64>() / n;
    let class_mean = |class: usize| rows().map(|row| row[class]).sum::<f64>() / n;
    let class_means: Vec<f64> = (0..classes).map(class_mean).collect();
    let mean = dot(&class_means, &shares);
    let squares: f64 = rows()
        .map(|row| {
            let row_mean = dot(row, &shares);
            let squares = row.iter().zip(&class_means).zip(&shares);
            squares
                .map(|((x, class_mean), share)| share * (x - row_mean - class_mean + mean).powi(2))
                .sum::<f64>()
        })
        .sum();
    // The variance of the sum over images is n / (n - 1) times the mean square over labels.
    let std = (squares * n / (n - 1.0)).sqrt() / n;
    let score = (mean - loss) / std;
    let is_known = std > 1e-9 && score.is_finite();
    is_known.then_some(HeldOut { images, steps: 0, loss, loss_of_exchanged: mean, score })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses of 60 images and 3 classes that are lower for their own label by `gain`.
    fn losses(labels: &[usize], gain: f64, rng: &mut Rng) -> Vec<f64> {
        let loss = |label: usize, class: usize, noise: f32| {
            1.0 + f64::from(noise) - if label == class { gain } else { 0.0 }
        };
        let row = |&label: &usize| (0..3).map(|class| loss(label, class, rng.normal())).collect::<Vec<_>>();
        labels.iter().flat_map(row).collect()
    }

    fn labels(rng: &mut Rng) -> Vec<usize> {
        (0..60).map(|_| [0, 0, 0, 1, 2][rng.below(5)]).collect()
    }

    #[test]
    fn mean_and_deviation_are_those_of_random_exchanges() {
        let mut rng = Rng::seed(0);
        let mut labels = labels(&mut rng);
        let losses = losses(&labels, 0.5, &mut rng);
        let found = compare(&losses, &labels, 3).unwrap();
        let mut sums = [0.0; 2];
        let exchanges = 20_000;
        for _ in 0..exchanges {
            rng.shuffle(&mut labels);
            let loss = losses.chunks(3).zip(&labels).map(|(row, &label)| row[label]).sum::<f64>() / 60.0;
            sums = [sums[0] + loss, sums[1] + loss * loss];
        }
        let mean = sums[0] / f64::from(exchanges);
        let std = (sums[1] / f64::from(exchanges) - mean * mean).sqrt();
        assert!((found.loss_of_exchanged - mean).abs() < 0.05 * std, "{found:?} {mean}");
        assert!(((mean - found.loss) / std / found.score - 1.0).abs() < 0.03, "{found:?} {std}");
    }

    #[test]
    fn labels_without_relation_score_as_a_normal_number_and_others_high() {
        let mut rng = Rng::seed(1);
        let mut score = |gain| {
            let labels = labels(&mut rng);
            compare(&losses(&labels, gain, &mut rng), &labels, 3).unwrap().score
        };
        let scores: Vec<f64> = (0..2000).map(|_| score(0.0)).collect();
        let mean = scores.iter().sum::<f64>() / 2000.0;
        let variance = scores.iter().map(|score| score * score).sum::<f64>() / 2000.0;
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "{mean} {variance}");
        assert!(scores.iter().all(|score| score.abs() < SCORE));
        assert!((0..100).all(|_| score(2.0) > SCORE));
    }

    #[test]
    fn constant_predictions_and_a_single_class_have_no_score() {
        assert!(compare(&[1.0, 2.0, 1.0, 2.0], &[0, 1], 2).is_none());
        assert!(compare(&[1.0, 2.0, 3.0, 2.0], &[1, 1], 2).is_none());
        assert!(compare(&[f64::NAN, 2.0, 3.0, 2.0], &[0, 1], 2).is_none());
    }
}
