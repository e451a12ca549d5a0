//! What the calls in a pickle make. Nothing is called: a tensor is described by its arguments.

use super::{
    input::{Fault, malformed},
    names::{Called, Element},
    pickle::Machine,
    value::{Node, Object, Storage, Value, View},
};

/// How far one call stands for another, as that of a subclass for a tensor's, for a storage's key.
const MAX_NESTED_CALLS: u32 = 8;

/// Returns what a call of a class or a function with these arguments makes.
pub(super) fn call(machine: &mut Machine, class: Value, arguments: Value) -> Result<Value, Fault> {
    nested_call(machine, class, arguments, MAX_NESTED_CALLS)
}

fn nested_call(machine: &mut Machine, class: Value, arguments: Value, depth: u32) -> Result<Value, Fault> {
    let called = match machine.nodes.get(class) {
        Some(Node::Class(class)) => class.called,
        _ => Called::Object,
    };
    let arity = machine.nodes.items(arguments).map_or(0, <[Value]>::len);
    let argument = |at: usize| {
        machine.nodes.items(arguments).and_then(|items| items.get(at).copied()).unwrap_or(Value::Plain)
    };
    match called {
        Called::Dict => dict(machine, arguments),
        Called::List => {
            let items = machine.nodes.items(argument(0)).map_or(vec![], <[Value]>::to_vec);
            Ok(machine.nodes.add(Node::List(items), &mut machine.memory)?)
        }
        Called::Tensor(most) if arity < most => malformed("the arguments of a tensor", arity),
        Called::Tensor(most) => tensor(machine, arguments, most == 7),
        Called::First if (1..arity).any(|at| machine.nodes.holds_tensors(argument(at))) => {
            malformed("a parameter without a state of tensors", "one with")
        }
        Called::First => Ok(argument(0)),
        Called::Subclass if machine.nodes.holds_tensors(argument(3)) => {
            malformed("a tensor without a state of tensors", "one with")
        }
        Called::Subclass if depth > 0 => nested_call(machine, argument(0), argument(2), depth - 1),
        Called::Subclass | Called::Object => object(machine, class, arguments),
    }
}

/// Makes a dictionary of what dictionaries are made of: another, or pairs. Other arguments are
/// those of a `defaultdict`.
fn dict(machine: &mut Machine, arguments: Value) -> Result<Value, Fault> {
    let nodes = &machine.nodes;
    let len = |argument: &Value| match nodes.get(*argument) {
        Some(Node::Dict(pairs)) => pairs.len(),
        Some(Node::List(items)) => items.len(),
        _ => 0,
    };
    let len = nodes.items(arguments).unwrap_or_default().iter().map(len).sum();
    machine.memory.take(size_of::<[Value; 2]>() as u64 * len as u64)?;
    let mut pairs = Vec::with_capacity(len);
    for argument in nodes.items(arguments).unwrap_or_default() {
        match nodes.get(*argument) {
            Some(Node::Dict(others)) => pairs.extend_from_slice(others),
            Some(Node::List(items)) => {
                for item in items {
                    match nodes.items(*item) {
                        Some([key, value]) => pairs.push([*key, *value]),
                        _ => return malformed("pairs of a name and a value", "something else"),
                    }
                }
            }
            _ => {}
        }
    }
    Ok(machine.nodes.add(Node::Dict(pairs), &mut machine.memory)?)
}

/// Makes an object that is passed over, of which only the name of its class is used.
fn object(machine: &mut Machine, class: Value, arguments: Value) -> Result<Value, Fault> {
    let nodes = &machine.nodes;
    let name = match nodes.get(class) {
        Some(Node::Class(class)) => format!("{}.{}", class.module, class.name),
        Some(Node::Object(object)) => object.class.to_string(),
        _ => "an object".to_string(),
    };
    let object = Object {
        class: name.into(),
        holds_tensors: nodes.holds_tensors(arguments),
        is_module: false,
        pairs: vec![],
        items: vec![],
    };
    Ok(machine.nodes.add(Node::Object(Box::new(object)), &mut machine.memory)?)
}

/// Gives an object its attributes. Those of a dictionary, as the metadata of a `state_dict`, are
/// passed over.
pub(super) fn build(machine: &mut Machine, object: Value, state: Value) -> Result<(), Fault> {
    let nodes = &mut machine.nodes;
    let holds_tensors = nodes.holds_tensors(state);
    let is_module = match nodes.get(state) {
        Some(Node::Dict(pairs)) => {
            let named = |name: &str| pairs.iter().any(|[key, _]| nodes.text(*key) == Some(name));
            ["_parameters", "_buffers", "_modules"].into_iter().all(named)
        }
        _ => false,
    };
    if !nodes.set_attributes(object, is_module, holds_tensors) && holds_tensors {
        return malformed("collections and tensors without attributes that are tensors", "one with");
    }
    Ok(())
}

/// Makes what a persistent id stands for: a storage, or in a stream the class of a module, whose
/// source code is stored with it.
pub(super) fn persistent(machine: &mut Machine, id: Value) -> Result<Value, Fault> {
    match machine.nodes.items(id) {
        Some([tag, class, ..]) if machine.nodes.text(*tag) == Some("module") => Ok(*class),
        _ => storage(machine, id),
    }
}

