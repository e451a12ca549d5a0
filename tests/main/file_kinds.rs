//! Files that are something else than their readers expect: the error says what they are.

use skipgrad::{
    Error, Tensor,
    data::{Preset, read_class_names},
    io::{self, FileKind, Metadata, WeightsFile},
};
use std::fs;

/// A zip archive's first header, with the name of its first file.
fn zip(name: &str) -> Vec<u8> {
    let lengths = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
    [b"PK\x03\x04", &[0; 22][..], &lengths, name.as_bytes(), b"content"].concat()
}

fn tar() -> Vec<u8> {
    let mut bytes = b"cifar-10-batches-bin/".to_vec();
    bytes.resize(257, 0);
    bytes.extend(b"ustar  \0");
    bytes.resize(1024, 0);
    bytes
}

fn image_of_brand(brand: &[u8; 4]) -> Vec<u8> {
    [b"\0\0\0\x18ftyp", &brand[..], b"\0\0\0\0mif1heic\0\0\0\0"].concat()
}

/// Names and first bytes of files, their kind, and what errors say about it.
fn files() -> Vec<(&'static str, Vec<u8>, FileKind, &'static str)> {
    use FileKind::*;
    let file = |name, bytes: &[u8], kind, says| (name, bytes.to_vec(), kind, says);
    vec![
        file("a.safetensors", b"", Empty, "an empty file: download it again"),
        file("a.safetensors", &[0; 64], Zeros, "zero bytes only: download it again"),
        file("a.pth.crdownload", &zip("a/data.pkl"), UnfinishedDownload, "an unfinished download"),
        file(
            "lfs.pth",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n",
            GitLfsPointer,
            "a Git LFS pointer: run `git lfs pull`",
        ),
        file("a.pth", b"/annex/objects/SHA256E-s46--4d.pth\n", GitAnnexPointer, "git annex get"),
        file("a.pth", b"\n<!DOCTYPE html>\n<html><body>404</body></html>", Html, "a web page (HTML)"),
        file("a.pth", b"<HTML><HEAD><TITLE>Moved</TITLE>", Html, "download the file itself, not the page"),
        file("a.png", b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", Xml, "XML"),
        file("a.svg", b"<?xml version='1.0'?>\n<svg width='3'/>", Svg, "an SVG drawing"),
        file("config.json", b"{\"architectures\": [\"ResNet\"]}", Json, "found JSON"),
        file("list.json", b"[1, 2]", Json, "found JSON"),
        file("notes.txt", "weights of résumé\r\n".as_bytes(), Text, "found text"),
        file("notes.txt", b"\xff\xfea\0b\0", Utf16Text, "text in UTF-16: save it as UTF-8"),
        file("._a.pth", b"\0\x05\x16\x07\0\x02\0\0Mac OS X", AppleDouble, "what macOS stores beside a file"),
        file("paper.pdf", b"%PDF-1.5\n%\xd0\xd4", Pdf, "a PDF document"),
        file("ts.pt", &zip("net/constants.pkl"), TorchScript, "a TorchScript program"),
        file(
            "batch.pkl",
            b"\x80\x04\x95\x10\0\0\0\0\0\0\0]",
            Pickle,
            "a Python pickle that torch.save did not",
        ),
        file("batch.pkl", b"\x80\x02}q\x01(U\x0bbatch_label", Pickle, "save a state_dict() with torch.save"),
        file("a.npy", b"\x93NUMPY\x01\0v\0{'descr': '<f4'", Npy, "a NumPy array (.npy)"),
        file("a.npz", &zip("arr_0.npy"), Npz, "NumPy arrays (.npz): save the arrays as safetensors"),
        file("keras.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0", Hdf5, "HDF5, as Keras saves weights"),
        file("a.keras", &zip("metadata.json"), KerasArchive, "a Keras archive"),
        file("a.ckpt.index", b"\0\0\x01\x02\x08\x01\xff", TensorFlowCheckpoint, "a TensorFlow checkpoint"),
        file(
            "a.ckpt.data-00000-of-00001",
            b"\x12\x9a\xbc\xff",
            TensorFlowCheckpoint,
            "TensorFlow checkpoint",
        ),
        file("saved_model.pb", b"\x08\x01\x12\xff\x03", TensorFlowSavedModel, "a TensorFlow SavedModel"),
        file("a.tflite", b"\x1c\0\0\0TFL3\x14\0\x20\0", TfLite, "a TensorFlow Lite model"),
        file(
            "a.onnx",
            b"\x08\x07\x12\x07pytorch\x1a\x051.9.0",
            Onnx,
            "an ONNX model: ONNX is written, not read",
        ),
        file("a.gguf", b"GGUF\x03\0\0\0\x12\0\0\0", Gguf, "a GGUF model"),
        file("a.parquet", b"PAR1\x15\x04\x15\x20", Parquet, "a Parquet table"),
        file("a.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", Gzip, "a gzip file: unpack it first"),
        file("a.bz2", b"BZh91AY&SY", Bzip2, "a bzip2 file: unpack it first"),
        file("a.xz", b"\xfd7zXZ\0\0\x04", Xz, "an xz file: unpack it first"),
        file("a.zst", b"\x28\xb5\x2f\xfd\x04\0\x41", Zstd, "a Zstandard file: unpack it first"),
        file("a.tar", &tar(), Tar, "a tar archive: unpack it first"),
        file("a.7z", b"7z\xbc\xaf\x27\x1c\0\x04\xff", SevenZip, "a 7-Zip archive: unpack it first"),
        file("a.rar", b"Rar!\x1a\x07\x01\0\xff", Rar, "a RAR archive: unpack it first"),
        file("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Png, "a PNG image"),
        file("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0", Jpeg, "a JPEG image"),
        file("gif_named.jpg", b"GIF89a\x04\0\x03\0\x80\0\0", Gif, "a GIF image: save it as PNG or JPEG"),
        file("a.webp", b"RIFF\x3c\0\0\0WEBPVP8L", WebP, "a WebP image"),
        file("a.bmp", b"BM\x5a\0\0\0\0\0\0\0\x36\0\0\0\x28\0", Bmp, "a BMP image"),
        file("a.tif", b"II*\0\x08\0\0\0\x0c\0", Tiff, "a TIFF image"),
        file("a.tif", b"MM\0*\0\0\0\x08\0\x0c", Tiff, "a TIFF image"),
        file("a.heic", &image_of_brand(b"heic"), Heic, "a HEIC image"),
        file("a.avif", &image_of_brand(b"avif"), Avif, "an AVIF image"),
        file("a.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", Video, "a video"),
        file("a.jxl", b"\xff\x0a\xfa\x1f\x41", JpegXl, "a JPEG XL image"),
        file("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n\0\0", Jpeg2000, "a JPEG 2000 image"),
        file("a.ico", b"\0\0\x01\0\x01\0\x10\x10\0\0", Ico, "an icon of Windows"),
        file("a.psd", b"8BPS\0\x01\0\0\0\0\0\0", Psd, "a Photoshop image"),
        file("a.bin", b"\xde\xad\xbe\xef\x01\x02\x03\x04\x05\x06\x07\x08", Unknown, "an unknown kind"),
    ]
}

#[test]
fn every_kind_is_told_and_named_by_the_reader_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut kinds = std::collections::HashSet::new();
    for (name, bytes, kind, says) in files() {
        kinds.insert(kind);
        assert_eq!(FileKind::of(name, &bytes), kind, "{name}");
        let path = folder.path().join(name);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(FileKind::read(&path).unwrap(), kind, "{name}");
        // With the feature `pth` the archive of a TorchScript program is opened first.
        if kind == FileKind::TorchScript {
            continue;
        }
        let error = WeightsFile::open(&path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{name}: {error}");
        let error = error.to_string();
        assert!(error.contains(says) && error.contains(name), "{name}: {error}");
        assert!(error.contains("expected weights, in safetensors"), "{name}: {error}");
    }
    assert!(kinds.len() >= 44, "{}", kinds.len());
}

#[test]
fn other_readers_name_the_kind_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, kind, _) in files() {
        let path = folder.path().join(name);
        fs::write(&path, &bytes).unwrap();
        if kind != FileKind::Text {
            let error = read_class_names(&path).unwrap_err().to_string();
            assert!(error.contains("the names of classes, one a line, found"), "{name}: {error}");
            assert!(error.contains(kind.description()), "{name}: {error}");
        }
        if kind != FileKind::Json {
            let error = Preset::load(&path).unwrap_err().to_string();
            assert!(error.contains("expected a preset, which is JSON"), "{name}: {error}");
            assert!(error.contains(kind.description()), "{name}: {error}");
        }
    }
}

