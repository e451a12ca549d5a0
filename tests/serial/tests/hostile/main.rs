//! Files that were made to do harm: every one is answered with a typed error, nothing panics, and
//! nothing takes more memory than twice the file and 1 MiB. The allocator's counters count for the
//! whole process, so the tests run one after another: `cargo test --test hostile pytorch`.

use libtest_mimic::Trial;
use peak_alloc::PeakAlloc;
use skipgrad::{
    Error, Rng, Tensor,
    autograd::NamedTensors,
    data::{Cifar10, Cifar100},
    io::{self, Metadata, WeightsFile},
    models::{ResNet, ResNetConfig},
};
use skipgrad_serial_tests as serial;
#[cfg(feature = "pth")]
use std::io::Write as _;
use std::{
    cell::RefCell,
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tempfile::TempDir;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A folder for one file after another, and a model that none of them fits.
struct Place {
    folder: TempDir,
    model: RefCell<ResNet>,
}

impl Place {
    fn new() -> Place {
        let config = ResNetConfig::cifar_paper(8, 10).unwrap().stages([(4, 1), (8, 1)]);
        let model = RefCell::new(ResNet::new(&config, &mut Rng::seed(0)).unwrap());
        Place { folder: tempfile::tempdir().unwrap(), model }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// Loads the bytes into the model, and reads them as a weights file. All but reading what can
    /// be read is held to the bound.
    fn read(&self, what: &str, bytes: &[u8]) -> Result<NamedTensors, Error> {
        fs::write(self.path(), bytes).unwrap();
        let most = 2 * bytes.len() + (1 << 20);
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let within = |step: &str| {
            let taken = MEMORY.peak_usage() - before;
            assert!(taken <= most, "{what}: {taken} bytes to {step} a file of {}", bytes.len());
        };
        let loaded = io::load(&mut *self.model.borrow_mut(), self.path());
        within("load");
        let refused =
            matches!(loaded, Err(Error::State { .. } | Error::Malformed { .. } | Error::Argument { .. }));
        assert!(refused, "{what}: {loaded:?}");
        drop(loaded);
        MEMORY.reset_peak_usage();
        let opened = WeightsFile::open(self.path());
        within("open");
        let answer = opened.and_then(|file| file.read_all());
        if answer.is_err() {
            within("read");
        }
        answer
    }

    #[track_caller]
    fn refused(&self, what: &str, bytes: &[u8], words: &str) {
        match self.read(what, bytes) {
            Err(error @ Error::Malformed { .. }) => {
                assert!(error.to_string().contains(words), "{what}: {error}");
                assert!(error.to_string().len() < 1000, "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn main() -> ExitCode {
    // The pool takes a region from the system for its first small tensor.
    drop(Tensor::zeros([1]).unwrap());
    let own = vec![
        test("safetensors::cut_and_forged", safetensors_cut_and_forged),
        test("safetensors::implausible_headers", safetensors_with_implausible_headers),
        test("corpora::weights", weights_corpora),
        test("corpora::cifar", cifar_corpus),
    ];
    let tests = [
        own,
        #[cfg(feature = "pth")]
        pytorch::tests(),
        #[cfg(feature = "image")]
        pictures::tests(),
    ];
    serial::run(tests.into_iter().flatten().collect())
}

fn test(name: &str, test: fn(&Place)) -> Trial {
    serial::test(format!("hostile::{name}"), move || {
        test(&Place::new());
        Ok::<(), Infallible>(())
    })
}

#[cfg(any(feature = "pth", feature = "image"))]
fn golden(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden").join(file)).unwrap()
}

fn safetensors(header: &str, numbers: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), &vec![0; numbers]].concat()
}

fn described(name: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{offsets}]}}"#)
}

fn safetensors_cut_and_forged(place: &Place) {
    let tensors = NamedTensors::from([
        ("a.weight".to_string(), Tensor::zeros([2, 3]).unwrap()),
        ("b".to_string(), Tensor::zeros([1]).unwrap()),
        ("c".to_string(), Tensor::zeros([0, 4]).unwrap()),
    ]);
    io::write(place.path(), &tensors, &Metadata::new()).unwrap();
    let whole = fs::read(place.path()).unwrap();
    for at in 0..whole.len() {
        place.refused(&format!("cut at {at}"), &whole[..at], "expected");
    }
    let len = whole.len() as u64;
    for length in [0, 1, 7, len - 8, len - 7, 100_000_000, 100_000_001, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        let mut forged = whole.clone();
        forged[..8].copy_from_slice(&length.to_le_bytes());
        place.refused(&format!("length {length}"), &forged, "header");
    }
    let two = |a: &str, b: &str| format!("{{{},{}}}", described("a", "1", a), described("b", "1", b));
    for (what, header) in [
        ("overlapping", two("0,4", "2,6")),
        ("one place twice", two("0,4", "0,4")),
        ("a hole", two("0,4", "8,12")),
        ("reversed", two("4,0", "4,8")),
        ("beyond the end", two("0,4", "4,18446744073709551615")),
        ("negative", two("0,4", "-4,0")),
        ("shorter than the shape", format!("{{{}}}", described("a", "3", "0,8"))),
        ("a name twice", format!("{{{},{}}}", described("a", "2", "0,8"), described("a", "2", "0,8"))),
    ] {
        place.refused(what, &safetensors(&header, 8), "header");
    }
    for shape in
        ["4294967296,4294967296", "9223372036854775808,2", "18446744073709551615", "4611686018427387904,4"]
    {
        let header = format!("{{{}}}", described("a", shape, "0,8"));
        place.refused(shape, &safetensors(&header, 8), "header");
    }
    let header = format!("{{{}}}", described("a", "0,9223372036854775808", "0,0"));
    place.refused("nothing times too much", &safetensors(&header, 0), "address space");
}

fn safetensors_with_implausible_headers(place: &Place) {
    let many = |count: usize, item: &dyn Fn(usize) -> String| -> String {
        (0..count).map(item).collect::<Vec<_>>().join(",")
    };
    for (what, header) in [
        ("many tensors in one place", many(100_000, &|i| described(&format!("{i:x}"), "1", "0,4"))),
        ("many tensors of nothing", many(100_000, &|i| described(&format!("{i:x}"), "0", "0,0"))),
        ("many axes", described("a", &many(500_000, &|_| "0".to_string()), "0,0")),
        ("many texts", format!(r#""__metadata__":{{{}}}"#, many(100_000, &|i| format!(r#""{i:x}":"""#)))),
        ("many lists", format!(r#""a":[{}]"#, many(500_000, &|_| "[]".to_string()))),
        ("deep lists", format!(r#""a":{}{}"#, "[".repeat(1000), "]".repeat(1000))),
        ("deep objects", r#""a":{"#.repeat(1000)),
    ] {
        place.refused(what, &safetensors(&format!("{{{header}}}"), 4), "header");
    }
    let long = format!("{{{}}}", described(&"n".repeat(1 << 20), "1", "0,8"));
    place.refused("a long name", &safetensors(&long, 8), "header");
    // Ever more tensors, until they are rejected: the most that are not are held to the bound,
    // loaded as well.
    let names: [&dyn Fn(usize) -> String; 4] = [
        &|i| format!("{i:x}"),
        &|i| format!("{i:x}.linear.weight"),
        &|i| format!("{i:x}.conv1.weight.a.b.c.d.e.f"),
        &|i| format!("{}.conv1.weight", "n".repeat(i)),
    ];
    for name in names {
        let mut count = 500;
        loop {
            let header = format!("{{{}}}", many(count, &|i| described(&name(i), "0", "0,0")));
            if place.read(&name(1), &safetensors(&header, 0)).is_err() || count > 10_000 {
                break;
            }
            count += count / 10;
        }
        assert!(count > 500, "{}", name(1));
    }
}

/// What the fuzzers in `fuzz/` found worth keeping, and small files to begin with.
fn corpus(name: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let files = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    files.map(|file| file.unwrap().path()).map(|path| (path.display().to_string(), fs::read(path).unwrap()))
}

fn weights_corpora(place: &Place) {
    for (name, bytes) in corpus("safetensors").chain(corpus("pytorch")) {
        let answer = place.read(&name, &bytes);
        assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "{name}: {answer:?}");
    }
}

fn cifar_corpus(place: &Place) {
    let folder = place.folder.path();
    for (name, bytes) in corpus("cifar") {
        for file in ["test_batch.bin", "train.bin", "test.bin"]
            .map(str::to_string)
            .into_iter()
            .chain((1..=5).map(|i| format!("data_batch_{i}.bin")))
        {
            fs::write(folder.join(file), &bytes).unwrap();
        }
        let refused =
            |error: Option<Error>| error.is_none_or(|error| matches!(error, Error::Malformed { .. }));
        assert!(refused(Cifar10::open(folder).err()) && refused(Cifar100::open(folder).err()), "{name}");
    }
}

#[cfg(feature = "pth")]
mod pytorch {
    use super::*;

    pub(super) fn tests() -> Vec<Trial> {
        vec![
            test("pytorch::cut_anywhere", cut_anywhere),
            test("pytorch::pickles", pickles),
            test("pytorch::tensors_that_lie", tensors_that_lie),
            test("pytorch::archives", archives),
            test("pytorch::deflated", deflated),
            test("pytorch::damaged_at_the_end", damaged_at_the_end),
            test("pytorch::small_tensors", small_tensors),
            test("pytorch::large_in_memory", large_in_memory),
            test("pytorch::shared_numbers", shared_numbers),
            test("pytorch::repeated_numbers", repeated_numbers),
        ]
    }

    fn cut_anywhere(place: &Place) {
        for name in ["small.pth", "small_legacy.pth", "twenty_one_letters_ok.pth"] {
            let whole = golden(&format!("weights/{name}"));
            assert_eq!(place.read(name, &whole).unwrap()["bias"].data(), [0.5, -0.5]);
            for at in 0..whole.len() {
                place.refused(&format!("{name} cut at {at}"), &whole[..at], "expected");
            }
        }
    }

    /// A file of an archive: its name, what it holds, and how it says that this is stored.
    struct Stored<'a>(&'a str, &'a [u8], u16);

    /// A zip archive that says it has `count` files.
    fn archive(files: &[Stored<'_>], count: u16) -> Vec<u8> {
        let (mut bytes, mut directory) = (vec![], vec![]);
        for &Stored(name, content, method) in files {
            let at = bytes.len() as u32;
            let len = (content.len() as u32).to_le_bytes();
            let about = |version: &[u8]| -> Vec<u8> {
                let checksum_and_lengths = [[0; 4], len, len].concat();
                let name = (name.len() as u16).to_le_bytes();
                [version, &[0, 0], &method.to_le_bytes(), &[0; 4], &checksum_and_lengths, &name, &[0, 0]]
                    .concat()
            };
            bytes.extend([b"PK\x03\x04", &about(&[20, 0])[..], name.as_bytes(), content].concat());
            let place = [&[0; 10][..], &at.to_le_bytes()].concat();
            directory.extend([b"PK\x01\x02", &about(&[20, 0, 20, 0])[..], &place, name.as_bytes()].concat());
        }
        let begin = bytes.len() as u32;
        let (count, len) = (count.to_le_bytes(), (directory.len() as u32).to_le_bytes());
        let end = [b"PK\x05\x06", &[0; 4][..], &count, &count, &len, &begin.to_le_bytes(), &[0; 2]].concat();
        [bytes, directory, end].concat()
    }

    fn around(pickle: &[u8]) -> Vec<u8> {
        archive(&[Stored("m/data.pkl", pickle, 0), Stored("m/data/0", &[0; 64], 0)], 2)
    }

    /// The pickles before the object in a stream, and one after it for its keys.
    fn in_stream(pickle: &[u8]) -> Vec<u8> {
        let whole = golden("weights/small_legacy.pth");
        let begins: Vec<usize> =
            (0..whole.len() - 1).filter(|&at| whole[at..].starts_with(&[0x80, 2])).collect();
        [&whole[..begins[3]], pickle, b"\x80\x02]."].concat()
    }

    fn pickles(place: &Place) {
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let call = |name: &[u8]| {
            [b"\x80\x02}", &text("a")[..], b"c", name, &text("touch harm"), b"\x85Rs."].concat()
        };
        let shared = |count: u8| -> Vec<u8> {
            let twice = (0..count).flat_map(|i| [b'h', i, b'h', i, 0x86, b'q', i + 1]);
            let begin = [b"\x80\x02}".to_vec(), text("a"), b"K\x01\x85q\x00".to_vec()].concat();
            // All but the dictionary and the key are popped, and the last is taken from the memo.
            let pops = b"0".repeat(usize::from(count) + 1);
            [begin, twice.collect(), pops, [b'h', count].to_vec(), b"s.".to_vec()].concat()
        };
        let of =
            |begin: &[u8], many: &[u8], count: usize, end: &[u8]| [begin, &many.repeat(count), end].concat();
        for (what, pickle, words) in [
            ("a call of os.system", call(b"os\nsystem\n"), "found os.system"),
            ("the same as Python writes it", call(b"posix\nsystem\n"), "found posix.system"),
            ("a call of eval", call(b"builtins\neval\n"), "found builtins.eval"),
            ("a call by text", b"\x80\x04\x8c\x02os\x8c\x06system\x93.".to_vec(), "found os.system"),
            ("a protocol of the future", b"\x80\x06}.".to_vec(), "protocols 2 to 5"),
            (
                "bytes of the whole address space",
                b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
                "expected",
            ),
            ("a text of the same", b"\x80\x05\x8d\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "expected"),
            ("a list twice in itself", b"\x80\x02}U\x01a]q\x00(h\x00h\x00es.".to_vec(), "twice the file"),
            ("many objects", of(b"\x80\x02]", b"cm\nn\n)\x81a", 1 << 16, b"."), "twice the file"),
            ("one again and again", of(b"\x80\x02]", b"2", 1 << 20, b"."), "twice the file"),
            ("a name without end", of(b"\x80\x02c", b"o", 1 << 20, b""), "name of something"),
            ("deep lists", of(b"\x80\x02", b"]", 1000, &b"a".repeat(1000)), "deeper"),
            ("deep tuples", of(b"\x80\x02)", b"\x85", 100_000, b"."), "deeper"),
            ("deep marks", of(b"\x80\x02", b"(", 100_000, b"."), "twice the file"),
            (
                "lists in the memory",
                of(b"\x80\x02]q\x00", b"h\x00h\x00h\x00", 100_000, b"."),
                "twice the file",
            ),
            ("twice and twice again", shared(60), "twice the file"),
            ("many nothings", of(b"\x80\x02", b"N", 1 << 20, b"."), "twice the file"),
            ("many lists in a list", of(b"\x80\x02]", b"]a", 1 << 19, b"."), "twice the file"),
            ("many names for nothing", of(b"\x80\x02}(", b"U\x01aN", 1 << 18, b"u."), "twice the file"),
            (
                "a text without end",
                of(b"\x80\x02X\xff\xff\xff\xff", b"a", 1000, b"."),
                "its last instruction",
            ),
            ("no value", b"\x80\x02.".to_vec(), "one value"),
            ("two values", b"\x80\x02NN.".to_vec(), "one value"),
            ("nothing to take", b"\x80\x02R.".to_vec(), "a value on the stack"),
            ("no mark", b"\x80\x02Nt.".to_vec(), "a mark"),
            ("nothing remembered", b"\x80\x02h\x07.".to_vec(), "something remembered"),
            ("a name without a value", b"\x80\x02}(K\x01u.".to_vec(), "a value for every name"),
            ("no dictionary", b"\x80\x02K\x01.".to_vec(), "dictionary"),
        ] {
            place.refused(what, &around(&pickle), words);
            let words = if what == "no dictionary" { "dictionary" } else { words };
            place.refused(&format!("{what}, in a stream"), &in_stream(&pickle), words);
        }
        // Harmless company is passed over and never called.
        let namespace =
            [b"\x80\x02}", &text("args")[..], b"cargparse\nNamespace\n)\x81}", &text("lr")[..], b"K\x01sbs."]
                .concat();
        assert!(place.read("a namespace", &around(&namespace)).unwrap().is_empty());
        let recursive = b"\x80\x02}U\x01a]q\x00h\x00as.";
        assert!(place.read("a list in itself", &around(recursive)).unwrap().is_empty());
    }

    /// A pickle of one tensor with this description.
    fn tensor(numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        let item = [text("a"), rebuilt("0", numel, offset, shape, strides)].concat();
        [b"\x80\x02}".to_vec(), item, b"s.".to_vec()].concat()
    }

    /// A short text.
    fn text(text: &str) -> Vec<u8> {
        [&[b'U', text.len() as u8], text.as_bytes()].concat()
    }

    /// What makes a tensor, of a storage with this key.
    fn rebuilt(key: &str, numel: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
        let number = |n: &i64| [&[0x8a, 8][..], &n.to_le_bytes()].concat();
        let tuple = |numbers: &[i64]| {
            [b"(".to_vec(), numbers.iter().flat_map(number).collect(), b"t".to_vec()].concat()
        };
        let storage = [
            b"(".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(key),
            text("cpu"),
            number(&numel),
            b"tQ".to_vec(),
        ]
        .concat();
        let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec();
        let rest =
            [number(&offset), tuple(shape), tuple(strides), b"\x89ccollections\nOrderedDict\n)RtR".to_vec()]
                .concat();
        [rebuild, storage, rest].concat()
    }

    fn tensors_that_lie(place: &Place) {
        assert_eq!(
            place.read("no lie", &around(&tensor(16, 4, &[2, 3], &[3, 1]))).unwrap()["a"].shape(),
            [2, 3]
        );
        for (what, pickle) in [
            ("numbers that overflow", tensor(0x4000_0000_0000_0001, 0, &[0x4000_0000_0000_0001], &[1])),
            ("a shape that overflows", tensor(16, 0, &[1 << 32, 1 << 32], &[1, 1])),
            ("strides that overflow", tensor(16, 0, &[2, 2], &[i64::MAX, i64::MAX])),
            ("a negative size", tensor(16, 0, &[-1], &[1])),
            ("a negative stride", tensor(16, 0, &[2], &[-1])),
            ("a negative offset", tensor(16, -1, &[2], &[1])),
            ("an offset beyond", tensor(16, 16, &[1], &[1])),
            ("more than the storage", tensor(16, 0, &[17], &[1])),
            ("more than the storage has", tensor(1 << 40, 0, &[1 << 38], &[1])),
            ("a storage that is longer elsewhere", tensor(17, 0, &[17], &[1])),
            ("many axes", tensor(16, 0, &[1; 60], &[1; 60])),
            ("nothing times too much", tensor(16, 0, &[0, i64::MAX, 4], &[1, 1, 1])),
            ("one number for ever", tensor(16, 0, &[1 << 40], &[0])),
        ] {
            place.refused(what, &around(&pickle), "expected");
        }
        let one = rebuilt("0", 16, 0, &[16], &[1]);
        let inside = [text("a"), b"}".to_vec(), text("b"), one.clone(), b"s".to_vec()].concat();
        for (what, items) in [
            ("two of one name", [text("a"), one.clone(), text("a"), one.clone()].concat()),
            ("two of one name, by a dot", [inside, text("a.b"), one.clone()].concat()),
            ("a number and its name", [b"K\x01".to_vec(), one.clone(), text("1"), one].concat()),
        ] {
            let pickle = [b"\x80\x02}(".to_vec(), items, b"u.".to_vec()].concat();
            place.refused(what, &around(&pickle), "a name for every tensor");
        }
    }

    /// Numbers of 16 bits take twice their module once they are read, and the last of these are not
    /// there.
    fn damaged_at_the_end(place: &Place) {
        const NUMBERS: usize = 1 << 20;
        let large = rebuilt("0", NUMBERS as i64, 0, &[NUMBERS as i64], &[1]);
        let file = |last: usize| {
            let small = rebuilt("1", 16, 0, &[16], &[1]);
            let pickle = [b"\x80\x02}(", &text("a")[..], &large, &text("b"), &small, b"u."].concat();
            let at = pickle.windows(12).position(|word| word == b"FloatStorage").unwrap();
            let pickle = [&pickle[..at], b"HalfStorage", &pickle[at + 12..]].concat();
            let numbers = vec![0; 2 * NUMBERS];
            let files = [("m/data.pkl", &pickle[..]), ("m/data/0", &numbers), ("m/data/1", &numbers[..last])];
            archive(&files.map(|(name, content)| Stored(name, content, 0)), 3)
        };
        assert_eq!(place.read("not damaged", &file(64)).unwrap()["a"].data().len(), NUMBERS);
        place.refused("damaged at the end", &file(60), "tensor b");
    }

    fn archives(place: &Place) {
        let pickle = tensor(16, 0, &[16], &[1]);
        let good = [Stored("m/data.pkl", &pickle, 0), Stored("m/data/0", &[0; 64], 0)];
        let whole = archive(&good, 2);
        assert!(place.read("good", &whole).is_ok());
        place.refused("more files than there are", &archive(&good, 60_000), "directory");
        place.refused("fewer files than there are", &archive(&good, 1), "side by side");
        place.refused(
            "not what deflate writes",
            &archive(&[Stored("m/data.pkl", &pickle, 8)], 1),
            "expected",
        );
        place.refused(
            "compressed in another way",
            &archive(&[Stored("m/data.pkl", &pickle, 12)], 1),
            "compressed or encrypted",
        );
        place.refused("no pickle", &archive(&[Stored("m/data/0", &[0; 64], 0)], 1), "a file data.pkl");
        let pickles = [Stored("m/data.pkl", &pickle, 0), Stored("n/data.pkl", b".", 0)];
        place.refused("two pickles", &archive(&pickles, 2), "one data.pkl");
        let twice = [
            Stored("m/data.pkl", &pickle, 0),
            Stored("m/data/0", &[0; 64], 0),
            Stored("m/data/0", &[1; 64], 0),
        ];
        place.refused("one name twice", &archive(&twice, 3), "m/data/0 twice");
        let names: Vec<String> = (0..20_000).map(|i| format!("{i}")).collect();
        let many: Vec<Stored<'_>> = names.iter().map(|name| Stored(name, b"", 0)).collect();
        place.refused("many files", &archive(&many, 20_000), "proportion");
        place.refused("something behind", &[&whole[..], b"something"].concat(), "record that ends it");

        // A comment and extra fields, which may come to many times their bytes.
        for field in [30, 32] {
            let last = whole.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
            let end = whole.len() - 22;
            let mut longer = whole.clone();
            longer[last + field] = 4;
            longer[end + 12] += 4;
            longer.splice(end..end, [0xca, 0xfe, 0, 0]);
            place.refused("something behind a name", &longer, "a name and nothing more");
        }

        // Every byte of what describes the archive, changed; of a storage's bytes none is a lie.
        for at in whole.len() - 200..whole.len() {
            for change in [1, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                let answer = place.read(&format!("byte {at} changed"), &changed);
                assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "{answer:?}");
            }
        }
    }

    /// A packed file may be a thousand times as long once it is unpacked.
    fn deflated(place: &Place) {
        let pack = |content: &[u8]| {
            let mut encoder = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::best());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        // The lengths before packing are those of the local header and of the directory.
        let packed = |pickle: &[u8], storage: &[u8], declared: [usize; 2]| {
            let contents = [pack(pickle), pack(storage)];
            let names = ["m/data.pkl", "m/data/0"];
            let files = [0, 1].map(|i| Stored(names[i], &contents[i], 8));
            let mut bytes = archive(&files, 2);
            for (name, len) in names.into_iter().zip(declared) {
                let name = name.as_bytes();
                let at: Vec<usize> =
                    (0..bytes.len() - name.len()).filter(|&at| bytes[at..].starts_with(name)).collect();
                // The length is 8 bytes before the name in a local header, 22 in the directory.
                for (at, before) in [(at[0], 8), (at[at.len() - 1], 22)] {
                    bytes[at - before..][..4].copy_from_slice(&(len as u32).to_le_bytes());
                }
            }
            bytes
        };
        let pickle = tensor(16, 0, &[16], &[1]);
        let good = packed(&pickle, &[0; 64], [pickle.len(), 64]);
        assert_eq!(place.read("packed", &good).unwrap()["a"].shape(), [16]);
        for at in 0..good.len() {
            let answer = place.read(&format!("packed, cut at {at}"), &good[..at]);
            assert!(matches!(answer, Err(Error::Malformed { .. })), "{answer:?}");
            let mut changed = good.clone();
            changed[at] ^= 0x10;
            let answer = place.read(&format!("packed, byte {at} changed"), &changed);
            assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "{answer:?}");
        }
        let many = [&b"\x80\x02"[..], &b"N0".repeat(4 << 20), b"}."].concat();
        place.refused("a long program", &packed(&many, &[0; 64], [many.len(), 64]), "in proportion");
        place.refused("one that says it is short", &packed(&many, &[0; 64], [64, 64]), "expected");
        let zeros = vec![0; 16 << 20];
        let pickle = tensor(4 << 20, 0, &[4 << 20], &[1]);
        let lengths = [pickle.len(), zeros.len()];
        place.refused("many zeros", &packed(&pickle, &zeros, lengths), "in proportion");
        let pickle = tensor(1 << 18, 0, &[1 << 18], &[1]);
        let lengths = [pickle.len(), 1 << 20];
        place.refused("more than the file", &packed(&pickle, &zeros[..1 << 20], lengths), "than the file");
        let pickle = tensor(16, 0, &[16], &[1]);
        let lengths = [pickle.len(), 64];
        place.refused("less than it says", &packed(&pickle, &[0; 60], lengths), "tensor a");
    }

    /// Tensors of one element take far more in memory than in the file, and some hundreds of them
    /// too much.
    fn small_tensors(place: &Place) {
        let file = |count: usize, numbers: &dyn Fn(usize) -> i64| {
            let tensors = (0..count).flat_map(|i| {
                let key = format!("{i:04}");
                let remembered = |at: usize| [b"r", &(at as u32).to_le_bytes()[..]].concat();
                [
                    text(&key),
                    remembered(2 * i),
                    rebuilt(&key, 1, 0, &[numbers(i)], &[1]),
                    remembered(2 * i + 1),
                ]
                .concat()
            });
            let pickle = [b"\x80\x02}(".to_vec(), tensors.collect(), b"u.".to_vec()].concat();
            let names: Vec<String> = (0..count).map(|i| format!("m/data/{i:04}")).collect();
            let mut files = vec![Stored("m/data.pkl", &pickle, 0)];
            files.extend(names.iter().map(|name| Stored(name, &[0; 4], 0)));
            archive(&files, count as u16 + 1)
        };
        assert_eq!(place.read("small tensors", &file(200, &|_| 1)).unwrap().len(), 200);
        place.refused("one that lies", &file(200, &|i| if i == 199 { 2 } else { 1 }), "needs 2 elements");
        place.refused("too many small tensors", &file(2000, &|_| 1), "twice the file");
    }

    /// Pickles of every kind that take more in memory than in the file, ever longer until they are
    /// rejected: the longest that is not is held to the bound.
    fn large_in_memory(place: &Place) {
        let name = |i: usize| text(&format!("{i:x}"));
        let each = |begin: &[u8], item: &dyn Fn(usize) -> Vec<u8>, count: usize, end: &[u8]| {
            [begin.to_vec(), (0..count).flat_map(item).collect(), end.to_vec()].concat()
        };
        let one = rebuilt("0", 16, 0, &[16], &[1]);
        let tensors = |count: usize| {
            let again = each(b"", &|i| [name(i), b"h\x00".to_vec()].concat(), count, b"");
            [text("-"), one.clone(), b"q\x00".to_vec(), again].concat()
        };
        let long = |count: usize| {
            let name = vec![b'n'; 10 * count];
            [b"X", &(name.len() as u32).to_le_bytes()[..], &name].concat()
        };
        let as_torch_saves = |count: usize| {
            let tensor = |i: usize| {
                let remembered = |at: usize| [b"r", &((4 * i + at) as u32).to_le_bytes()[..]].concat();
                let tensor = rebuilt(&format!("{i:x}"), 1, 0, &[1], &[1]);
                let (arguments, call) = tensor.split_at(tensor.len() - 1);
                [&name(i), &remembered(0), arguments, &remembered(1), call, &remembered(2)].concat()
            };
            each(b"\x80\x02}(", &tensor, count, b"u.")
        };
        type Kind<'a> = (&'a str, &'a dyn Fn(usize) -> Vec<u8>);
        let kinds: [Kind<'_>; 12] = [
            ("names", &|n| each(b"\x80\x02}(", &|i| [name(i), b"N".to_vec()].concat(), n, b"u.")),
            ("a tuple", &|n| each(b"\x80\x02(", &|_| b"N".to_vec(), n, b"t.")),
            ("a list", &|n| each(b"\x80\x02]", &|_| b"Na".to_vec(), n, b".")),
            ("small dictionaries", &|n| each(b"\x80\x02](", &|_| b"}U\x01aNs".to_vec(), n, b"e.")),
            ("small lists", &|n| each(b"\x80\x02](", &|_| b"]Na".to_vec(), n, b"e.")),
            ("a memory", &|n| {
                each(b"\x80\x02](", &|i| [b"Nr", &(i as u32).to_le_bytes()[..]].concat(), n, b"e.")
            }),
            ("many axes", &|n| tensor(16, 0, &vec![1; n], &vec![1; n])),
            ("one tensor again", &|n| [b"\x80\x02}(", &tensors(n)[..], b"u."].concat()),
            ("below a long name", &|n| [b"\x80\x02}", &long(n)[..], b"}(", &tensors(n), b"us."].concat()),
            ("a long text", &|n| [b"\x80\x02}", &long(300 * n)[..], b"Ns."].concat()),
            ("pairs", &|n| {
                let pair = |i| [name(i), b"N\x86".to_vec()].concat();
                each(b"\x80\x02ccollections\nOrderedDict\n](", &pair, n, b"e\x85R.")
            }),
            ("tensors", &as_torch_saves),
        ];
        for (what, pickle) in kinds {
            for file in [around, in_stream] {
                let mut count = 100;
                while !place.read(what, &file(&pickle(count))).is_err_and(|e| e.to_string().contains("twice"))
                {
                    count += count / 10;
                }
            }
        }
        // What the object takes is not granted to the keys after it once more.
        let object = each(b"\x80\x02}(", &|i| [name(i), b"N".to_vec()].concat(), 2000, b"u.");
        let keys = each(b"\x80\x02](", &|_| b"N".to_vec(), 6000, b"e.");
        let whole = in_stream(&object);
        let stream = [&whole[..whole.len() - 4], &keys].concat();
        place.refused("an object and keys", &stream, "twice the file");
    }

    /// A thousand tensors of the same elements come to a thousand times the file.
    fn shared_numbers(place: &Place) {
        let numbers = vec![0; 1 << 16];
        let tensors = |count: u8| {
            let one = rebuilt("0", 1 << 14, 0, &[1 << 14], &[1]);
            let again = (1..count).flat_map(|i| [&text(&format!("{i}"))[..], b"h\x00"].concat());
            let begin = [b"\x80\x02}(".to_vec(), text("0"), one, b"q\x00".to_vec()].concat();
            let pickle = [begin, again.collect(), b"u.".to_vec()].concat();
            archive(&[Stored("m/data.pkl", &pickle, 0), Stored("m/data/0", &numbers, 0)], 2)
        };
        assert_eq!(place.read("tied", &tensors(2)).unwrap().len(), 2);
        place.refused("the same numbers again and again", &tensors(100), "twice the file");
    }

    /// PyTorch writes a tensor that repeats one element 2^30 times in a kilobyte.
    fn repeated_numbers(place: &Place) {
        place.refused(
            "4 GiB in a kilobyte",
            &golden("weights/repeated.pth"),
            "4294967296 bytes, more than the file",
        );
    }
}

#[cfg(feature = "image")]
mod pictures {
    use super::*;
    use skipgrad::data::open_image;

    pub(super) fn tests() -> Vec<Trial> {
        vec![
            test("pictures::cut_anywhere", cut_anywhere),
            test("pictures::implausible_headers", implausible_headers),
            test("pictures::spoilt", spoilt),
            #[cfg(feature = "image-formats")]
            test("pictures::other_formats", other_formats),
        ]
    }

    /// Opens the bytes as a picture; an answer that is none may take as much as a weights file's.
    fn open(place: &Place, what: &str, bytes: &[u8]) -> Result<(), Error> {
        fs::write(place.path(), bytes).unwrap();
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let answer = open_image(place.path()).map(drop);
        let taken = MEMORY.peak_usage() - before;
        let most = 2 * bytes.len() + (1 << 20);
        assert!(answer.is_ok() || taken <= most, "{what}: {taken} bytes for a file of {}", bytes.len());
        answer
    }

    #[track_caller]
    fn refused(place: &Place, what: &str, bytes: &[u8], words: &str) {
        match open(place, what, bytes) {
            Err(error @ Error::Malformed { .. }) => assert!(error.to_string().contains(words), "{error}"),
            other => panic!("{what}: {other:?}"),
        }
    }

    fn cut_anywhere(place: &Place) {
        for name in ["one.png", "small.png", "turned.jpg"] {
            let whole = golden(&format!("pictures/{name}"));
            open(place, name, &whole).unwrap();
            // What says that it is the end holds nothing of the picture, in a PNG and in a JPEG.
            let needed = whole.len() - if name.ends_with("png") { 16 } else { 2 };
            for at in whole.len() - 2..whole.len() {
                open(place, name, &whole[..at]).unwrap();
            }
            for at in 0..needed {
                refused(place, &format!("{name} cut at {at}"), &whole[..at], "expected");
            }
        }
    }

    fn implausible_headers(place: &Place) {
        let sized_png = |width: u32, height: u32| {
            let mut file = vec![];
            let mut encoder = png::Encoder::new(&mut file, width, height);
            encoder.set_color(png::ColorType::Rgba);
            encoder.set_depth(png::BitDepth::Sixteen);
            encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
            file
        };
        for (width, height) in
            [(65_535, 65_535), (i32::MAX as u32, i32::MAX as u32), (1, 65_535), (16_385, 1)]
        {
            refused(place, "a large PNG", &sized_png(width, height), "at most 16384 x 16384");
        }
        refused(place, "a PNG of 2 GiB", &sized_png(16_384, 16_384), "268435456 bytes");
        refused(place, "a PNG of little", &sized_png(4096, 4096), "at most 4096 times the file's");
        let frame = |jpeg: &[u8]| jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        for (size, words) in [
            (65_535u16, "at most 16384 x 16384"),
            (16_384, "268435456 bytes"),
            (9_000, "at most 4096 times the file's"),
        ] {
            let mut jpeg = golden("pictures/turned.jpg");
            let at = frame(&jpeg) + 5;
            jpeg[at..at + 2].copy_from_slice(&size.to_be_bytes());
            jpeg[at + 2..at + 4].copy_from_slice(&size.to_be_bytes());
            refused(place, "a large JPEG", &jpeg, words);
        }
    }

    /// Whatever a byte is replaced by, there is a picture or a typed error.
    fn spoilt(place: &Place) {
        for name in ["small.png", "turned.jpg"] {
            let whole = golden(&format!("pictures/{name}"));
            for at in 0..whole.len() {
                for with in [0, 0xff, whole[at] ^ 0x10] {
                    let mut bytes = whole.clone();
                    bytes[at] = with;
                    fs::write(place.path(), &bytes).unwrap();
                    let answer = open_image(place.path());
                    assert!(
                        matches!(answer, Ok(_) | Err(Error::Malformed { .. })),
                        "{name} at {at}: {answer:?}"
                    );
                }
            }
        }
    }

    /// A picture of 2 x 2 pixels in each of the formats that features add.
    #[cfg(feature = "image-formats")]
    fn small_files() -> [(&'static str, Vec<u8>); 4] {
        let bmp = [
            &b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x02\0\0\0\x01\0\x18\0"[..],
            &[0; 24],
            b"\0\0\xff\0\xff\0\0\0\xff\0\0\xff\xff\xff\0\0",
        ];
        let gif = [
            &b"GIF89a\x02\0\x02\0\x80\0\0\xff\0\0\0\0\xff"[..],
            b",\0\0\0\0\x02\0\x02\0\0\x02\x03\x44\x02\x05\0;",
        ];
        let entry = |tag: u16, value: u32| {
            [&tag.to_le_bytes()[..], b"\x04\0\x01\0\0\0", &value.to_le_bytes()].concat()
        };
        let tags =
            [(256, 2), (257, 2), (258, 8), (259, 1), (262, 1), (273, 122), (277, 1), (278, 2), (279, 4)];
        let tiff = [
            &b"II*\0\x08\0\0\0\x09\0"[..],
            &tags.map(|(tag, value)| entry(tag, value)).concat(),
            b"\0\0\0\0",
            b"\x01\x02\x03\x04",
        ];
        let webp =
            [&b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10"[..], b"\x07\x10\x11\x11\x88\x88\xfe\x07\0"];
        [("bmp", bmp.concat()), ("gif", gif.concat()), ("tiff", tiff.concat()), ("webp", webp.concat())]
    }

    #[cfg(feature = "image-formats")]
    fn other_formats(place: &Place) {
        for (name, whole) in small_files() {
            open(place, name, &whole).unwrap_or_else(|error| panic!("{name}: {error}"));
            for at in 0..whole.len() {
                let answer = open(place, &format!("{name} cut at {at}"), &whole[..at]);
                assert!(matches!(answer, Ok(()) | Err(Error::Malformed { .. })), "{name}: {answer:?}");
                for with in [0, 0xff, whole[at] ^ 0x10] {
                    let mut bytes = whole.clone();
                    bytes[at] = with;
                    fs::write(place.path(), &bytes).unwrap();
                    let answer = open_image(place.path()).map(drop);
                    assert!(
                        matches!(answer, Ok(()) | Err(Error::Malformed { .. })),
                        "{name} at {at}: {answer:?}"
                    );
                }
            }
        }
        let [(_, mut bmp), ..] = small_files();
        for (width, height) in [(9000i32, 9000i32), (9000, -9000), (1, 16_000)] {
            bmp[18..22].copy_from_slice(&width.to_le_bytes());
            bmp[22..26].copy_from_slice(&height.to_le_bytes());
            refused(place, "a BMP of little", &bmp, "a truncated one");
        }
    }
}
