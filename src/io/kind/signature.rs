//! The bytes by which files of each kind begin.

use super::FileKind;

/// Bytes at a place near the beginning that only files of one kind have. Of several that fit, the
/// first decides.
const SIGNATURES: [(usize, &[u8], FileKind); 36] = [
    (0, b"\x89PNG\r\n\x1a\n", FileKind::Png),
    (0, b"\xff\xd8\xff", FileKind::Jpeg),
    (0, b"GIF87a", FileKind::Gif),
    (0, b"GIF89a", FileKind::Gif),
    (8, b"WEBPVP8", FileKind::WebP),
    (0, b"II*\0", FileKind::Tiff),
    (0, b"MM\0*", FileKind::Tiff),
    (0, b"II+\0", FileKind::Tiff),
    (0, b"MM\0+", FileKind::Tiff),
    (0, b"\xff\x0a", FileKind::JpegXl),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", FileKind::JpegXl),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", FileKind::Jpeg2000),
    (0, b"\xff\x4f\xff\x51", FileKind::Jpeg2000),
    (0, b"8BPS", FileKind::Psd),
    (0, b"\0\0\x01\0", FileKind::Ico),
    (0, b"\0\x05\x16\x07", FileKind::AppleDouble),
    (0, b"%PDF-", FileKind::Pdf),
    (0, b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
    (0, b"GGUF", FileKind::Gguf),
    (4, b"TFL3", FileKind::TfLite),
    (0, b"PAR1", FileKind::Parquet),
    (0, b"\x93NUMPY", FileKind::Npy),
    (0, b"\x1f\x8b\x08", FileKind::Gzip),
    (0, b"BZh", FileKind::Bzip2),
    (0, b"\xfd7zXZ\0", FileKind::Xz),
    (0, b"\x28\xb5\x2f\xfd", FileKind::Zstd),
    (0, b"7z\xbc\xaf\x27\x1c", FileKind::SevenZip),
    (0, b"Rar!\x1a\x07", FileKind::Rar),
    (257, b"ustar", FileKind::Tar),
    (0, b"version https://git-lfs.github.com/spec/", FileKind::GitLfsPointer),
    (0, b"version https://hawser.github.com/spec/", FileKind::GitLfsPointer),
    (0, b"/annex/objects/", FileKind::GitAnnexPointer),
    (0, b"../.git/annex/objects/", FileKind::GitAnnexPointer),
    (0, b"model_checkpoint_path:", FileKind::TensorFlowCheckpoint),
    (0, b"\xff\xfe", FileKind::Utf16Text),
    (0, b"\xfe\xff", FileKind::Utf16Text),
];

/// Parts of the name of an archive's first file, and whose archive that makes it.
const ARCHIVES: [(&[u8], FileKind); 4] = [
    (b"data.pkl", FileKind::PyTorch),
    (b".format_version", FileKind::PyTorch),
    (b"constants.pkl", FileKind::TorchScript),
    (b".npy", FileKind::Npz),
];

/// The first value of a PyTorch pickle stream (its magic number), in little-endian.
const STREAM_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// How far from the beginning the magic number may be: the protocol decides what precedes it.
const STREAM_MAGIC_WITHIN: usize = 64;

/// The longest header of a safetensors file, in bytes.
const MAX_SAFETENSORS_HEADER: u64 = 100_000_000;

/// Ends of the names of files that are not complete.
const UNFINISHED: [&str; 6] = [".crdownload", ".part", ".partial", ".download", ".aria2", ".incomplete"];

/// Returns the kind of a file with this name, in lower case, and these first bytes.
pub(super) fn kind(name: &str, head: &[u8]) -> FileKind {
    let signature = || {
        let fits = |&&(at, bytes, _): &&(usize, &[u8], FileKind)| {
            head.get(at..).is_some_and(|rest| rest.starts_with(bytes))
        };
        SIGNATURES.iter().find(fits).map(|(_, _, kind)| *kind)
    };
    if head.is_empty() {
        return FileKind::Empty;
    }
    if UNFINISHED.iter().any(|end| name.ends_with(end)) {
        return FileKind::UnfinishedDownload;
    }
    safetensors(head)
        .or_else(|| archive(head))
        .or_else(|| pickle(head))
        .or_else(signature)
        .or_else(|| media(head))
        .or_else(|| text(name, head))
        .or_else(|| protobuf(name, head))
        .or_else(|| tensorflow(name))
        .or_else(|| head.iter().all(|&byte| byte == 0).then_some(FileKind::Zeros))
        .unwrap_or(FileKind::Unknown)
}

/// The length of the header, and the brace with which it begins. Any magic number could be a
/// length, but no other file has the brace after it.
fn safetensors(head: &[u8]) -> Option<FileKind> {
    let length = u64::from_le_bytes(*head.first_chunk()?);
    (head.get(8) == Some(&b'{') && length <= MAX_SAFETENSORS_HEADER).then_some(FileKind::Safetensors)
}

