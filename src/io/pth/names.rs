//! What a pickle may name: the calls that rebuild tensors, the types of their numbers, and the harmless company that they
//! keep in checkpoints, none of which is ever called.

/// Modules, and what of them.
const NAMES: [(&str, &[&str]); 8] = [
    ("collections", &["OrderedDict", "Counter"]),
    ("torch._utils", &["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter"]),
    (
        "torch",
        &[
            "FloatStorage",
            "HalfStorage",
            "BFloat16Storage",
            "DoubleStorage",
            "LongStorage",
            "IntStorage",
            "ShortStorage",
            "CharStorage",
            "ByteStorage",
            "BoolStorage",
            "Size",
            "device",
            "float32",
            "float16",
            "bfloat16",
            "float64",
            "int64",
            "int32",
            "int16",
            "int8",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "bool",
        ],
    ),
    ("torch.storage", &["UntypedStorage"]),
    ("argparse", &["Namespace"]),
    ("numpy", &["dtype"]),
    ("numpy.core.multiarray", &["scalar"]),
    ("numpy._core.multiarray", &["scalar"]),
];

/// Whether a pickle may name this.
pub(super) fn are_known(module: &str, name: &str) -> bool {
    NAMES.iter().any(|(known, names)| *known == module && names.contains(&name))
}
