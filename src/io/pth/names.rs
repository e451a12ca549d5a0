//! The names that a pickle may refer to: the functions that rebuild tensors, their element types,
//! and the classes of plain values in checkpoints. The reader calls none of them.

/// The names that are allowed, by module.
const ALLOWED: [(&str, &[&str]); 8] = [
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

/// Whether a pickle may refer to `name` of `module`.
pub(super) fn is_allowed(module: &str, name: &str) -> bool {
    ALLOWED.iter().any(|(allowed, names)| *allowed == module && names.contains(&name))
}
