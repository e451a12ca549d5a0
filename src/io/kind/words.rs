//! What each kind of file is called, and what to do about it.

use super::FileKind;

const DOWNLOAD: &str = "download it again, to its end";
const UNPACK: &str = "unpack it first";
const CONVERT: &str = "load it in its own framework and save the weights as safetensors";
const IMAGE: &str = "save it as PNG or JPEG";

/// For each kind its name with an article, and the advice or an empty text.
const WORDS: [(FileKind, &str, &str); 49] = [
    (FileKind::Empty, "an empty file", DOWNLOAD),
    (FileKind::Zeros, "zero bytes only", DOWNLOAD),
    (FileKind::UnfinishedDownload, "an unfinished download", DOWNLOAD),
    (
        FileKind::GitLfsPointer,
        "a Git LFS pointer",
        "run `git lfs pull` in its repository, or download the file itself",
    ),
    (FileKind::GitAnnexPointer, "a git-annex pointer", "run `git annex get` in its repository"),
    (FileKind::Html, "a web page (HTML)", "download the file itself, not the page that shows it"),
    (FileKind::Xml, "XML", "servers answer so with an error: download the file itself"),
    (FileKind::Json, "JSON", ""),
    (FileKind::Text, "text", ""),
    (FileKind::Utf16Text, "text in UTF-16", "save it as UTF-8"),
    (FileKind::AppleDouble, "what macOS stores beside a file", "use the file without `._` before its name"),
    (FileKind::Pdf, "a PDF document", ""),
    (FileKind::Safetensors, "safetensors weights", ""),
    (FileKind::ShardIndex, "the index of weights in several files", ""),
    (FileKind::PyTorch, "a PyTorch file", "it holds weights or other objects"),
    (
        FileKind::TorchScript,
        "a TorchScript program",
        "load it with torch.jit.load and save its state_dict() with torch.save",
    ),
    (
        FileKind::Pickle,
        "a Python pickle that torch.save did not write",
        "save a state_dict() with torch.save, or as safetensors",
    ),
    (FileKind::Npy, "a NumPy array (.npy)", "save the arrays as safetensors, by name"),
    (FileKind::Npz, "NumPy arrays (.npz)", "save the arrays as safetensors, by name"),
    (FileKind::Hdf5, "HDF5, as Keras saves weights", CONVERT),
    (FileKind::KerasArchive, "a Keras archive", CONVERT),
    (FileKind::TensorFlowCheckpoint, "a part of a TensorFlow checkpoint", CONVERT),
    (FileKind::TensorFlowSavedModel, "a TensorFlow SavedModel", CONVERT),
    (FileKind::TfLite, "a TensorFlow Lite model", CONVERT),
    (
        FileKind::Onnx,
        "an ONNX model",
        "ONNX is written, not read: load the weights that it was exported from",
    ),
    (FileKind::Gguf, "a GGUF model", CONVERT),
    (FileKind::Parquet, "a Parquet table", "write its columns to files"),
    (FileKind::Gzip, "a gzip file", UNPACK),
    (FileKind::Bzip2, "a bzip2 file", UNPACK),
    (FileKind::Xz, "an xz file", UNPACK),
    (FileKind::Zstd, "a Zstandard file", UNPACK),
    (FileKind::Zip, "a zip archive", UNPACK),
    (FileKind::Tar, "a tar archive", UNPACK),
    (FileKind::SevenZip, "a 7-Zip archive", UNPACK),
    (FileKind::Rar, "a RAR archive", UNPACK),
    (FileKind::Png, "a PNG image", ""),
    (FileKind::Jpeg, "a JPEG image", ""),
    (FileKind::Gif, "a GIF image", IMAGE),
    (FileKind::WebP, "a WebP image", IMAGE),
    (FileKind::Bmp, "a BMP image", IMAGE),
    (FileKind::Tiff, "a TIFF image", IMAGE),
    (FileKind::Heic, "a HEIC image", IMAGE),
    (FileKind::Avif, "an AVIF image", IMAGE),
    (FileKind::JpegXl, "a JPEG XL image", IMAGE),
    (FileKind::Jpeg2000, "a JPEG 2000 image", IMAGE),
    (FileKind::Svg, "an SVG drawing", IMAGE),
    (FileKind::Ico, "an icon of Windows", IMAGE),
    (FileKind::Psd, "a Photoshop image", IMAGE),
    (FileKind::Video, "a video", "save its frames as PNG or JPEG"),
];

/// Returns the name and the advice of a kind.
pub(super) fn words(kind: FileKind) -> (&'static str, &'static str) {
    let words = WORDS.iter().find(|(of, ..)| *of == kind);
    words.map_or(("a file of an unknown kind", ""), |(_, description, advice)| (description, advice))
}
