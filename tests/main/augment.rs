//! Augmentation: every operation and every op space held to torchvision's
//! (`tests/golden/augment.py`), and the transforms in a loader.

use crate::common::golden::{below, tensors};
use skipgrad::{
    Rng, Tensor,
    autograd::NamedTensors,
    data::{
        Affine, Batch, ColorJitter, Compose, ErasingValue, ImageOp, Interpolation, Loader, Normalize,
        RandAugment, RandomAffine, RandomErasing, RandomHorizontalFlip, RandomResizedCrop, RandomRotation,
        SyntheticShapes, Transform, TrivialAugmentWide,
    },
};
use std::collections::BTreeSet;

fn golden() -> NamedTensors {
    tensors("augment.safetensors")
}

/// Applies an operation to an image of bytes `[H, W, C]` and returns the largest difference from
/// another one, in levels.
fn difference(op: ImageOp, image: &Tensor, expected: &Tensor) -> f32 {
    let [h, w, c] = image.shape()[..] else { panic!("{}", image.shape()) };
    op.check([h, w, c]).unwrap();
    let mut pixels: Vec<f32> = image.data().iter().map(|x| x / 255.0).collect();
    op.apply(&mut pixels, [h, w, c], &mut Rng::seed(0));
    let levels = pixels.iter().zip(expected.data()).map(|(x, y)| (x * 255.0 - y).abs());
    levels.fold(0.0, f32::max)
}

#[track_caller]
fn assert_within_a_level(name: &str, op: ImageOp, image: &Tensor, expected: &Tensor) {
    let found = difference(op, image, expected);
    assert!(found < 1.01, "{name}: {op:?} is {found} levels from torchvision's");
}

fn interpolation(name: &str) -> Interpolation {
    if name == "bilinear" { Interpolation::Bilinear } else { Interpolation::Nearest }
}

#[test]
fn colors_are_torchvisions() {
    let golden = golden();
    let mut count = 0;
    for kind in ["color", "gray"] {
        let cases = below(&golden, &format!("{kind}/"));
        for (name, expected) in cases.iter().filter(|(name, _)| !name.contains("image")) {
            let (operation, parameter) = name.split_once('/').unwrap_or((name, "0"));
            let parameter: f32 = parameter.parse().unwrap();
            let op = match operation {
                "adjust_brightness" => ImageOp::AdjustBrightness(parameter),
                "adjust_contrast" => ImageOp::AdjustContrast(parameter),
                "adjust_saturation" => ImageOp::AdjustSaturation(parameter),
                "adjust_sharpness" => ImageOp::AdjustSharpness(parameter),
                "adjust_hue" => ImageOp::AdjustHue(parameter),
                "posterize" => ImageOp::Posterize(parameter as u32),
                "solarize" => ImageOp::Solarize(parameter),
                "autocontrast" => ImageOp::AutoContrast,
                "equalize" => ImageOp::Equalize,
                "invert" => ImageOp::Invert,
                name => panic!("{name}"),
            };
            let image = if operation == "autocontrast" { "autocontrast_image" } else { "image" };
            assert_within_a_level(&format!("{kind}/{name}"), op, &cases[image], expected);
            count += 1;
        }
    }
    assert_eq!(count, 20 + 8 + 5 + 1 + 2 * (3 + 4 + 3));
}

#[test]
fn affine_transforms_are_torchvisions() {
    let golden = golden();
    let gray = &golden["gray/image"];
    for mode in ["nearest", "bilinear"] {
        let base = Affine::new().interpolation(interpolation(mode)).fill(0.2);
        for i in 0..8 {
            let [angle, tx, ty, scale, sx, sy] = golden[&format!("affine/parameters/{i}")].data()[..] else {
                panic!()
            };
            let affine = base.angle(angle.into()).translate([tx, ty].map(f64::from));
            let affine = affine.scale(scale.into()).shear([sx, sy].map(f64::from));
            let name = format!("affine/{mode}/{i}");
            assert_within_a_level(&name, ImageOp::Affine(affine), gray, &golden[&name]);
        }
        let rotations = below(&golden, &format!("rotate/{mode}/"));
        assert_eq!(rotations.len(), 7);
        for (angle, expected) in rotations {
            let rotation = Affine::rotation(angle.parse().unwrap()).interpolation(interpolation(mode));
            assert_within_a_level(&angle, ImageOp::Affine(rotation.fill(0.2)), gray, &expected);
        }
        let rotation = ImageOp::Affine(Affine::rotation(33.0).interpolation(interpolation(mode)));
        let expected = &golden[&format!("rotate_color/{mode}/33")];
        assert_within_a_level(mode, rotation, &golden["color/image"], expected);
    }
}