/// Makes a storage of its persistent id: `("storage", class, key, location, elements, view)`.
fn storage(machine: &mut Machine, id: Value) -> Result<Value, Fault> {
    let nodes = &machine.nodes;
    let Some([tag, class, key, _location, elements, rest @ ..]) = nodes.items(id) else {
        return malformed("the id of a storage", "something else");
    };
    if nodes.text(*tag) != Some("storage") {
        return malformed("the id of a storage", "something else");
    }
    let name = match nodes.get(*class) {
        Some(Node::Class(class)) => &*class.name,
        Some(Node::Text(name)) => name,
        _ => return malformed("the class of a storage", "something else"),
    };
    let Some(element) = Element::of(name) else {
        return malformed("a storage of a known type", name);
    };
    let key = match (nodes.text(*key), key) {
        (Some(key), _) => key.to_string(),
        (None, Value::Int(key)) => key.to_string(),
        _ => return malformed("the key of a storage", "something else"),
    };
    let elements = size(*elements)?;
    let (begin, end) = match rest.first().map(|view| (nodes.items(*view), view)) {
        None | Some((None, _)) => (0, elements),
        // A view of another storage, in files of PyTorch before 0.4: its key, offset and length.
        Some((Some([_, offset, len]), _)) => {
            let (offset, len) = (size(*offset)?, size(*len)?);
            match offset.checked_add(len) {
                Some(end) if end <= elements => (offset, end),
                _ => {
                    return malformed(
                        "a view within its storage",
                        format_args!("{len} elements at {offset}"),
                    );
                }
            }
        }
        Some(_) => return malformed("the view of a storage", "something else"),
    };
    if elements.checked_mul(element.size as u64).is_none() {
        return malformed("a storage that fits the address space", format_args!("{elements} elements"));
    }
    let whole = Storage { key: key.clone().into(), element, begin: 0, end: elements };
    let storage = Storage { begin, end, ..whole.clone() };
    match machine.storages.get(&whole.key) {
        Some(known) if (known.end, known.element.size) != (elements, element.size) => {
            return malformed("one length for each storage", format_args!("two for {key}"));
        }
        Some(_) => {}
        None => {
            machine.storages.insert(whole.key.clone(), whole);
        }
    }
    // Twice: among the nodes, and by its key.
    machine.memory.take((2 * (size_of::<Storage>() + key.len())) as u64)?;
    Ok(machine.nodes.add(Node::Storage(Box::new(storage)), &mut machine.memory)?)
}

/// Makes a tensor of `(storage, offset, shape, strides, ...)`, whose seventh argument may be the
/// type of its elements.
fn tensor(machine: &mut Machine, arguments: Value, has_type: bool) -> Result<Value, Fault> {
    let nodes = &machine.nodes;
    let Some([storage, offset, shape, strides, rest @ ..]) = nodes.items(arguments) else {
        return malformed("the arguments of a tensor", "others");
    };
    let Some(Node::Storage(storage)) = nodes.get(*storage) else {
        return malformed("the storage of a tensor", "something else");
    };
    let element = match rest.get(2).filter(|_| has_type).map(|class| nodes.get(*class)) {
        None => storage.element,
        Some(Some(Node::Class(class))) => match Element::of(&class.name) {
            Some(element) => element,
            None => return malformed("the type of a tensor's elements", &class.name),
        },
        Some(_) => return malformed("the type of a tensor's elements", "something else"),
    };
    let sizes = |value: Value| match nodes.items(value) {
        Some(items) => items.iter().map(|item| size(*item)).collect::<Result<Box<[u64]>, Fault>>(),
        None => malformed("the shape and the strides of a tensor", "something else"),
    };
    let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
    if shape.len() != strides.len() {
        let found = format_args!("{} of {} axes", strides.len(), shape.len());
        return malformed("a stride for each axis of a tensor", found);
    }
    let offset = size(*offset)?.checked_add(storage.begin);
    let extent = extent(&shape, &strides);
    let last = offset.zip(extent).and_then(|(offset, extent)| offset.checked_add(extent));
    // The storage's end in elements of the tensor's type, if it has none of its own.
    let end = storage.end * storage.element.size as u64 / element.size as u64;
    match (offset, extent, last) {
        (Some(offset), Some(extent), Some(last)) if last <= end => {
            let key = storage.key.clone();
            let view = View { key, element, offset, shape, strides, extent };
            Ok(machine.nodes.add(Node::Tensor(Box::new(view)), &mut machine.memory)?)
        }
        _ => {
            let needs = last.map_or("more than fit the address space".to_string(), |last| last.to_string());
            let found = format!("one that needs {needs} elements of {end} in {}", storage.key);
            malformed("tensors within their storages", found)
        }
    }
}

/// Returns the number of elements from a tensor's first to its last, unless it overflows.
fn extent(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().zip(strides).try_fold(1u64, |extent, (size, stride)| {
        (size - 1).checked_mul(*stride).and_then(|more| extent.checked_add(more))
    })
}

/// Returns a size, a length or an offset.
fn size(value: Value) -> Result<u64, Fault> {
    match value {
        Value::Int(size) if size >= 0 => Ok(size as u64),
        Value::Int(size) => malformed("sizes of at least 0", size),
        _ => malformed("a size", "something else"),
    }
}
