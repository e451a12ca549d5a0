//! The integration tests, in one binary because each binary links the whole crate. Filters name a
//! module and a test: `cargo test --test main gradients::batch_norm`.
//!
//! Tests that measure what belongs to a whole process have a binary of their own: `memory`,
//! `hostile` and `threads`.

mod common;

mod architecture;
mod augment;
mod before_training;
mod bf16;
mod checkpoint;
mod data;
mod determinism;
mod diagnose;
mod divergence;
mod ema;
mod empty_inputs;
mod errors;
mod everyday_weights;
mod feature_maps;
mod file_kinds;
#[cfg(feature = "image")]
mod folders;
mod front_page;
mod goldens_models;
mod goldens_ops;
mod gradients;
mod inference;
mod learns;
mod lecture;
mod losses;
mod meta;
mod mixing;
mod models;
mod module_names;
#[cfg(feature = "onnx")]
mod onnx;
mod optimizers;
mod own_networks;
#[cfg(feature = "image")]
mod pictures;
mod plain_networks;
mod predict;
mod real_data;
mod recipes;
mod style;
#[cfg(feature = "tensorboard")]
mod tensorboard;
mod verify;
mod weights;
