//! The tests of the examples that make a lecture visible: their numbers and their pictures.

#![allow(clippy::duplicate_mod, reason = "two examples share a module")]

#[allow(dead_code, reason = "`main` is the example's")]
#[path = "../../examples/dense_connections/main.rs"]
mod dense_connections;
#[allow(dead_code, reason = "`main` is the example's")]
#[path = "../../examples/lecture_resnet/main.rs"]
mod lecture_resnet;
#[allow(dead_code, reason = "`main` is the example's")]
#[path = "../../examples/why_residual/main.rs"]
mod why_residual;
