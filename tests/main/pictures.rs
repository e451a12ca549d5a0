//! Image files, compared with the results of PIL and torchvision, which `tests/golden/pictures.py`
//! made.

use crate::common::golden;
use image::{DynamicImage, GenericImageView as _, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use skipgrad::{
    Error, Result, Tensor,
    autograd::NamedTensors,
    data::{ImageLimits, Normalize, Preset, open_image},
};
use std::{fs, io::Cursor, path::PathBuf};

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
    let formats = match cfg!(all(feature = "webp", feature = "bmp", feature = "gif", feature = "tiff")) {
        true => "format: expected a PNG, JPEG, WebP, BMP, GIF or TIFF image, found text",
        false => "image, found text",
    };
    is_error(golden::path("pictures.py"), formats);
    is_error(golden::path("pictures"), "cannot read: not a regular file, but a folder");
    is_error(image_file("none.png"), "cannot read");
}

#[test]
fn presets_of_other_channels_are_an_error() -> Result<()> {
    let normalize = Normalize::new([0.5; 4], [0.25; 4]);
    let four = Preset::imagenet().normalize(normalize);
    let error = four.apply_file(image_file("rgb.png")).unwrap_err().to_string();
    assert_eq!(error, "preset: channels: expected 1 or 3 for an image file, found 4");
    let error = Preset::imagenet().apply_image(&DynamicImage::new_rgb8(3, 0)).unwrap_err().to_string();
    assert_eq!(error, "preset: image: expected at least one pixel, found 3 x 0");
    Ok(())
}

/// Opens bytes as a file of this name.
fn open_bytes(name: &str, bytes: &[u8]) -> Result<DynamicImage> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    open_image(path)
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// An image in color that is not uniform.
fn gradient(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])).into()
}

/// The positions in a JPEG file where its segments begin, up to the first scan.
fn segments(jpeg: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (vec![], 2);
    while jpeg[at + 1] != 0xda {
        starts.push(at);
        at += 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
    }
    starts.push(at);
    starts
}

#[test]
fn the_content_decides_the_format_and_not_the_name() {
    let image = gradient(20, 10);
    let formats: &[ImageFormat] = &[
        ImageFormat::Png,
        #[cfg(feature = "webp")]
        ImageFormat::WebP,
        #[cfg(feature = "bmp")]
        ImageFormat::Bmp,
        #[cfg(feature = "tiff")]
        ImageFormat::Tiff,
    ];
    for &format in formats {
        let read = open_bytes("image.jpg", &encoded(&image, format)).unwrap();
        assert_eq!(read.into_rgb8(), image.to_rgb8(), "{format:?}");
    }
    let jpeg = encoded(&image, ImageFormat::Jpeg);
    for name in ["a.png", "a.jpe", "a.jfif", "a.JPG", "a"] {
        assert_eq!(open_bytes(name, &jpeg).unwrap().dimensions(), (20, 10));
    }
}

/// An animation of two frames of 2 x 1 pixels: the first is red and blue, the second blue.
const GIF: &[u8] = b"GIF89a\x02\x00\x01\x00\x80\x00\x00\xff\x00\x00\x00\x00\xff\
    !\xf9\x04\x00\x0a\x00\x00\x00,\x00\x00\x00\x00\x02\x00\x01\x00\x00\x02\x02\x44\x0a\x00\
    !\xf9\x04\x00\x0a\x00\x00\x00,\x00\x00\x00\x00\x02\x00\x01\x00\x00\x02\x02\x4c\x0a\x00;";

#[test]
fn of_an_animation_the_first_frame_is_read_or_its_format_named() {
    let read = open_bytes("image.jpg", GIF);
    if cfg!(feature = "gif") {
        let read = read.unwrap().into_rgb8();
        assert_eq!(read.as_raw()[..], [255, 0, 0, 0, 0, 255]);
    } else {
        let error = read.unwrap_err().to_string();
        assert!(error.contains("format: expected a PNG"), "{error}");
        assert!(error.ends_with("found a GIF image, which the feature `gif` reads"), "{error}");
    }
}

#[test]
fn bytes_between_the_segments_of_a_jpeg_are_passed_over() {
    for name in ["photo.jpg", "progressive.jpg", "grey.jpg"] {
        let whole = fs::read(image_file(name)).unwrap();
        let expected = open_bytes("whole.jpg", &whole).unwrap();
        // The format is known by the mark of the first segment, so that nothing can precede it.
        for &at in &segments(&whole)[1..] {
            for junk in [&[0][..], &[1, 2, 3, 4, 5], &[0xff], &[0xff, 0xff, 0xff], &[0xfe, 0xff, 0, 7]] {
                let bytes = [&whole[..at], junk, &whole[at..]].concat();
                let read = open_bytes("junk.jpg", &bytes).unwrap_or_else(|e| panic!("{name} at {at}: {e}"));
                assert_eq!(read, expected, "{name} at {at}");
            }
        }
    }
}

