//! Event files: their framing and their content by a reader that knows nothing of the writer, and
//! by TensorBoard's own reader. `SKIPGRAD_PYTHON` names a Python that has tensorboard; without it
//! the second test says that it was skipped.

use crate::common::training::{loaders, model, sgd, trainer};
use skipgrad::{
    Result,
    report::tensorboard::EventWriter,
    train::{Event, History, Trainer},
};
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The values of each tag by step.
type Scalars = BTreeMap<String, BTreeMap<usize, f32>>;

/// CRC-32C bit by bit, with the reversed polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}

/// Takes a record from the front of a file, and checks its sums.
fn take_record<'a>(file: &mut &'a [u8]) -> &'a [u8] {
    let mut take = |count: usize| {
        let (taken, rest) = file.split_at(count);
        *file = rest;
        taken
    };
    let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let length = take(8);
    assert_eq!(number(take(4)), mask(crc32c(length)));
    let data = take(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    assert_eq!(number(take(4)), mask(crc32c(data)));
    data
}

/// A field of a message: its number, and its bytes. A number that is not of a fixed size is eight
/// bytes here.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut fields = vec![];
    while !message.is_empty() {
        let key = varint(&mut message);
        let count = match key & 7 {
            0 => {
                fields.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut message) as usize,
            5 => 4,
            wire_type => panic!("wire type {wire_type}"),
        };
        let (bytes, rest) = message.split_at(count);
        fields.push((key >> 3, bytes.to_vec()));
        message = rest;
    }
    fields
}

/// Reads the event files of a folder in the order of their names, as TensorBoard does: the start of
/// a session voids what was written of its step and later.
fn read(folder: &Path) -> Scalars {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut scalars = Scalars::new();
    for path in paths {
        let bytes = fs::read(path).unwrap();
        let mut file = &bytes[..];
        let first = fields(take_record(&mut file));
        assert!(first.iter().any(|(field, value)| (*field, &value[..]) == (3, b"brain.Event:2")));
        while !file.is_empty() {
            let event = fields(take_record(&mut file));
            let step = event.iter().find(|field| field.0 == 2).map_or(0, |(_, value)| value[0] as usize);
            assert!(event.iter().any(|(field, value)| *field == 1 && value.len() == 8), "the time");
            for (field, content) in event {
                match field {
                    5 => add_summary(&content, step, &mut scalars),
                    7 => scalars.values_mut().for_each(|values| values.retain(|at, _| *at < step)),
                    _ => {}
                }
            }
        }
    }
    scalars
}

fn add_summary(summary: &[u8], step: usize, scalars: &mut Scalars) {
    for (_, value) in fields(summary) {
        let value: BTreeMap<u64, Vec<u8>> = fields(&value).into_iter().collect();
        let tag = String::from_utf8(value[&1].clone()).unwrap();
        let number = f32::from_le_bytes(value[&2][..].try_into().unwrap());
        scalars.entry(tag).or_default().insert(step, number);
    }
}

/// What a history says, by the tags of the events.
fn expected(history: &History) -> Scalars {
    let mut scalars = Scalars::new();
    for r in &history.records {
        let values = [
            ("loss/train", r.train_loss),
            ("loss/test", r.test_loss),
            ("accuracy/train", r.train_accuracy),
            ("accuracy/test", r.test_accuracy),
            ("accuracy/test_top5", r.test_top5),
            ("learning_rate", r.lr),
            ("images_per_second", r.images_per_second.unwrap()),
        ];
        for (tag, value) in values {
            scalars.entry(tag.to_string()).or_default().insert(r.epoch, value);
        }
    }
    scalars
}

/// Trains for three epochs into a folder. After the first one the training is resumed, from a
/// checkpoint before an epoch of which there are events already. Returns the folder of the events.
fn train(folder: &Path) -> Result<std::path::PathBuf> {
    let events = folder.join("events");
    for epochs in [1, 3] {
        let ((train, test), mut model, mut optimizer) = (loaders(1), model(1), sgd());
        let mut trainer = trainer().epochs(epochs).folder(folder);
        if epochs > 1 {
            trainer.resume(&mut model, &mut optimizer, folder.join(Trainer::LAST))?;
        }
        let mut writer = EventWriter::create(&events, trainer.position().epoch)?;
        trainer.run(&mut model, &mut optimizer, &train, &test, |event| {
            if let Event::Epoch(record) = event {
                writer.record(&record).unwrap();
            }
        })?;
        if epochs == 1 {
            writer.scalar("loss/train", 2, 1e9)?;
        }
    }
    Ok(events)
}

fn history(folder: &Path) -> Result<History> {
    fs::read_to_string(folder.join(Trainer::HISTORY)).unwrap().parse()
}

#[test]
fn events_are_the_history() -> Result<()> {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let folder = tempfile::tempdir().unwrap();
    let events = train(folder.path())?;
    assert_eq!(fs::read_dir(&events).unwrap().count(), 2);
    assert_eq!(read(&events), expected(&history(folder.path())?));
    Ok(())
}

/// Prints each scalar of a folder: its tag, its step and its value.
const READ: &str = r#"
import sys
try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    sys.exit(3)
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
for tag in events.Tags()["scalars"]:
    for event in events.Scalars(tag):
        print(tag, event.step, repr(float(event.value)))
"#;

#[test]
fn tensorboard_reads_the_history() -> Result<()> {
    let Some(python) = std::env::var_os("SKIPGRAD_PYTHON") else {
        println!("skipped: SKIPGRAD_PYTHON is not set to a Python that has tensorboard");
        return Ok(());
    };
    let folder = tempfile::tempdir().unwrap();
    let events = train(folder.path())?;
    let output = Command::new(python).args(["-c", READ]).arg(events).output().unwrap();
    if output.status.code() == Some(3) {
        println!("skipped: the Python of SKIPGRAD_PYTHON has no tensorboard");
        return Ok(());
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found = Scalars::new();
    for line in text.lines() {
        let [tag, step, value] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let value: f64 = value.parse().unwrap();
        let earlier = found.entry(tag.to_string()).or_default().insert(step.parse().unwrap(), value as f32);
        assert_eq!(earlier, None, "{line}");
    }
    assert_eq!(found, expected(&history(folder.path())?));
    println!("{text}");
    Ok(())
}
