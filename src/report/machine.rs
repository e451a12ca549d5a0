//! On what machine, and with which versions, a report was made.

use crate::cpu::Isa;
use std::{
    env::consts::{ARCH, OS},
    fs, thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// Returns names and values that describe the machine.
pub(super) fn machine() -> Vec<(String, String)> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let mut rows = vec![
        ("processor".into(), processor()),
        ("instruction set".into(), Isa::active().name().to_string()),
        ("threads".into(), format!("{} of {cores} available", rayon::current_num_threads())),
        ("system".into(), system()),
    ];
    let peak = crate::memory::stats().peak;
    rows.push(("peak memory of tensors".into(), format!("{} MiB", peak >> 20)));
    rows
}

/// Returns names and values of versions.
pub(super) fn versions() -> Vec<(String, String)> {
    let build = if cfg!(debug_assertions) { "debug assertions" } else { "release" };
    let mut features = vec![];
    for (name, is_on) in [
        ("image", cfg!(feature = "image")),
        ("onnx", cfg!(feature = "onnx")),
        ("pth", cfg!(feature = "pth")),
        ("report", cfg!(feature = "report")),
        ("tensorboard", cfg!(feature = "tensorboard")),
    ] {
        features.extend(is_on.then_some(name));
    }
    vec![
        ("skipgrad".into(), format!("{} ({build})", env!("CARGO_PKG_VERSION"))),
        ("features".into(), features.join(", ")),
        ("report written".into(), date(SystemTime::now())),
    ]
}

/// Returns the name of the processor, or the architecture if the system does not tell.
fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_name(&cpuinfo)
        .map(str::to_string)
        .or_else(|| std::env::var("PROCESSOR_IDENTIFIER").ok())
        .unwrap_or_else(|| ARCH.to_string())
}

/// Finds the name of the processor in the text of Linux' `/proc/cpuinfo`.
fn model_name(cpuinfo: &str) -> Option<&str> {
    let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let named = fields.map(|(name, value)| (name.trim(), value.trim()));
    named
        .clone()
        .find(|(name, _)| *name == "model name")
        .or_else(|| {
            // What Linux says of a board with an ARM processor.
            named.clone().find(|(name, _)| *name == "Model")
        })
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{OS} {} ({ARCH})", release.trim()).replace("  ", " ")
}

/// Formats a time as date and time of day in UTC, to the minute.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    let [year, month, day] = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Converts days since 1970-01-01 to year, month and day in the Gregorian calendar (Hinnant,
/// "chrono compatible low-level date algorithms", `civil_from_days`).
fn civil(days: u64) -> [u64; 3] {
    // Years begin in March, so that the day that leap years add is the last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day_of_year - (153 * shifted + 2) / 5 + 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), [1970, 1, 1]);
        assert_eq!(civil(11_016), [2000, 2, 29]);
        assert_eq!(civil(19_782), [2024, 2, 29]);
        assert_eq!(civil(47_540), [2100, 2, 28]);
        assert_eq!(civil(47_541), [2100, 3, 1]);
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(86_399)), "1970-01-01 23:59 UTC");
    }

    #[test]
    fn processors_are_found() {
        assert_eq!(model_name("processor\t: 0\nmodel name\t: AMD EPYC\nModel: x\n"), Some("AMD EPYC"));
        assert_eq!(model_name("processor\t: 0\nModel\t\t: Raspberry Pi 5\n"), Some("Raspberry Pi 5"));
        assert_eq!(model_name("model name\t:\n"), None);
        assert!(!processor().is_empty() && machine().len() == 5 && versions()[0].1.starts_with("0."));
    }
}