#[test]
fn a_jpeg_without_the_mark_of_its_end_is_read_if_all_pixels_are_there() {
    let small = encoded(&gradient(17, 9), ImageFormat::Jpeg);
    let uniform = encoded(&RgbImage::from_pixel(64, 64, Rgb([9; 3])).into(), ImageFormat::Jpeg);
    let files = ["photo.jpg", "progressive.jpg", "grey.jpg"].map(|name| fs::read(image_file(name)).unwrap());
    for (i, whole) in files.into_iter().chain([small, uniform]).enumerate() {
        let expected = open_bytes("whole.jpg", &whole).unwrap();
        let end = whole.len() - 2;
        assert_eq!(whole[end..], [0xff, 0xd9]);
        for len in [end, end + 1] {
            let read = open_bytes("cut.jpg", &whole[..len]).unwrap_or_else(|error| panic!("{i}: {error}"));
            assert_eq!(read, expected, "file {i}");
        }
        for missing in [2, 3, 4, 5, 10, 20, end / 8, end / 4, end / 2] {
            let error = open_bytes("cut.jpg", &whole[..end - missing]).unwrap_err().to_string();
            assert!(error.contains("expected a complete image"), "file {i} without {missing}: {error}");
        }
    }
}

#[test]
fn a_progressive_jpeg_without_its_last_scans_is_truncated() {
    let whole = fs::read(image_file("progressive.jpg")).unwrap();
    let scans: Vec<usize> =
        whole.windows(2).enumerate().filter(|(_, pair)| *pair == [0xff, 0xda]).map(|(at, _)| at).collect();
    assert!(scans.len() > 3);
    for &at in &scans[1..] {
        let error = open_bytes("cut.jpg", &whole[..at]).unwrap_err().to_string();
        assert!(error.ends_with("expected a complete image, found a truncated one"), "{error}");
    }
}

#[test]
fn a_png_without_its_last_chunk_is_read() {
    let whole = encoded(&gradient(30, 20), ImageFormat::Png);
    let read = open_bytes("cut.png", &whole[..whole.len() - 12]).unwrap();
    assert_eq!(read, gradient(30, 20));
}

#[test]
fn images_of_one_color_are_no_bombs() {
    let encode = |side: u32, color: png::ColorType, depth: png::BitDepth, row: usize| {
        let mut file = vec![];
        let mut encoder = png::Encoder::new(&mut file, side, side);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.set_compression(png::Compression::High);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![7, 8, 9, 0, 0, 0]);
        }
        encoder.write_header().unwrap().write_image_data(&vec![0; row * side as usize]).unwrap();
        file
    };
    for (name, side, color, depth, row) in [
        ("mask", 1024, png::ColorType::Grayscale, png::BitDepth::One, 128),
        ("map tile", 512, png::ColorType::Indexed, png::BitDepth::One, 64),
        ("large mask", 8192, png::ColorType::Grayscale, png::BitDepth::One, 1024),
        ("large tile", 4096, png::ColorType::Indexed, png::BitDepth::Two, 1024),
        ("gray", 4096, png::ColorType::Grayscale, png::BitDepth::Eight, 4096),
        ("deep colors", 1024, png::ColorType::Rgba, png::BitDepth::Sixteen, 8192),
    ] {
        let read = open_bytes("uniform.png", &encode(side, color, depth, row));
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.dimensions(), (side, side), "{name}");
        if color == png::ColorType::Indexed {
            assert_eq!(read.into_rgb8().get_pixel(5, 5), &Rgb([7, 8, 9]), "{name}");
        }
    }
    let jpeg = encoded(&GrayImage::from_pixel(3000, 2000, Luma([128])).into(), ImageFormat::Jpeg);
    assert_eq!(open_bytes("uniform.jpg", &jpeg).unwrap().dimensions(), (3000, 2000));
}

#[test]
fn the_limits_of_size_can_be_set_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.jpg");
    fs::write(&path, encoded(&GrayImage::new(20_000, 8).into(), ImageFormat::Jpeg)).unwrap();
    let error = open_image(&path).unwrap_err().to_string();
    let words = "large.jpg: header: expected at most 16384 x 16384 pixels and 268435456 bytes (see \
                 ImageLimits), found 20000 x 8 pixels and 160000 bytes";
    assert!(error.ends_with(words), "{error}");
    let limits = ImageLimits::new().max_side(20_000);
    assert_eq!(limits.open(&path).unwrap().dimensions(), (20_000, 8));
    let error = limits.max_image_bytes(159_999).open(&path).unwrap_err().to_string();
    assert!(error.contains("and 159999 bytes"), "{error}");
    let error = limits.max_file_bytes(100).open(&path).unwrap_err().to_string();
    assert!(error.contains("size: expected at most 100 bytes (ImageLimits::max_file_bytes)"), "{error}");
}
