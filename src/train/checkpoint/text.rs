//! The texts in the metadata of a checkpoint: settings and progress as JSON, the history as CSV.

use super::{Header, Progress, Settings};
use crate::{Error, Result, io::Metadata, optim::NamedSettings, train::History};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The version of the JSON. Format 2, without what a loader and an optimizer depend on, and format
/// 1, lines of keys and values, are still read.
const FORMAT: usize = 3;

/// The first version that is JSON.
const FIRST_JSON: usize = 2;

/// Metadata keys of the JSON and of the CSV.
const CHECKPOINT: &str = "checkpoint";
const HISTORY: &str = "history";

/// The JSON, to be written with references and read with values.
#[derive(Serialize, Deserialize)]
struct Text<S, P, O> {
    format: usize,
    settings: S,
    progress: P,
    #[serde(default)]
    optimizer: O,
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback: Option<P>,
}

/// The part of the JSON that every version has.
#[derive(Deserialize)]
struct Version {
    format: usize,
}

/// Writes the header as metadata.
pub(super) fn encode(header: &Header) -> Metadata {
    let Header { settings, optimizer_settings: optimizer, progress, rollback } = header;
    let text = Text { format: FORMAT, settings, progress, optimizer, rollback: rollback.as_ref() };
    // Serialization fails only for maps whose keys are not strings, and for a writer that fails.
    let json = serde_json::to_string(&text).unwrap_or_default();
    Metadata::from([(CHECKPOINT.to_string(), json), (HISTORY.to_string(), progress.history.to_csv())])
}

/// Reads the header from the metadata of the file at `path`.
pub(super) fn decode(path: &Path, metadata: &Metadata) -> Result<Header> {
    let Some(text) = metadata.get(CHECKPOINT) else {
        return Err(Error::malformed(path, "header", "the text of a checkpoint", "none"));
    };
    if !text.starts_with('{') {
        let (json, history) = format1_to_json(path, text)?;
        return parse(path, &json, history);
    }
    let Some(history) = metadata.get(HISTORY) else {
        return Err(Error::malformed(path, "header", "the history of a checkpoint", "none"));
    };
    parse(path, text, history)
}

fn parse(path: &Path, json: &str, history: &str) -> Result<Header> {
    let malformed = |error| Error::malformed(path, CHECKPOINT, "settings and progress", error);
    let Version { format } = serde_json::from_str(json).map_err(malformed)?;
    if !(FIRST_JSON..=FORMAT).contains(&format) {
        return Err(Error::malformed(path, "format", FORMAT, format));
    }
    let text: Text<Settings, Progress, NamedSettings> = serde_json::from_str(json).map_err(malformed)?;
    let history = history.parse::<History>();
    let history = history.map_err(|error| Error::malformed(path, HISTORY, "a history", error))?;
    // A rollback goes back within an epoch, so the history is the same.
    let rollback = text.rollback.map(|progress| Progress { history: history.clone(), ..progress });
    Ok(Header {
        settings: text.settings,
        optimizer_settings: text.optimizer,
        progress: Progress { history, ..text.progress },
        rollback,
    })
}

