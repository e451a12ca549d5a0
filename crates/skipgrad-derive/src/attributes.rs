//! The attributes of a field: `#[state(skip)]`, `#[state(rename = "...")]`, `#[state(flatten)]`.

use syn::{Attribute, Error, Ident, LitStr, Result, Token, meta::ParseNestedMeta, punctuated::Punctuated};

/// What a field's attributes say about its names.
pub(crate) enum Naming {
    /// The field has no attribute: it is named after itself.
    Field,
    /// The field carries no state.
    Skip,
    /// The field has another name in weights files.
    Rename(LitStr),
    /// The names of the field's own state have no name in front of them; some first segments are
    /// replaced.
    Flatten(Vec<(LitStr, LitStr)>),
}

/// Reads the attributes of a field.
pub(crate) fn parse(attributes: &[Attribute]) -> Result<Naming> {
    let mut naming = Naming::Field;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("state")) {
        attribute.parse_nested_meta(|meta| {
            if !matches!(naming, Naming::Field) {
                return Err(meta.error("a field takes one of `skip`, `rename` and `flatten`"));
            }
            naming = parse_one(&meta)?;
            Ok(())
        })?;
    }
    Ok(naming)
}

fn parse_one(meta: &ParseNestedMeta<'_>) -> Result<Naming> {
    if meta.path.is_ident("skip") {
        return Ok(Naming::Skip);
    }
    if meta.path.is_ident("rename") {
        return Ok(Naming::Rename(parse_name(meta)?));
    }
    if meta.path.is_ident("flatten") {
        let mut names = vec![];
        if meta.input.peek(syn::token::Paren) {
            let content;
            syn::parenthesized!(content in meta.input);
            let parse = |input: syn::parse::ParseStream<'_>| {
                let from: Ident = input.call(syn::ext::IdentExt::parse_any)?;
                input.parse::<Token![=]>()?;
                let to = checked(input.parse()?)?;
                Ok((LitStr::new(&from.to_string(), from.span()), to))
            };
            let pairs = Punctuated::<_, Token![,]>::parse_terminated_with(&content, parse)?;
            names = pairs.into_iter().collect();
        }
        return Ok(Naming::Flatten(names));
    }
    Err(meta.error("expected `skip`, `rename = \"...\"`, `flatten` or `flatten(child = \"...\")`"))
}

fn parse_name(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    checked(meta.value()?.parse()?)
}

/// Rejects names that no file can have, and placeholders other than `{i}` and `{n}`.
fn checked(name: LitStr) -> Result<LitStr> {
    let value = name.value();
    if value.split('.').any(str::is_empty) {
        return Err(Error::new(name.span(), "a name is not empty, and neither is any of its parts"));
    }
    if value.replace("{i}", "").replace("{n}", "").contains(['{', '}']) {
        let message = "the placeholders are `{i}`, which counts from 0, and `{n}`, which counts from 1";
        return Err(Error::new(name.span(), message));
    }
    Ok(name)
}

/// Whether a name is one for each element of a list.
pub(crate) fn is_indexed(name: &LitStr) -> bool {
    name.value().contains('{')
}
