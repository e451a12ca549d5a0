//! Image files, compared with the results of PIL and torchvision, which `tests/golden/pictures.py`
//! made.

use crate::common::golden;
use image::GenericImageView as _;
use skipgrad::{
    Error, Result, Tensor,
    autograd::NamedTensors,
    data::{Normalize, Preset, open_image},
};
use std::path::PathBuf;

fn image_file(name: &str) -> PathBuf {
    golden::path("pictures").join(name)
}

fn expected() -> NamedTensors {
    golden::tensors("pictures.safetensors")
}

fn preset(resize_size: usize, crop_size: [usize; 2]) -> Preset {
    Preset::imagenet().resize_size(resize_size).crop_size(crop_size)
}

/// Returns the largest and the mean difference, in levels of a byte.
fn difference(found: &Tensor, expected: &Tensor, normalize: &Normalize) -> (f32, f32) {
    assert_eq!(found.shape(), expected.shape());
    let scales = normalize.std.iter().cycle().map(|std| std * 255.0);
    let levels: Vec<f32> =
        found.data().iter().zip(expected.data()).zip(scales).map(|((a, b), s)| (a - b).abs() * s).collect();
    (levels.iter().copied().fold(0.0, f32::max), levels.iter().sum::<f32>() / levels.len() as f32)
}

/// Asserts that two normalized images have the same bytes, up to the rounding of the normalization.
#[track_caller]
fn assert_same(name: &str, found: &Tensor, expected: &Tensor, preset: &Preset) {
    let (most, _) = difference(found, expected, &preset.normalize);
    assert!(most < 1e-3, "{name}: {most} levels");
}

#[test]
fn png_files_are_prepared_as_in_torchvision() {
    let expected = expected();
    let small = preset(28, [24, 24]);
    let kinds = ["rgb", "tall", "small", "one", "alpha", "grey", "grey_alpha", "palette"];
    for name in kinds.map(|kind| format!("{kind}.png")) {
        let found = small.apply_file(image_file(&name)).unwrap();
        assert_same(&name, &found, &expected[&format!("imagenet_28_24/{name}")], &small);
    }
    let larger = preset(60, [50, 41]);
    for name in ["rgb.png", "tall.png", "small.png"] {
        let found = larger.apply_file(image_file(name)).unwrap();
        assert_same(name, &found, &expected[&format!("imagenet_60_50x41/{name}")], &larger);
    }
    let normalize = Normalize::new([0.5], [0.25]);
    let gray = preset(28, [28, 28]).normalize(normalize);
    let found = gray.apply_file(image_file("rgb.png")).unwrap();
    assert_same("in grey", &found, &expected["grey_28_28/rgb.png"], &gray);
}

#[test]
fn the_imagenet_preset_is_that_of_torchvision() {
    let preset = Preset::imagenet();
    let found = preset.apply_file(image_file("rgb.png")).unwrap();
    let every7 = Tensor::from_fn([32, 32, 3], |i| {
        let (y, x, c) = (i / 96 * 7, i / 3 % 32 * 7, i % 3);
        found.data()[(y * 224 + x) * 3 + c]
    });
    assert_same("whole", &every7.unwrap(), &expected()["imagenet/rgb.png/every7"], &preset);
}

#[test]
fn tensors_are_not_rounded() {
    let rgb = open_image(image_file("rgb.png")).unwrap().into_rgb8();
    let (width, height) = rgb.dimensions();
    let pixels = rgb.into_raw().into_iter().map(|x| f32::from(x) / 255.0).collect::<Vec<_>>();
    let tensor = Tensor::new([height as usize, width as usize, 3], pixels).unwrap();
    let small = preset(28, [24, 24]);
    let (most, _) =
        difference(&small.apply(&tensor).unwrap(), &expected()["imagenet_28_24/floats"], &small.normalize);
    assert!(most < 1e-3, "{most} levels");
}

/// JPEG decoders may round differently.
#[test]
fn jpeg_files_are_prepared_as_in_torchvision_up_to_the_decoder() {
    let small = preset(28, [24, 24]);
    for name in ["photo.jpg", "progressive.jpg", "grey.jpg"] {
        let found = small.apply_file(image_file(name)).unwrap();
        let expected = &expected()[&format!("imagenet_28_24/{name}")];
        let (most, mean) = difference(&found, expected, &small.normalize);
        assert!(most < 3.0 && mean < 0.5, "{name}: {most} levels, {mean} in the mean");
    }
}

#[test]
fn sixteen_bits_are_reduced_to_eight() {
    let bits16 = open_image(image_file("bits16.png")).unwrap();
    assert_eq!(bits16.color(), image::ColorType::L16);
    let small = preset(28, [24, 24]);
    assert_eq!(small.apply_image(&bits16).unwrap(), small.apply_file(image_file("grey.png")).unwrap());
}

#[test]
fn the_orientation_of_the_camera_is_applied() {
    // The image in the file is 24 wide and 16 high.
    assert_eq!(open_image(image_file("turned.jpg")).unwrap().dimensions(), (16, 24));
}

#[test]
fn a_file_that_is_not_an_image_is_an_error_with_its_path() {
    let is_error = |path: PathBuf, text: &str| {
        let error = Preset::imagenet().apply_file(&path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::Io { .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.starts_with(&path.display().to_string()) && words.contains(text), "{words}");
    };
    is_error(golden::path("pictures.py"), "format: expected a PNG or JPEG image, found something else");
    is_error(golden::path("pictures"), "cannot read: not a regular file");
    is_error(image_file("none.png"), "cannot read");
}

#[test]
fn presets_of_other_channels_are_an_error() -> Result<()> {
    let normalize = Normalize::new([0.5; 4], [0.25; 4]);
    let four = Preset::imagenet().normalize(normalize);
    let error = four.apply_file(image_file("rgb.png")).unwrap_err().to_string();
    assert_eq!(error, "preset: channels: expected 1 or 3 for an image file, found 4");
    let error = Preset::imagenet().apply_image(&image::DynamicImage::new_rgb8(3, 0)).unwrap_err().to_string();
    assert_eq!(error, "preset: image: expected at least one pixel, found 3 x 0");
    Ok(())
}
