//! The names that most programs need: `use skipgrad::prelude::*;`.

pub use crate::{
    At, Error, Precision, Result, Rng, Tensor,
    autograd::{Mode, State, Tape, Updates, Var},
    graph::ModuleExt,
    models::{DenseNet, Model, ModelOptions, ResNet},
    nn::Module,
    optim::{Adam, AdamW, Optimizer, Schedule, Sgd},
};