/// The operation that torchvision's `_apply_op` makes of a name and a magnitude.
fn operation(name: &str, magnitude: f32, base: Affine) -> ImageOp {
    let shear = f64::from(magnitude).atan().to_degrees();
    let pixels = f64::from(magnitude.trunc());
    match name {
        "Identity" => ImageOp::Identity,
        "ShearX" => ImageOp::Affine(base.center([0.0; 2]).shear([shear, 0.0])),
        "ShearY" => ImageOp::Affine(base.center([0.0; 2]).shear([0.0, shear])),
        "TranslateX" => ImageOp::Affine(base.translate([pixels, 0.0])),
        "TranslateY" => ImageOp::Affine(base.translate([0.0, pixels])),
        "Rotate" => ImageOp::Affine(base.angle(0.0 - f64::from(magnitude))),
        "Brightness" => ImageOp::AdjustBrightness(1.0 + magnitude),
        "Color" => ImageOp::AdjustSaturation(1.0 + magnitude),
        "Contrast" => ImageOp::AdjustContrast(1.0 + magnitude),
        "Sharpness" => ImageOp::AdjustSharpness(1.0 + magnitude),
        "Posterize" => ImageOp::Posterize(magnitude as u32),
        "Solarize" => ImageOp::Solarize(magnitude),
        "AutoContrast" => ImageOp::AutoContrast,
        "Equalize" => ImageOp::Equalize,
        name => panic!("{name}"),
    }
}

#[test]
fn moved_images_of_the_op_spaces_are_torchvisions() {
    let golden = golden();
    let magnitudes = below(&golden, "trivial_augment_wide/");
    let cases = below(&golden, "ops/");
    assert_eq!(cases.len(), 40);
    for (case, expected) in cases {
        let [name, mode, bin] = case.split('/').collect::<Vec<_>>()[..] else { panic!("{case}") };
        let magnitude = magnitudes[&format!("{name}/signed")].data()[bin.parse::<usize>().unwrap()];
        let op = operation(name, -magnitude, Affine::new().interpolation(interpolation(mode)));
        assert_within_a_level(&case, op, &golden["gray/image"], &expected);
    }
}

/// All operations of a space, at all magnitudes or at one.
fn space(name: &str, bin: Option<usize>) -> BTreeSet<String> {
    let mut ops = BTreeSet::new();
    for (op, magnitudes) in below(&golden(), &format!("{name}/")) {
        let (op, sign) = op.split_once('/').unwrap();
        let of_bin = |(i, _): &(usize, &f32)| magnitudes.data().len() == 1 || bin.is_none_or(|bin| bin == *i);
        for (_, &magnitude) in magnitudes.data().iter().enumerate().filter(of_bin) {
            ops.insert(format!("{:?}", operation(op, magnitude, Affine::new())));
            if sign == "signed" {
                ops.insert(format!("{:?}", operation(op, 0.0 - magnitude, Affine::new())));
            }
        }
    }
    ops
}

#[track_caller]
fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let differences: Vec<_> = found.symmetric_difference(expected).collect();
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn the_op_spaces_are_torchvisions() {
    let mut rng = Rng::seed(1);
    let drawn = |draw: &mut dyn FnMut() -> Vec<ImageOp>, count: usize| -> BTreeSet<String> {
        (0..count).flat_map(|_| draw()).map(|op| format!("{op:?}")).collect()
    };
    let wide = TrivialAugmentWide::new();
    let found = drawn(&mut || vec![wide.draw(&mut rng)], 20_000);
    assert_same(&found, &space("trivial_augment_wide", None));
    for magnitude in [0, 9, 16, 30] {
        let augment = RandAugment::new().magnitude(magnitude);
        let found = drawn(&mut || augment.draw([24, 32], &mut rng), 500);
        assert_same(&found, &space("rand_augment", Some(magnitude)));
    }
    let coarse = RandAugment::new().num_magnitude_bins(4).magnitude(2);
    let found = drawn(&mut || coarse.draw([24, 32], &mut rng), 500);
    assert_same(&found, &space("rand_augment_4", Some(2)));
}