/// Translates format 1, lines of a key and a value and then the history, into JSON and the history.
/// Numbers are copied as text, so that they keep all their bits.
fn format1_to_json<'a>(path: &Path, text: &'a str) -> Result<(String, &'a str)> {
    let (lines, history) = text.split_once("\n\n").unwrap_or((text, ""));
    let lines: BTreeMap<&str, &str> = lines.lines().filter_map(|line| line.split_once(' ')).collect();
    let line = |key: &str| {
        let found = lines.get(key).copied();
        let missing = || Error::malformed(path, CHECKPOINT, format_args!("a line for {key}"), "none");
        found.ok_or_else(missing)
    };
    let format = line("format")?;
    if format != "1" {
        return Err(Error::malformed(path, "format", 1, format));
    }
    let fields = |keys: &[(&str, &str)]| {
        let fields = keys.iter().map(|(name, key)| Ok(format!("\"{name}\":{}", line(key)?)));
        Ok::<String, Error>(fields.collect::<Result<Vec<String>>>()?.join(","))
    };
    let settings = fields(&[
        ("epochs", "epochs"),
        ("seed", "seed"),
        ("label_smoothing", "label_smoothing"),
        ("micro_batches", "micro_batches"),
    ])?;
    let clip_norm = match line("clip_norm")? {
        "none" => String::new(),
        "inf" => ",\"clip_norm\":null".to_string(),
        norm => format!(",\"clip_norm\":{norm}"),
    };
    let model = serde_json::Value::from(line("model")?);
    let schedule = format1_schedule(line("schedule")?);
    let position = fields(&[("epoch", "epoch"), ("batch", "batch")])?;
    let sums = fields(&[
        ("images", "sum.images"),
        ("correct", "sum.right"),
        ("loss", "sum.loss"),
        ("seconds", "sum.seconds"),
    ])?;
    let loader = fields(&[("images", "images"), ("batch_size", "batch_size")])?;
    let settings = format!("{{\"model\":{model},\"schedule\":{schedule},{settings}{clip_norm}}}");
    let progress = format!("{{\"position\":{{{position}}},\"sums\":{{{sums}}},\"loader\":{{{loader}}}}}");
    Ok((format!("{{\"format\":{FIRST_JSON},\"settings\":{settings},\"progress\":{progress}}}"), history))
}

