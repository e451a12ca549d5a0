//! Pictures as PIL and torchvision see them: `tests/golden/pictures.py` says how they were made.
#![cfg(feature = "image")]

use image::GenericImageView as _;
use skipgrad::{
    Error, Result, Tensor,
    autograd::NamedTensors,
    data::{Normalize, Preset, open_picture},
    io,
};
use std::path::{Path, PathBuf};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn picture(name: &str) -> PathBuf {
    golden("pictures").join(name)
}

fn expected() -> NamedTensors {
    io::read(golden("pictures.safetensors")).unwrap()
}

fn preset(resize: usize, crop: [usize; 2]) -> Preset {
    Preset { resize, crop, ..Preset::imagenet() }
}

/// The largest and the mean difference, in levels of a byte.
fn difference(found: &Tensor, expected: &Tensor, normalize: &Normalize) -> (f32, f32) {
    assert_eq!(found.shape(), expected.shape());
    let scales = normalize.std.iter().cycle().map(|std| std * 255.0);
    let levels: Vec<f32> =
        found.data().iter().zip(expected.data()).zip(scales).map(|((a, b), s)| (a - b).abs() * s).collect();
    (levels.iter().copied().fold(0.0, f32::max), levels.iter().sum::<f32>() / levels.len() as f32)
}

/// The same bytes, and nothing but the rounding of their normalization between them.
#[track_caller]
fn assert_same(name: &str, found: &Tensor, expected: &Tensor, preset: &Preset) {
    let (most, _) = difference(found, expected, &preset.normalize);
    assert!(most < 1e-3, "{name}: {most} levels");
}

#[test]
fn pngs_become_what_torchvision_makes_of_them() {
    let expected = expected();
    let small = preset(28, [24, 24]);
    let kinds = ["rgb", "tall", "small", "one", "alpha", "grey", "grey_alpha", "palette"];
    for name in kinds.map(|kind| format!("{kind}.png")) {
        let found = small.read(picture(&name)).unwrap();
        assert_same(&name, &found, &expected[&format!("imagenet_28_24/{name}")], &small);
    }
    let larger = preset(60, [50, 41]);
    for name in ["rgb.png", "tall.png", "small.png"] {
        let found = larger.read(picture(name)).unwrap();
        assert_same(name, &found, &expected[&format!("imagenet_60_50x41/{name}")], &larger);
    }
    let normalize = Normalize { mean: vec![0.5], std: vec![0.25] };
    let gray = Preset { resize: 28, crop: [28, 28], normalize, ..Preset::imagenet() };
    let found = gray.read(picture("rgb.png")).unwrap();
    assert_same("in grey", &found, &expected["grey_28_28/rgb.png"], &gray);
}

#[test]
fn the_presets_are_torchvisions() {
    let preset = Preset::imagenet();
    let found = preset.read(picture("rgb.png")).unwrap();
    let every7 = Tensor::from_fn([32, 32, 3], |i| {
        let (y, x, c) = (i / 96 * 7, i / 3 % 32 * 7, i % 3);
        found.data()[(y * 224 + x) * 3 + c]
    });
    assert_same("whole", &every7.unwrap(), &expected()["imagenet/rgb.png/every7"], &preset);
}

#[test]
fn tensors_are_not_rounded() {
    let rgb = open_picture(picture("rgb.png")).unwrap().into_rgb8();
    let (width, height) = rgb.dimensions();
    let pixels = rgb.into_raw().into_iter().map(|x| f32::from(x) / 255.0).collect::<Vec<_>>();
    let tensor = Tensor::new([height as usize, width as usize, 3], pixels).unwrap();
    let small = preset(28, [24, 24]);
    let (most, _) =
        difference(&small.apply(&tensor).unwrap(), &expected()["imagenet_28_24/floats"], &small.normalize);
    assert!(most < 1e-3, "{most} levels");
}

/// Decoders of JPEG may round in their own way.
#[test]
fn jpegs_are_as_near_as_decoders_are() {
    let small = preset(28, [24, 24]);
    for name in ["photo.jpg", "progressive.jpg", "grey.jpg"] {
        let found = small.read(picture(name)).unwrap();
        let expected = &expected()[&format!("imagenet_28_24/{name}")];
        let (most, mean) = difference(&found, expected, &small.normalize);
        assert!(most < 3.0 && mean < 0.5, "{name}: {most} levels, {mean} in the mean");
    }
}

#[test]
fn sixteen_bits_are_eight_times_257() {
    let bits16 = open_picture(picture("bits16.png")).unwrap();
    assert_eq!(bits16.color(), image::ColorType::L16);
    let small = preset(28, [24, 24]);
    assert_eq!(small.image(&bits16).unwrap(), small.read(picture("grey.png")).unwrap());
}

#[test]
fn a_camera_that_was_turned_is_turned_back() {
    // 24 wide and 16 high as it lies in the file.
    assert_eq!(open_picture(picture("turned.jpg")).unwrap().dimensions(), (16, 24));
}

#[test]
fn what_is_no_picture_is_refused_with_its_path() {
    let refused = |path: PathBuf, text: &str| {
        let error = Preset::imagenet().read(&path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. } | Error::Io { .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.starts_with(&path.display().to_string()) && words.contains(text), "{words}");
    };
    refused(golden("pictures.py"), "format: expected a picture, PNG or JPEG, found something else");
    refused(golden("pictures"), "cannot read: not a regular file");
    refused(picture("none.png"), "cannot read");
}

#[test]
fn channels_that_pictures_have_not_are_refused() -> Result<()> {
    let normalize = Normalize { mean: vec![0.5; 4], std: vec![0.25; 4] };
    let four = Preset { normalize, ..Preset::imagenet() };
    let error = four.read(picture("rgb.png")).unwrap_err().to_string();
    assert_eq!(error, "preset: channels: expected 1 or 3 for a picture, found 4");
    let error = Preset::imagenet().image(&image::DynamicImage::new_rgb8(3, 0)).unwrap_err().to_string();
    assert_eq!(error, "preset: picture: expected at least one pixel, found 3 x 0");
    Ok(())
}