#[test]
fn options_of_the_op_spaces_are_checked() {
    let error = |transform: &dyn Transform| transform.check([8, 8, 3]).unwrap_err().to_string();
    assert_eq!(
        error(&RandAugment::new().magnitude(31)),
        "rand_augment: magnitude: expected below 31, the number of magnitudes, found 31"
    );
    assert!(error(&RandAugment::new().num_magnitude_bins(1)).contains("num_magnitude_bins"));
    assert!(error(&RandAugment::new().fill(1.5)).contains("fill"));
    assert!(error(&TrivialAugmentWide::new().num_magnitude_bins(0)).contains("num_magnitude_bins"));
    assert!(TrivialAugmentWide::new().check([8, 8, 4]).is_err());
    TrivialAugmentWide::new().check([1, 1, 1]).unwrap();
}

/// Every random transform, in one sequence.
fn everything() -> Compose {
    Compose::new()
        .then(RandomResizedCrop::new())
        .then(RandomHorizontalFlip)
        .then(ColorJitter::new().brightness(0.4).contrast(0.4).saturation(0.4).hue(0.1))
        .then(RandomRotation::new(20.0))
        .then(RandomAffine::new(5.0).translate([0.1, 0.1]).scale([0.8, 1.2]).shear([[-5.0, 5.0], [0.0, 0.0]]))
        .then(TrivialAugmentWide::new().interpolation(Interpolation::Bilinear))
        .then(RandAugment::new())
        .then(Normalize::cifar10())
        .then(RandomErasing::new().value(ErasingValue::Random))
}

#[test]
fn every_transform_gives_the_same_bits_however_it_is_run() {
    let data = SyntheticShapes::with_sizes(30, 0, 3).unwrap();
    let loader = Loader::new(data.train(), 4).shuffle(5).transform(everything());
    let run = |workers: usize, epoch: u64, first: usize| -> Vec<Batch> {
        let loader = loader.clone().num_workers(workers);
        loader.epoch_from(epoch, first).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let whole = run(0, 2, 0);
    assert!(whole.iter().all(|batch| batch.images.data().iter().all(|x| x.is_finite())));
    for (workers, first) in [(1, 0), (3, 0), (0, 5), (3, 5)] {
        assert!(run(workers, 2, first) == whole[first..], "{workers} workers from batch {first}");
    }
    assert!(run(1, 3, 0) != whole, "every epoch is another");
    assert_eq!(format!("{:?}", everything().eval()), format!("Compose([{:?}])", Normalize::cifar10()));
}

/// A loader crops the images of a folder in their own size, as torchvision's `resized_crop`.
#[cfg(feature = "image")]
#[test]
fn images_of_a_folder_are_cropped_before_they_are_resized() {
    use skipgrad::data::{Crop, ImageFolderOptions};
    use std::ops::Range;

    #[derive(Debug)]
    struct Box([Range<usize>; 2]);

    impl Crop for Box {
        fn draw(&self, size: [usize; 2], _rng: &mut Rng) -> [Range<usize>; 2] {
            assert_eq!(size, [41, 57]);
            self.0.clone()
        }
    }

    impl Transform for Box {
        fn apply(&self, _: &mut [f32], _: [usize; 3], _: &mut Rng) {
            panic!("it is the first transform");
        }

        fn as_crop(&self) -> Option<&dyn Crop> {
            Some(self)
        }
    }

    let golden = below(&golden(), "resized_crop/");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    let bytes = golden["image"].data().iter().map(|&x| x as u8).collect();
    let image = image::RgbImage::from_raw(57, 41, bytes).unwrap();
    image.save(folder.path().join("a/0.png")).unwrap();
    let mut count = 0;
    for (name, expected) in golden.iter().filter(|(name, _)| *name != "image") {
        let [top, left, h, w] = name.split('_').map(|n| n.parse().unwrap()).collect::<Vec<usize>>()[..]
        else {
            panic!()
        };
        let options = ImageFolderOptions::new(expected.shape()[0]).classes(["a"]);
        let crop = Compose::new().then(Box([top..top + h, left..left + w]));
        let loader = Loader::new(options.open(folder.path()).unwrap(), 1).transform(crop);
        let batch = loader.epoch(0).unwrap().next().unwrap().unwrap();
        let levels = batch.images.data().iter().zip(expected.data()).map(|(x, y)| (x * 255.0 - y).abs());
        let most = levels.fold(0.0, f32::max);
        assert!(most < 1.01, "{name}: {most} levels");
        count += 1;
    }
    assert_eq!(count, 3);
    let outside = Compose::new().then(Box([0..42, 0..57]));
    let data = ImageFolderOptions::new(8).classes(["a"]).open(folder.path()).unwrap();
    let error = Loader::new(data, 1).transform(outside).epoch(0).unwrap().next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "read_crop: box: expected at least one pixel within 41 rows and 57 columns, found 0..42 and 0..57"
    );
}