/// Translates `one-cycle peak=0.4 steps=1950 ... warm_up=0` into JSON.
fn format1_schedule(line: &str) -> String {
    let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
    let (mut curve, mut warmup_steps) = (vec![], "null");
    for (key, value) in fields.split(' ').filter_map(|field| field.split_once('=')) {
        let value = if value == "inf" { "null" } else { value };
        match key {
            "warm_up" => warmup_steps = value,
            "at" => curve.push(format!("\"milestones\":[{value}]")),
            "every" => curve.push(format!("\"step_size\":{value}")),
            "factor" => curve.push(format!("\"gamma\":{value}")),
            "floor" => curve.push(format!("\"min_lr\":{value}")),
            "peak" => curve.push(format!("\"max_lr\":{value}")),
            _ => curve.push(format!("\"{key}\":{value}")),
        }
    }
    let (name, curve) = (name.replace('-', "_"), curve.join(","));
    format!("{{\"curve\":{{\"{name}\":{{{curve}}}}},\"warmup_steps\":{warmup_steps}}}")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Position, Sums},
        *,
    };
    use crate::{
        Precision,
        optim::{Curve, Plateau, Schedule},
        train::{Distillation, EarlyStopping, Ema, Loss, OnDivergence, Record, loader_info::LoaderInfo},
    };

    fn settings() -> Settings {
        Settings {
            model: "a \"net\" of\nmine".to_string(),
            epochs: 5,
            schedule: Schedule::one_cycle(0.4, 1950).warmup(3),
            seed: u64::MAX,
            label_smoothing: 0.1,
            clip_norm: Some(1.5),
            micro_batches: 2,
            on_divergence: OnDivergence::Stop,
            precision: Precision::F32,
            ema: None,
            loss: Loss::CrossEntropy,
            distillation: None,
            early_stopping: None,
            plateau: None,
        }
    }

    fn progress() -> Progress {
        let record = Record {
            epoch: 1,
            seconds: 1.0 / 3.0,
            lr: 0.1,
            train_loss: 2.0,
            train_accuracy: 0.25,
            test_loss: f32::NAN,
            test_accuracy: 0.125,
            test_top5: 0.5,
            skipped_steps: 0,
            rollbacks: 0,
            unreadable: 0,
            test_unreadable: 0,
            images_per_second: None,
            weights_hash: None,
            ema_test_loss: None,
            ema_test_accuracy: None,
        };
        Progress {
            position: Position { epoch: 1, batch: 17 },
            sums: Sums { images: 2176, correct: 99, loss: 0.1 + 0.2, seconds: 1e-9, ..Sums::default() },
            train: Some(LoaderInfo { images: 50_000, batch_size: 128, details: None }),
            history: History { records: vec![record] },
            ..Progress::default()
        }
    }

    fn header(settings: Settings, progress: Progress) -> Header {
        Header { settings, optimizer_settings: NamedSettings::new(), progress, rollback: None }
    }

    /// What version 0.1 wrote for the same settings and progress.
    const FORMAT_2: [&str; 2] = [
        "{\"format\":2,\"settings\":{\"model\":\"a \\\"net\\\" of\\nmine\",\"epochs\":5,\"schedule\":{\"curve\":\
         {\"one_cycle\":{\"max_lr\":0.4,\"steps\":1950,\"pct_start\":0.3,\"div_factor\":25.0,\
         \"final_div_factor\":10000.0}},\"warmup_steps\":3},\"seed\":18446744073709551615,\
         \"label_smoothing\":0.1,\"clip_norm\":1.5,\"micro_batches\":2},\"progress\":{\"position\":{\"epoch\":1,\
         \"batch\":17},\"sums\":{\"images\":2176,\"correct\":99,\"loss\":0.30000000000000004,\"seconds\":1e-9},\
         \"loader\":{\"images\":50000,\"batch_size\":128}}}",
        "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5\n\
         1,0.3333333333333333,0.1,2,0.25,NaN,0.125,0.5\n",
    ];

    /// What version 0.1 wrote for the same settings and progress, but for the name of the model.
    const FORMAT_1: &str = "format 1\nmodel a \"net\" of mine\nepochs 5\n\
        schedule one-cycle peak=0.4 steps=1950 pct_start=0.3 div_factor=25 final_div_factor=10000 warm_up=3\n\
        seed 18446744073709551615\nlabel_smoothing 0.1\nclip_norm 1.5\nmicro_batches 2\nimages 50000\n\
        batch_size 128\nepoch 1\nbatch 17\nsum.images 2176\nsum.right 99\nsum.loss 0.30000000000000004\n\
        sum.seconds 0.000000001\n\n\
        epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5\n\
        1,0.3333333333333333,0.1,2,0.25,NaN,0.125,0.5\n";

    fn decode(metadata: &Metadata) -> Result<(Settings, Progress)> {
        let header = super::decode(Path::new("a.checkpoint"), metadata)?;
        assert_eq!((header.optimizer_settings.len(), &header.rollback), (0, &None));
        Ok((header.settings, header.progress))
    }

    fn encode(settings: &Settings, progress: &Progress) -> Metadata {
        super::encode(&header(settings.clone(), progress.clone()))
    }

    fn format1(text: &str) -> Metadata {
        Metadata::from([(CHECKPOINT.to_string(), text.to_string())])
    }

    #[test]
    fn text_and_back_is_the_same() {
        let (read_settings, read_progress) = decode(&encode(&settings(), &progress())).unwrap();
        assert_eq!(read_settings, settings());
        // The record holds a NaN, which equals nothing.
        assert_eq!(format!("{read_progress:?}"), format!("{:?}", progress()));
        for clip_norm in [None, Some(f32::INFINITY), Some(f32::MIN_POSITIVE)] {
            let plain = Settings { model: String::new(), clip_norm, ..settings() };
            let again = decode(&encode(&plain, &Progress::default())).unwrap();
            assert_eq!(again, (plain, Progress::default()));
        }
    }

    #[test]
    fn what_else_a_header_has_is_read_back() {
        let rollback = Progress { position: Position { epoch: 1, batch: 0 }, ..Progress::default() };
        let settings = Settings {
            on_divergence: OnDivergence::SkipStep { max_consecutive: 4 },
            precision: Precision::Bf16,
            ema: Some(Ema::new(0.9999).warmup(true)),
            loss: Loss::Focal { alpha: None, gamma: 2.0 },
            distillation: Some(Distillation::new(4.0)),
            early_stopping: Some(EarlyStopping::new(3).restore_best(false)),
            plateau: Some(Plateau::new().min_scale(0.5)),
            ..settings()
        };
        let progress = Progress {
            lr_scale: 0.1,
            rollbacks: 2,
            consecutive_skipped: 3,
            ema_updates: 4,
            ..Progress::default()
        };
        let optimizer_settings = NamedSettings::from([("momentum".into(), "0.9".into())]);
        let header = Header { settings, optimizer_settings, progress, rollback: Some(rollback) };
        assert_eq!(super::decode(Path::new(""), &super::encode(&header)).unwrap(), header);
    }

    #[test]
    fn format_2_is_read() {
        let texts = [CHECKPOINT, HISTORY].into_iter().zip(FORMAT_2);
        let metadata = texts.map(|(key, text)| (key.to_string(), text.to_string())).collect();
        let (read_settings, read_progress) = decode(&metadata).unwrap();
        assert_eq!(read_settings, settings());
        assert_eq!(format!("{read_progress:?}"), format!("{:?}", progress()));
    }

    #[test]
    fn format_1_is_read() {
        let (read_settings, read_progress) = decode(&format1(FORMAT_1)).unwrap();
        assert_eq!(read_settings, Settings { model: "a \"net\" of mine".into(), ..settings() });
        assert_eq!(format!("{read_progress:?}"), format!("{:?}", progress()));
        let schedule = |line: &str| {
            let text = FORMAT_1.replace("one-cycle peak=0.4 steps=1950 pct_start=0.3", line);
            let text = text.replace(" div_factor=25 final_div_factor=10000", "");
            decode(&format1(&text.replace("clip_norm 1.5", "clip_norm none"))).unwrap().0
        };
        let multi_step = schedule("multi-step lr=0.3 at=3,20 factor=0.2");
        assert_eq!(multi_step.schedule, Schedule::multi_step(0.3, &[3, 20], 0.2).warmup(3));
        assert_eq!(multi_step.clip_norm, None);
        let step = schedule("step lr=0.1 every=7 factor=0.1").schedule;
        assert_eq!(step, Schedule::step(0.1, 7, 0.1).warmup(3));
        let cosine = schedule("cosine lr=0.1 steps=7 floor=0.0000001").schedule;
        assert_eq!(cosine.curve, Curve::Cosine { lr: 0.1, steps: 7, min_lr: 1e-7 });
        let polynomial = schedule("polynomial lr=0.1 steps=7 power=0.9").schedule;
        assert_eq!(polynomial, Schedule::polynomial(0.1, 7, 0.9).warmup(3));
        assert_eq!(schedule("constant lr=0.1").schedule, Schedule::constant(0.1).warmup(3));
    }

    #[test]
    fn a_damaged_text_names_the_value() {
        let check = |metadata: Metadata, expected: &str| {
            let error = decode(&metadata).unwrap_err().to_string();
            assert!(error.starts_with("a.checkpoint: ") && error.contains(expected), "{error}");
        };
        let metadata = encode(&settings(), &progress());
        let replaced = |from: &str, to: &str| {
            let mut metadata = metadata.clone();
            metadata.values_mut().for_each(|text| *text = text.replace(from, to));
            assert_ne!(metadata, encode(&settings(), &progress()), "{from}");
            metadata
        };
        check(replaced("\"format\":3", "\"format\":4"), "format: expected 3, found 4");
        check(replaced("\"seed\":1", "\"seed\":-"), "invalid value: integer `-8446744073709551615`");
        check(replaced("one_cycle", "two_cycle"), "unknown variant `two_cycle`, expected one of `constant`");
        check(replaced(",\"batch\":17", ""), "missing field `batch`");
        check(replaced(",0.125,0.5,0,0,0,0,,,,\n", "\n"), "history: expected a history");
        check(Metadata::new(), "header: expected the text of a checkpoint, found none");
        let mut without = metadata.clone();
        without.remove(HISTORY);
        check(without, "header: expected the history of a checkpoint, found none");

        let check = |from: &str, to: &str, expected: &str| {
            check(format1(&FORMAT_1.replace(from, to)), expected);
        };
        check(FORMAT_1, "", "a line for format, found none");
        check("format 1", "format 2", "format: expected 1, found 2");
        check("seed 1", "seed -", "invalid value: integer `-8446744073709551615`");
        check("one-cycle", "two-cycle", "unknown variant `two_cycle`");
        check("\nbatch 17", "", "a line for batch, found none");
        check("warm_up=3", "", "invalid type: null, expected usize");
        check(",0.125,0.5\n", "", "a history");
    }
}