/// A zip archive, which says in the header of its first file whose it is.
fn archive(head: &[u8]) -> Option<FileKind> {
    /// The length of that header before the name, and the place of the name's length.
    const HEADER: usize = 30;
    const NAME_LEN: usize = 26;
    let zip =
        head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") || head.starts_with(b"PK00PK");
    if !zip {
        return None;
    }
    let len =
        head.get(NAME_LEN..NAME_LEN + 2).map_or(0, |len| usize::from(u16::from_le_bytes([len[0], len[1]])));
    let name = head.get(HEADER..).map(|rest| &rest[..len.min(rest.len())]).unwrap_or_default();
    let has = |part: &[u8]| name.windows(part.len()).any(|bytes| bytes == part);
    let keras = [&b"metadata.json"[..], b"config.json", b"model.weights.h5"];
    let owner = ARCHIVES.iter().find(|(part, _)| has(part)).map(|(_, kind)| *kind);
    let inside = |part: &[u8]| head.windows(part.len()).any(|bytes| bytes == part);
    Some(match owner {
        Some(FileKind::PyTorch) if inside(b"/code/__torch__") || inside(b"/constants.pkl") => {
            FileKind::TorchScript
        }
        Some(owner) => owner,
        None if keras.contains(&name) => FileKind::KerasArchive,
        None => FileKind::Zip,
    })
}

/// A pickle of protocol 2 or later, or the stream of pickles that PyTorch wrote before 1.6.
fn pickle(head: &[u8]) -> Option<FileKind> {
    let begin = &head[..head.len().min(STREAM_MAGIC_WITHIN)];
    if begin.windows(STREAM_MAGIC.len()).any(|bytes| bytes == STREAM_MAGIC) {
        return Some(FileKind::PyTorch);
    }
    // A protocol, and an instruction with which the pickle of a value can begin.
    let instructions = b"(]})cCUXKMJGNqj\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8f\x95\x96";
    let first = |byte: &u8| instructions.contains(byte);
    (matches!(head, [0x80, 2..=5, ..]) && head.get(2).is_none_or(first)).then_some(FileKind::Pickle)
}

/// Images and videos whose kind is a word after the length of their first part.
fn media(head: &[u8]) -> Option<FileKind> {
    if head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]) {
        return Some(FileKind::Bmp);
    }
    let brands = head.get(8..)?;
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    let len = u32::from_be_bytes(*head.first_chunk()?) as usize;
    let brands = &brands[..len.saturating_sub(8).clamp(4, 64).min(brands.len())];
    let has = |names: &[&[u8; 4]]| brands.as_chunks::<4>().0.iter().any(|brand| names.contains(&brand));
    Some(match () {
        () if has(&[b"avif", b"avis"]) => FileKind::Avif,
        () if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"]) => {
            FileKind::Heic
        }
        () => FileKind::Video,
    })
}

/// Text of any kind: UTF-8 without control characters, except those between words and lines.
fn text(name: &str, head: &[u8]) -> Option<FileKind> {
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character is cut off.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let plain = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0c');
    if valid.is_empty() || !valid.chars().all(plain) {
        return None;
    }
    let text = valid.trim_start_matches('\u{feff}').trim_start();
    let begins =
        |prefix: &str| text.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let lower = || text.to_lowercase();
    let html = ["<!doctype html", "<html", "<head", "<body"].into_iter().any(begins)
        || (begins("<!--") && lower().contains("<html"));
    let json = match text.as_bytes() {
        [b'{', rest @ ..] => rest.trim_ascii_start().first().is_none_or(|byte| b"\"}".contains(byte)),
        [b'[', rest @ ..] => {
            let first = |byte: &u8| b"\"[{]-0123456789tfn".contains(byte);
            rest.trim_ascii_start().first().is_none_or(first)
        }
        _ => false,
    };
    Some(match () {
        () if html => FileKind::Html,
        () if begins("<svg") || (begins("<?xml") && lower().contains("<svg")) => FileKind::Svg,
        () if begins("<?xml") || begins("<error>") => FileKind::Xml,
        () if json && (name.ends_with(".index.json") || text.contains("\"weight_map\"")) => {
            FileKind::ShardIndex
        }
        () if json => FileKind::Json,
        () => FileKind::Text,
    })
}

/// Models that are protocol buffers, which have no magic number: the first field is the version.
fn protobuf(name: &str, head: &[u8]) -> Option<FileKind> {
    if name.ends_with(".pb") {
        return Some(FileKind::TensorFlowSavedModel);
    }
    // ir_version, and after it producer_name with its length, or opset_import or graph.
    let onnx = match head {
        [0x08, 3..=20, 0x12, len @ 1..=64, rest @ ..] => {
            rest.iter().take(usize::from(*len)).all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        }
        [0x08, 3..=20, 0x3a | 0x42, ..] => name.ends_with(".onnx"),
        _ => false,
    };
    onnx.then_some(FileKind::Onnx)
}

/// The parts of a TensorFlow checkpoint, `model.ckpt.index` and `model.ckpt.data-00000-of-00001`.
fn tensorflow(name: &str) -> Option<FileKind> {
    let part = name.contains(".data-0") || name.ends_with(".index") || name.ends_with(".ckpt.meta");
    part.then_some(FileKind::TensorFlowCheckpoint)
}
