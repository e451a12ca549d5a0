//! The names of classes and functions that a pickle refers to. None of them is called: a few are
//! interpreted, others are passed over, and a file that would do harm in Python is an error.

use crate::io::dtype::DType;

/// What a call of a class or a function makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// A dictionary.
    Dict,
    /// A list, a set or a tuple.
    List,
    /// A tensor, with this number of arguments at least.
    Tensor(usize),
    /// Its first argument, as a parameter is its tensor.
    First,
    /// What its first argument makes of its third: a subclass of tensors.
    Subclass,
    /// An object of which nothing is used.
    Object,
}

/// Returns what a call of this class or function makes.
pub(super) fn called(module: &str, name: &str) -> Called {
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Called::Dict,
        ("builtins" | "__builtin__", "dict") => Called::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") => Called::List,
        ("collections", "deque") => Called::List,
        ("torch._utils", "_rebuild_tensor") => Called::Tensor(4),
        ("torch._utils", "_rebuild_tensor_v2") => Called::Tensor(6),
        ("torch._utils", "_rebuild_tensor_v3") => Called::Tensor(7),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Called::First,
        ("torch._tensor", "_rebuild_from_type_v2") => Called::Subclass,
        _ => Called::Object,
    }
}

/// Modules of Python with which a pickle can start programs, or change or send files.
const HARMFUL_MODULES: [&str; 19] = [
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "_posixsubprocess",
    "commands",
    "pty",
    "popen2",
    "shutil",
    "socket",
    "webbrowser",
    "importlib",
    "runpy",
    "ctypes",
    "pickle",
    "_pickle",
    "marshal",
    "pip",
];

/// Functions of Python's builtins with which a pickle can run any program.
const HARMFUL_BUILTINS: [&str; 10] =
    ["eval", "exec", "execfile", "compile", "open", "file", "input", "breakpoint", "__import__", "apply"];

/// Whether a pickle that calls this class or function is made to do harm.
pub(super) fn is_harmful(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    match module {
        "builtins" | "__builtin__" => HARMFUL_BUILTINS.contains(&name),
        _ => HARMFUL_MODULES.contains(&package),
    }
}

/// The type of the elements of a storage or a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    /// Bytes of an element.
    pub(super) size: usize,
    /// The type, or its name if weights are not read from it.
    pub(super) dtype: Result<DType, &'static str>,
}

impl Element {
    /// A byte of a storage that has no type of its own.
    pub(super) const UNTYPED: Element = Element { size: 1, dtype: Err("U8") };

    /// Returns the element type that PyTorch calls `name`: `FloatStorage` or `float32`.
    pub(super) fn of(name: &str) -> Option<Element> {
        let (size, dtype) = match name {
            "FloatStorage" | "float32" | "float" => (4, Ok(DType::F32)),
            "HalfStorage" | "float16" | "half" => (2, Ok(DType::F16)),
            "BFloat16Storage" | "bfloat16" => (2, Ok(DType::Bf16)),
            "DoubleStorage" | "float64" | "double" => (8, Ok(DType::F64)),
            "LongStorage" | "int64" | "long" => (8, Ok(DType::I64)),
            "IntStorage" | "int32" | "int" => (4, Err("I32")),
            "ShortStorage" | "int16" | "short" => (2, Err("I16")),
            "CharStorage" | "int8" => (1, Err("I8")),
            "ByteStorage" | "uint8" => (1, Err("U8")),
            "BoolStorage" | "bool" => (1, Err("Bool")),
            "uint16" => (2, Err("U16")),
            "uint32" => (4, Err("U32")),
            "uint64" => (8, Err("U64")),
            "ComplexFloatStorage" | "complex64" => (8, Err("Complex64")),
            "ComplexDoubleStorage" | "complex128" => (16, Err("Complex128")),
            "QInt8Storage" | "QUInt8Storage" => (1, Err("a quantized type")),
            "QInt32Storage" => (4, Err("a quantized type")),
            "float8_e4m3fn" | "float8_e4m3fnuz" | "float8_e5m2" | "float8_e5m2fnuz" | "float8_e8m0fnu" => {
                (1, Err("F8"))
            }
            "UntypedStorage" => return Some(Element::UNTYPED),
            _ => return None,
        };
        Some(Element { size, dtype })
    }
}
