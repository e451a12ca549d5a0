//! Grad-CAM: the regions of an image that the logit of a class depends on (Selvaraju et al. 2017,
//! "Grad-CAM: visual explanations from deep networks via gradient-based localization").

use crate::{
    Error, Result, Tensor,
    autograd::{Mode, Tape},
    install,
    nn::Module,
};

/// The heat map of one image for one class; [`grad_cam`] computes it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HeatMap {
    /// The class that the map explains.
    pub class: usize,
    /// The predicted probability of the class, in [0, 1].
    pub probability: f32,
    /// The influence of each region, `[H, W]` of the layer's feature maps. Values are in [0, 1],
    /// and the largest one is 1 unless nothing speaks for the class.
    pub heat: Tensor,
}

impl HeatMap {
    /// Returns the map at another size, `rows * columns` values in [0, 1], row by row. They are
    /// interpolated bilinearly between the centers of the regions.
    ///
    /// See [`grad_cam`] for an example.
    pub fn resized(&self, [rows, columns]: [usize; 2]) -> Vec<f32> {
        let [height, width] = [0, 1].map(|axis| self.heat.shape()[axis]);
        let between = |to: usize, at: usize, from: usize| {
            let x = ((at as f32 + 0.5) * from as f32 / to as f32 - 0.5).clamp(0.0, from as f32 - 1.0);
            (x as usize, (x as usize + 1).min(from - 1), x.fract())
        };
        let heat = self.heat.data();
        let mut resized = Vec::with_capacity(rows * columns);
        for y in 0..rows {
            let (above, below, down) = between(rows, y, height);
            for x in 0..columns {
                let (left, right, across) = between(columns, x, width);
                let row = |y: usize| {
                    let (left, right) = (heat[y * width + left], heat[y * width + right]);
                    left + across * (right - left)
                };
                resized.push(row(above) + down * (row(below) - row(above)));
            }
        }
        resized
    }
}

/// Computes the heat map of each image for its class in `classes`, or for the class that is
/// predicted if that is `None`.
///
/// For the feature maps A of a layer and the logit y of the class, the weights are `α[k]` = mean of
/// `∂y / ∂A[k]` over the pixels (equation 1), and the heat map is `relu(Σ α[k] A[k])` (equation 2),
/// divided by its largest value. `images` are `[N, H, W, C]`, as the network expects them, and
/// `layer` is a name as in [`ModuleExt::feature_maps`](super::ModuleExt::feature_maps). The layer
/// is usually the last one before the pooling, which [`grad_cam_layer`] finds. Earlier ones have
/// more pixels and less specific features.
///
/// # Errors
/// [`Error::UnknownModule`] for another name; [`Error::Argument`] if the logits do not depend on
/// the layer, if its output is not `[N, H, W, C]`, and if `classes` are not `N` classes below the
/// number of logits; and the errors of the network.
///
/// ```
/// use skipgrad::{Rng, Tensor, graph::{grad_cam, grad_cam_layer}, models::ResNet};
/// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
/// let images = Tensor::uniform([2, 32, 32, 3], 0.0, 1.0, &mut Rng::seed(1))?;
/// assert_eq!(grad_cam_layer(&model, &[32, 32, 3])?.as_deref(), Some("layer3"));
/// let maps = grad_cam(&model, &images, "layer3", Some(&[3, 7]))?;
/// assert_eq!((maps[1].class, &maps[1].heat.shape()[..]), (7, &[8, 8][..]));
/// assert_eq!(maps[0].resized([32, 32]).len(), 1024);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn grad_cam<M: Module + ?Sized>(
    model: &M,
    images: &Tensor,
    layer: &str,
    classes: Option<&[usize]>,
) -> Result<Vec<HeatMap>> {
    install(|| explain(model, images, layer, classes))
}

fn explain<M: Module + ?Sized>(
    model: &M,
    images: &Tensor,
    layer: &str,
    classes: Option<&[usize]>,
) -> Result<Vec<HeatMap>> {
    let tape = Tape::eval().recording(true);
    let found = super::feature_maps::feature_maps(model, &tape.input(images.clone()), &[layer, ""])?;
    let (maps, logits) = (&found[0], &found[1]);
    let [_, height, width, channels] = maps.shape().nhwc("grad_cam", "layer")?;
    let num_classes = logits.shape().num_channels();
    let classes = classes.map_or_else(|| logits.argmax(), <[usize]>::to_vec);
    if classes.len() != images.shape()[0] || classes.iter().any(|&class| class >= num_classes) {
        let expected = format!("{} classes below {num_classes}", images.shape()[0]);
        return Err(Error::argument("grad_cam", "classes", expected, format_args!("{classes:?}")));
    }
    // Images are independent in evaluation mode: one backward pass gives the gradients of all.
    let one_hot = Tensor::from_fn(logits.shape(), |i| {
        f32::from(u8::from(classes[i / num_classes] == i % num_classes))
    })?;
    let probabilities = logits.softmax()?.value().clone();
    let updates = logits.backward_from(one_hot)?;
    let gradients = updates
        .grad_of(maps)
        .ok_or_else(|| Error::argument("grad_cam", "layer", "a module before the head", layer))?;
    let size = height * width * channels;
    let parts = maps.value().data().chunks(size).zip(gradients.data().chunks(size));
    let of_image = |(i, (maps, gradients)): (usize, (&[f32], &[f32]))| {
        let heat = Tensor::new([height, width], heat(maps, gradients, channels))?;
        let probability = probabilities.data()[i * num_classes + classes[i]];
        Ok(HeatMap { class: classes[i], probability, heat })
    };
    parts.enumerate().map(of_image).collect()
}

