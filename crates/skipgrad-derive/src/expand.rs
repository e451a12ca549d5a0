//! The implementation of the trait, from the fields.

use crate::attributes::{self, Naming, is_indexed};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{
    Data, DeriveInput, Error, Field, Fields, Generics, Ident, LitStr, Result, parse_quote, spanned::Spanned,
};

/// `impl State for` the type.
pub(crate) fn state(input: &DeriveInput) -> Result<TokenStream> {
    if let Some(attribute) = input.attrs.iter().find(|attribute| attribute.path().is_ident("state")) {
        return Err(Error::new(attribute.span(), "`state` is an attribute of fields"));
    }
    let variants: Vec<(TokenStream, &Fields)> = match &input.data {
        Data::Struct(data) => vec![(quote!(Self), &data.fields)],
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| {
                let name = &variant.ident;
                (quote!(Self::#name), &variant.fields)
            })
            .collect(),
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union cannot tell which of its fields is state",
            ));
        }
    };
    let mut used = TokenStream::new();
    let (mut arms, mut arms_mut) = (vec![], vec![]);
    for (path, fields) in &variants {
        let members = fields.iter().enumerate().map(|(i, field)| Member::new(i, field, fields.len()));
        let members: Vec<Member<'_>> = members.collect::<Result<_>>()?;
        members.iter().filter(|m| !m.is_skipped()).for_each(|m| m.field.ty.to_tokens(&mut used));
        arms.push(arm(path, fields, &members, Access::Shared));
        arms_mut.push(arm(path, fields, &members, Access::Mutable));
    }
    let (empty, empty_mut) = match variants.is_empty() {
        true => (quote!(match *self {}), quote!(match *self {})),
        false => (quote!(match self { #(#arms)* }), quote!(match self { #(#arms_mut)* })),
    };
    let name = &input.ident;
    let generics = with_bounds(input.generics.clone(), used);
    let (parameters, arguments, bounds) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #parameters ::skipgrad::autograd::State for #name #arguments #bounds {
            #[allow(unused_variables)]
            fn visit(
                &self,
                __path: &str,
                __f: &mut dyn ::core::ops::FnMut(&str, ::skipgrad::autograd::StateRef<'_>),
            ) {
                #empty
            }
            #[allow(unused_variables)]
            fn visit_mut(
                &mut self,
                __path: &str,
                __f: &mut dyn ::core::ops::FnMut(&str, ::skipgrad::autograd::StateMut<'_>),
            ) {
                #empty_mut
            }
        }
    })
}

/// Type parameters that state is made of must be state.
fn with_bounds(mut generics: Generics, used: TokenStream) -> Generics {
    let mut names = vec![];
    collect_names(used, &mut names);
    for parameter in generics.type_params_mut() {
        if names.contains(&parameter.ident) {
            parameter.bounds.push(parse_quote!(::skipgrad::autograd::State));
        }
    }
    generics
}

fn collect_names(tokens: TokenStream, names: &mut Vec<Ident>) {
    for token in tokens {
        match token {
            TokenTree::Ident(name) => names.push(name),
            TokenTree::Group(group) => collect_names(group.stream(), names),
            _ => {}
        }
    }
}

/// How an implementation borrows the fields.
#[derive(Clone, Copy)]
enum Access {
    Shared,
    Mutable,
}

/// A field, and the names of its state.
struct Member<'a> {
    field: &'a Field,
    binding: Ident,
    naming: Naming,
}

impl<'a> Member<'a> {
    fn new(index: usize, field: &'a Field, count: usize) -> Result<Member<'a>> {
        let naming = match (attributes::parse(&field.attrs)?, &field.ident) {
            (Naming::Field, Some(name)) => {
                let name = name.to_string();
                Naming::Rename(LitStr::new(name.trim_start_matches("r#"), Span::call_site()))
            }
            (Naming::Field, None) if count == 1 => Naming::Flatten(vec![]),
            (Naming::Field, None) => Naming::Rename(LitStr::new(&index.to_string(), Span::call_site())),
            (naming, _) => naming,
        };
        Ok(Member { field, binding: format_ident!("__field{index}"), naming })
    }

    fn is_skipped(&self) -> bool {
        matches!(self.naming, Naming::Skip)
    }

    /// Visits the field.
    fn visit(&self, access: Access) -> TokenStream {
        let field = &self.binding;
        let iter = match access {
            Access::Shared => quote!(iter),
            Access::Mutable => quote!(iter_mut),
        };
        let (indexed, visit) = match &self.naming {
            Naming::Skip => return TokenStream::new(),
            Naming::Field => unreachable!("a field without attributes was named by `Member::new`"),
            Naming::Rename(name) => {
                let indexed = is_indexed(name);
                let name = text(name);
                let path = quote!(&::skipgrad::autograd::join(__path, #name));
                (indexed, self.visit_at(indexed, access, &path, &quote!(__f)))
            }
            Naming::Flatten(names) if names.is_empty() => {
                (false, self.visit_at(false, access, &quote!(__path), &quote!(__f)))
            }
            Naming::Flatten(names) => {
                let indexed = names.iter().any(|(_, to)| is_indexed(to));
                let pairs = names.iter().map(|(from, to)| {
                    let to = text(to);
                    quote!((#from, #to))
                });
                let f = quote!(&mut |__name, __state| {
                    __f(&::skipgrad::autograd::rename(__path, __name, &[#(#pairs),*]), __state)
                });
                (indexed, self.visit_at(indexed, access, &quote!(""), &f))
            }
        };
        match indexed {
            false => visit,
            true => quote! {
                for (i, __item) in #field.#iter().enumerate() {
                    let n = i + 1;
                    #visit
                }
            },
        }
    }

    /// Visits the field, or an element of the list that it is, so that a type without state is an
    /// error at the field.
    fn visit_at(&self, indexed: bool, access: Access, path: &TokenStream, f: &TokenStream) -> TokenStream {
        let (field, ty) = (&self.binding, &self.field.ty);
        let method = match access {
            Access::Shared => quote!(visit),
            Access::Mutable => quote!(visit_mut),
        };
        match indexed {
            true => quote_spanned!(ty.span()=> ::skipgrad::autograd::State::#method(__item, #path, #f);),
            false => {
                quote_spanned!(ty.span()=> <#ty as ::skipgrad::autograd::State>::#method(#field, #path, #f);)
            }
        }
    }
}

/// The name as something to be displayed, with the placeholders filled in.
fn text(name: &LitStr) -> TokenStream {
    let value = LitStr::new(&name.value(), Span::call_site());
    match is_indexed(name) {
        true => quote!(::core::format_args!(#value)),
        false => quote!(::core::format_args!("{}", #value)),
    }
}

/// The arm of a match that takes a variant apart and visits its fields.
fn arm(path: &TokenStream, fields: &Fields, members: &[Member<'_>], access: Access) -> TokenStream {
    let visits = members.iter().map(|member| member.visit(access));
    let taken = members.iter().filter(|member| !member.is_skipped());
    let pattern = match fields {
        Fields::Named(_) => {
            let bindings = taken.map(|Member { field, binding, .. }| {
                let name = &field.ident;
                quote!(#name: #binding)
            });
            quote!(#path { #(#bindings,)* .. })
        }
        Fields::Unnamed(_) => {
            let bindings = members.iter().map(|member| match member.is_skipped() {
                true => quote!(_),
                false => member.binding.to_token_stream(),
            });
            quote!(#path(#(#bindings),*))
        }
        Fields::Unit => path.clone(),
    };
    quote!(#pattern => { #(#visits)* })
}