/// The first bytes decide, whatever else is in a file and however large it is.
#[test]
fn weights_are_told_from_what_begins_like_them() {
    let folder = tempfile::tempdir().unwrap();
    // The length of a header may equal the magic number of an archive or of a pickle.
    for length in [0x0403_4b50u64, 0x0280, 0x8b1f, 0x5a42] {
        let head = [&length.to_le_bytes()[..], b"{\"a\":"].concat();
        assert_eq!(FileKind::of("a.safetensors", &head), FileKind::Safetensors, "{length:x}");
    }
    let path = folder.path().join("a.pth");
    io::write(folder.path().join("a"), &[("a".into(), Tensor::scalar(1.0))].into(), &Metadata::new())
        .unwrap();
    fs::rename(folder.path().join("a"), &path).unwrap();
    assert_eq!(FileKind::read(&path).unwrap(), FileKind::Safetensors);
    assert_eq!(io::read(&path).unwrap()["a"].item(), 1.0);
    // A character that is cut off where the first bytes end is no error.
    let text = format!("{}é", "a".repeat(FileKind::HEAD_LEN - 1));
    assert_eq!(FileKind::of("a.txt", text.as_bytes()), FileKind::Text);
}

#[test]
fn folders_are_told_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let error = io::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("not a regular file, but a folder"), "{error}");
    fs::write(folder.path().join("saved_model.pb"), b"\x08\x01").unwrap();
    let error = io::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a TensorFlow SavedModel"), "{error}");
}

/// What editors add to a list of names is not part of a name, and the error about a list names it.
#[test]
fn names_of_classes_are_read_as_editors_write_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("classes.txt");
    for text in
        ["cat\ndog\n", "cat\ndog", "cat\ndog\n\n", "\u{feff}cat\r\ndog\r\n\r\n", " cat \n\tdog\n \n\n"]
    {
        fs::write(&path, text).unwrap();
        assert_eq!(read_class_names(&path).unwrap(), ["cat", "dog"], "{text:?}");
    }
    for (text, says) in [
        ("\ncat\n", "line 1: expected the name of a class, found an empty line"),
        ("cat\n\n\ndog\n", "line 2: expected the name of a class, found an empty line"),
        ("\n\n", "the name of at least one class, found empty lines only"),
        ("\u{feff}\r\n", "found empty lines only"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read_class_names(&path).unwrap_err().to_string();
        assert!(error.contains("classes.txt") && error.contains(says), "{text:?}: {error}");
    }
    fs::write(&path, [&vec![b'a'; 5000][..], b"\xff\n"].concat()).unwrap();
    let error = read_class_names(&path).unwrap_err().to_string();
    assert!(error.contains("byte 5000: expected UTF-8 text"), "{error}");
}