/// Returns the heat map of one image, from its feature maps and their gradients, `[H, W, C]`.
fn heat(maps: &[f32], gradients: &[f32], channels: usize) -> Vec<f32> {
    let pixels = (maps.len() / channels) as f32;
    let mut weights = vec![0.0; channels];
    for pixel in gradients.chunks(channels) {
        weights.iter_mut().zip(pixel).for_each(|(w, g)| *w += g / pixels);
    }
    let weighted = |pixel: &[f32]| pixel.iter().zip(&weights).map(|(a, w)| a * w).sum::<f32>().max(0.0);
    let mut heat: Vec<f32> = maps.chunks(channels).map(weighted).collect();
    let largest = heat.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    heat.iter_mut().for_each(|heat| *heat /= largest);
    heat
}

/// Returns the path of the last module whose output has several pixels, for images of a shape
/// `[H, W, C]`: the one whose feature maps [`grad_cam`] usually weights. `None` if there is no such
/// module. Nothing is computed.
///
/// # Errors
/// The errors of the network for such an image.
pub fn grad_cam_layer<M: Module + ?Sized>(model: &M, image: &[usize]) -> Result<Option<String>> {
    let shape = [&[1], image].concat();
    let meta = Tape::meta(Mode::Eval).capture_all(model);
    meta.placeholder(&shape)?.apply(model)?;
    let paths: Vec<String> = meta.module_paths().into_iter().filter(|path| !path.is_empty()).collect();
    let tape = Tape::meta(Mode::Eval);
    let x = tape.placeholder(&shape)?;
    let outputs = tape.capture_outputs(model, &paths, || x.apply(model))?;
    let has_pixels = |shape: &[usize]| matches!(shape, [_, height, width, _] if height * width > 1);
    let mut found = outputs.iter().zip(paths).rev();
    let last = found.find(|(output, _)| output.as_ref().is_some_and(|output| has_pixels(output.shape())));
    Ok(last.map(|(_, path)| path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        nn::{Conv2d, Flatten, GlobalAvgPool, Linear, Relu, Sequential},
    };

    #[test]
    fn a_map_by_hand() {
        // Two channels, two pixels; the gradients weigh the channels with 1 and -0.5.
        let found = heat(&[1.0, 2.0, 4.0, 2.0], &[0.5, -1.0, 1.5, 0.0], 2);
        assert_eq!(found, [0.0, 1.0]);
        assert_eq!(heat(&[1.0, 1.0], &[-1.0, -1.0], 1), [0.0, 0.0], "nothing speaks for the class");
    }

    #[test]
    fn maps_are_resized_between_the_centers() {
        let heat = Tensor::new([1, 2], [0.0, 1.0]).unwrap();
        let map = HeatMap { class: 0, probability: 0.5, heat };
        assert_eq!(map.resized([1, 4]), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(map.resized([2, 2]), [0.0, 1.0, 0.0, 1.0]);
    }

    /// A network whose logit of class 1 is the mean of the brightness.
    fn brightness() -> Sequential {
        let mut rng = Rng::seed(0);
        let mut net = Sequential::new()
            .named("conv", Conv2d::builder(1, 1, 1).build(&mut rng).unwrap())
            .unwrap()
            .push(Relu)
            .push(GlobalAvgPool)
            .named("head", Linear::builder(1, 2).bias(false).build(&mut rng).unwrap())
            .unwrap();
        let mut tensors = crate::autograd::State::export(&net);
        for (name, tensor) in &mut tensors {
            let values = if name.starts_with("conv") { vec![1.0] } else { vec![-1.0, 1.0] };
            *tensor = Tensor::new(tensor.shape(), values).unwrap();
        }
        crate::autograd::State::import(&mut net, tensors).unwrap();
        net
    }

    #[test]
    fn the_bright_pixel_is_hot_for_the_class_of_bright_images() {
        let net = brightness();
        let image = Tensor::from_fn([1, 4, 4, 1], |i| f32::from(u8::from(i == 6))).unwrap();
        let layer = grad_cam_layer(&net, &[4, 4, 1]).unwrap().unwrap();
        let predicted = &grad_cam(&net, &image, &layer, None).unwrap()[0];
        assert_eq!((predicted.class, predicted.heat.data()[6]), (1, 1.0));
        assert_eq!(predicted.heat.data().iter().sum::<f32>(), 1.0);
        let other = &grad_cam(&net, &image, &layer, Some(&[0])).unwrap()[0];
        assert_eq!(other.heat.data().iter().sum::<f32>(), 0.0);
        assert!((other.probability + predicted.probability - 1.0).abs() < 1e-6);
    }

    #[test]
    fn what_has_no_maps_is_said() {
        let net = Sequential::new().push(Flatten).push(Linear::new(16, 2, &mut Rng::seed(0)).unwrap());
        assert_eq!(grad_cam_layer(&net, &[4, 4, 1]).unwrap(), None);
        let image = Tensor::zeros([1, 4, 4, 1]).unwrap();
        let error = |layer: &str, classes: &[usize]| {
            grad_cam(&brightness(), &image, layer, Some(classes)).unwrap_err().to_string()
        };
        assert_eq!(error("conv", &[2]), "grad_cam: classes: expected 1 classes below 2, found [2]");
        assert!(error("conv", &[]).contains("classes"));
        assert!(error("head", &[0]).starts_with("grad_cam: layer"), "{}", error("head", &[0]));
        assert!(error("cnov", &[0]).contains("conv"));
    }
}
