"""Writes what PyTorch computes with a network, for `verify` to compare with.

    pip install torch torchvision
    python reference.py --model resnet50 --weights resnet50.pth --out reference.safetensors
    python reference.py --model resnet50 --random resnet50.safetensors --out reference.safetensors
    python reference.py --model cifar.py:resnet20 --weights resnet20.th --classes 10 --size 32 \\
        --out reference.safetensors

--model is a model of torchvision, or FILE.py:FUNCTION, which is called with num_classes=N and returns a
network. --random generates weights and writes them: torchvision's initialization, with the scale and shift
of every batch normalization perturbed, and the running statistics of random images, perturbed too. Images
are random (--batch of them, of --size x --size pixels), or a tensor [N, C, H, W] that --images names
(torch.save); labels are 0, 1, 2 and so on.

PyTorch computes in float64, and the results are rounded to float32. It then computes in float32, to measure
the error of its own float32. The file holds:

    images                     [N, H, W, C]
    labels                     [N]
    MODE/logits, MODE/loss     for the modes eval and train; the loss is the mean cross-entropy
    MODE/images                gradient of the loss with respect to the images, [N, H, W, C]
    MODE/gradient/NAME         gradient with respect to a parameter, in PyTorch's layout
    MODE/activation/PATH       output of a module that has parameters, [N, H, W, C] or [N, C]; without those of
                               an nn.Sequential, which are those of its last child, and of a module that runs
                               more than once
    train/statistic/NAME       running_mean and running_var after the pass
    float32/...                for each of these one number: the largest error of PyTorch's own float32,
                               relative to the largest value

The text "activations" of the header lists the paths of the activations in the order of the pass, one per line.
"""
import argparse
import copy
import importlib.util
import json
import struct
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

TYPES = {torch.float32: "F32", torch.int64: "I64"}


def save(path, tensors, texts):
    """Writes a safetensors file: the length of the header, the header, the data."""
    header, at = {"__metadata__": texts}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            tensor.contiguous().numpy().tofile(file)


def network(name, classes):
    if ":" not in name:
        import torchvision

        return torchvision.models.get_model(name, weights=None, num_classes=classes)
    file, function = name.rsplit(":", 1)
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)(num_classes=classes)


def load(model, path):
    """Loads a state_dict, also one below `state_dict` or `model`, and without the prefix `module.` of its names."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})


@torch.no_grad()
def perturb(model, channels):
    """Perturbs normalizations as training does: no scale is 1, no shift is 0, and statistics are of other images."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.2, 0.2)
        norm.reset_running_stats()
        norm.momentum = None
    for _ in range(2):
        model.train()(torch.randn(8, channels, 64, 64))
    for norm in norms:
        norm.momentum = 0.1
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)


def nhwc(tensor):
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def run(model, mode, images, labels, with_activations):
    """Returns the results of a forward and a backward pass by name, and the paths of the activations in order."""
    found, seen, twice, hooks = {}, {}, set(), []
    if with_activations:
        for path, module in model.named_modules():
            if path and type(module) is not nn.Sequential and next(module.parameters(), None) is not None:

                def hook(_module, _inputs, output, path=path):
                    if path in seen:
                        twice.add(path)
                    # Later modules may overwrite it in place.
                    seen[path] = output.detach().clone()

                hooks.append(module.register_forward_hook(hook))
    model.train(mode == "train")
    model.zero_grad()
    images = images.clone().requires_grad_()
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    for hook in hooks:
        hook.remove()
    found[f"{mode}/logits"] = logits.detach()
    found[f"{mode}/loss"] = loss.detach()
    found[f"{mode}/images"] = nhwc(images.grad)
    paths = [path for path in seen if path not in twice]
    found |= {f"{mode}/activation/{path}": nhwc(seen[path]) for path in paths}
    found |= {f"{mode}/gradient/{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    if mode == "train":
        statistics = {name: value for name, value in model.named_buffers() if name.rsplit(".")[-1].startswith("running_")}
        found |= {f"train/statistic/{name}": value.clone() for name, value in statistics.items()}
    return found, paths


def reference(model, images, labels, with_activations=True):
    """Returns the tensors and texts of a reference file. The state of the model is not changed."""
    tensors, paths = {"images": nhwc(images), "labels": labels}, []
    for mode in ("eval", "train"):
        arguments = (mode, images, labels, with_activations)
        exact, paths = run(copy.deepcopy(model).double(), mode, images.double(), *arguments[2:])
        rounded, _ = run(copy.deepcopy(model), *arguments)
        for name, tensor in exact.items():
            apart = (rounded[name].double() - tensor).abs().max() / tensor.abs().max().clamp(min=1e-30)
            tensors[name], tensors[f"float32/{name}"] = tensor.float(), apart.float()
    return tensors, {"activations": "\n".join(paths), "torch": torch.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights", type=Path, help="a file with a state_dict")
    weights.add_argument("--random", type=Path, help="make weights up and write them here, as safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-activations", action="store_true", help="only logits, gradients and statistics")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    model = network(options.model, options.classes)
    if options.random:
        perturb(model, options.channels)
        state = {name: tensor for name, tensor in model.state_dict().items() if tensor.dim() > 0}
        save(options.random, state, {"format": "pt"})
    else:
        load(model, options.weights)
    if options.images:
        images = torch.load(options.images, weights_only=True).float()
    else:
        images = torch.randn(options.batch, options.channels, options.size, options.size)
    labels = torch.arange(len(images)) % options.classes
    tensors, texts = reference(model, images, labels, not options.no_activations)
    save(options.out, tensors, texts | {"model": options.model})
    print(f"{options.out}: {len(tensors)} tensors of {options.model} on {list(images.shape)}, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
