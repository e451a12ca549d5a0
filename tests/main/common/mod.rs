//! Helpers that several tests share.

pub(crate) mod compare;
pub(crate) mod files;
pub(crate) mod golden;
pub(crate) mod hash;
pub(crate) mod training;

/// Defines one test for each row, with the name of the row: it calls the function before the rows
/// with the row's name and value. `const NAMES;` before the function also defines the list of
/// names.
macro_rules! rows {
    (const $names:ident; $check:path; $($name:ident => $value:expr),+ $(,)?) => {
        const $names: &[&str] = &[$(stringify!($name)),+];

        rows! { $check; $($name => $value),+ }
    };
    ($check:path; $($name:ident => $value:expr),+ $(,)?) => {
        $(
            #[test]
            fn $name() -> skipgrad::Result<()> {
                $check(stringify!($name), $value)
            }
        )+
    };
}

pub(crate) use rows;
