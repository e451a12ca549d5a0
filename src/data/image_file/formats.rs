//! The formats of image files: their names, the extensions of their files, and which are read.

use crate::io::FileKind;
use image::ImageFormat;
use std::path::Path;

/// A format of image files.
struct Format {
    /// Its name, after "a".
    name: &'static str,
    /// Extensions of its files, in lower case.
    extensions: &'static [&'static str],
    reader: Reader,
}

/// What reads a format.
enum Reader {
    /// The crate `image`, if the feature of this name is enabled, which is the second value.
    Feature(ImageFormat, &'static str, bool),
    /// Nothing in this crate.
    None,
}

/// Builds the entry of a format that a feature of this crate reads.
const fn read(
    name: &'static str,
    extensions: &'static [&'static str],
    format: ImageFormat,
    feature: &'static str,
    is_enabled: bool,
) -> Format {
    Format { name, extensions, reader: Reader::Feature(format, feature, is_enabled) }
}

/// Builds the entry of a format that this crate does not read.
const fn not_read(name: &'static str, extensions: &'static [&'static str]) -> Format {
    Format { name, extensions, reader: Reader::None }
}

/// The formats of images that folders of pictures have, those that are read first.
const FORMATS: [Format; 14] = [
    read("PNG", &["png", "apng"], ImageFormat::Png, "image", true),
    read("JPEG", &["jpg", "jpeg", "jpe", "jfif", "jif"], ImageFormat::Jpeg, "image", true),
    read("WebP", &["webp"], ImageFormat::WebP, "webp", cfg!(feature = "webp")),
    read("BMP", &["bmp", "dib"], ImageFormat::Bmp, "bmp", cfg!(feature = "bmp")),
    read("GIF", &["gif"], ImageFormat::Gif, "gif", cfg!(feature = "gif")),
    read("TIFF", &["tif", "tiff"], ImageFormat::Tiff, "tiff", cfg!(feature = "tiff")),
    not_read("HEIC", &["heic", "heif", "hif"]),
    not_read("AVIF", &["avif"]),
    not_read("JPEG XL", &["jxl"]),
    not_read("JPEG 2000", &["jp2", "j2k", "jpx"]),
    not_read("PNM", &["ppm", "pgm", "pbm", "pnm"]),
    not_read("SVG", &["svg"]),
    not_read("camera raw", &["dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf"]),
    not_read("Photoshop", &["psd"]),
];

impl Format {
    fn is_read(&self) -> bool {
        matches!(self.reader, Reader::Feature(_, _, true))
    }

    /// Says that a file has this format, and what to do if it is not read.
    fn describe(&self) -> String {
        let article = if self.name.starts_with(['A', 'S']) { "an" } else { "a" };
        let file = format!("{article} {} image", self.name);
        match self.reader {
            Reader::Feature(_, _, true) => file,
            Reader::Feature(_, feature, false) => format!("{file}, which the feature `{feature}` reads"),
            Reader::None => format!("{file}, which is not read: convert it to PNG or JPEG"),
        }
    }
}

/// Lists the formats that are read: "a PNG or JPEG image" with the words around them.
pub(super) fn expected(before: &str, after: &str) -> String {
    let names: Vec<&str> =
        FORMATS.iter().filter(|format| format.is_read()).map(|format| format.name).collect();
    let (last, others) = names.split_last().expect("PNG and JPEG are always read");
    format!("{before} {} or {last} {after}", others.join(", "))
}

/// Returns the extensions of files that are read, each with a dot.
pub(in crate::data) fn readable_extensions() -> String {
    let extensions = FORMATS.iter().filter(|format| format.is_read()).flat_map(|format| format.extensions);
    extensions.map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(", ")
}

/// Returns the format of the bytes of a file, or else says what they are.
pub(super) fn sniff(path: &Path, bytes: &[u8]) -> Result<ImageFormat, String> {
    let format = image::guess_format(bytes).ok();
    let known = |entry: &&Format| matches!(entry.reader, Reader::Feature(read, ..) if Some(read) == format);
    match (format, FORMATS.iter().find(known)) {
        (Some(format), Some(entry)) if entry.is_read() => Ok(format),
        (_, Some(entry)) => Err(entry.describe()),
        (_, None) => Err(FileKind::of(path, bytes).to_string()),
    }
}

/// Returns why a file is not read, to judge by its extension, or `None` if it is read.
pub(in crate::data) fn why_not_read(path: &Path) -> Option<String> {
    let Some(extension) = path.extension() else { return Some("no extension of an image".to_string()) };
    let extension = extension.to_string_lossy().to_lowercase();
    match FORMATS.iter().find(|format| format.extensions.contains(&extension.as_str())) {
        Some(format) if format.is_read() => None,
        Some(format) => Some(format.describe()),
        None => Some("no extension of an image".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_those_of_the_formats_in_any_case() {
        for name in ["a.png", "a.PNG", "a.jpg", "a.Jpeg", "a.JPE", "a.jfif", "a.b.jpg"] {
            assert_eq!(why_not_read(Path::new(name)), None, "{name}");
        }
        let reason = |name: &str| why_not_read(Path::new(name)).unwrap();
        assert_eq!(reason("a.heic"), "a HEIC image, which is not read: convert it to PNG or JPEG");
        assert_eq!(reason("a.AVIF"), "an AVIF image, which is not read: convert it to PNG or JPEG");
        for name in ["png", "a.txt", "a.png.bak", "a."] {
            assert_eq!(reason(name), "no extension of an image", "{name}");
        }
        for (name, feature, is_enabled) in [
            ("a.webp", "webp", cfg!(feature = "webp")),
            ("a.bmp", "bmp", cfg!(feature = "bmp")),
            ("a.gif", "gif", cfg!(feature = "gif")),
            ("a.tif", "tiff", cfg!(feature = "tiff")),
        ] {
            match why_not_read(Path::new(name)) {
                None => assert!(is_enabled),
                Some(reason) => assert!(reason.ends_with(&format!("which the feature `{feature}` reads"))),
            }
        }
    }

    #[test]
    fn what_is_expected_are_the_formats_of_the_features() {
        let expected = expected("a", "image");
        assert!(expected.starts_with("a PNG"), "{expected}");
        assert_eq!(expected.contains("WebP"), cfg!(feature = "webp"));
        assert!(readable_extensions().starts_with(".png, .apng, .jpg, .jpeg, .jpe, .jfif"));
    }
}
