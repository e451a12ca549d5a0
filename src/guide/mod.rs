#![doc = include_str!("links.md")]
#![doc = include_str!("../../docs/README.md")]

/// Makes a page of a file in `docs`, whose examples become tests. The links of `links.md` come
/// first and thus replace the file's own, which lead to other files.
macro_rules! page {
    ($(#[$condition:meta])* $name:ident, $file:literal) => {
        $(#[$condition])*
        #[doc = include_str!("links.md")]
        #[doc = include_str!(concat!("../../docs/", $file))]
        pub mod $name {}
    };
}

page!(
    #[cfg(any(not(doctest), feature = "report"))]
    train,
    "train.md"
);
page!(
    #[cfg(any(not(doctest), feature = "image"))]
    fine_tune,
    "fine-tune.md"
);
page!(look_inside, "look-inside.md");
page!(
    #[cfg(any(not(doctest), feature = "onnx"))]
    deploy,
    "deploy.md"
);
page!(extend, "extend.md");
