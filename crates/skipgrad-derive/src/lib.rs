//! `#[derive(State)]` for [skipgrad](https://docs.rs/skipgrad): the names of a model's parameters
//! come from its fields.
//!
//! The macro is documented where it is used: `skipgrad::autograd::State`.

mod attributes;
mod expand;

/// Implements `State` from the fields of a struct, or from those of an enum's active variant.
///
/// See `skipgrad::autograd::State` for the attributes and examples.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::state(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
