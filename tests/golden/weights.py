"""Writes tests/golden/weights: the same two small networks as PyTorch and others save them, for tests of loading.

    pip install torch torchvision safetensors timm
    python tests/golden/weights.py         # some seconds

Made with torch 2.15.0, torchvision 0.29.2, safetensors 0.8.0, timm 1.0.31. The networks and their values are those of
`net/resnet/init` and `net/densenet/init` in training.safetensors; README.md lists the files.
"""
import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from make import CifarResNet, fill, tiny_densenet

FOLDER = Path(__file__).parent / "weights"


def resnet():
    return fill(CifarResNet(1, 4, 5), "net/resnet/init/")


def densenet():
    return fill(tiny_densenet(), "net/densenet/init/")


def checkpoint(model):
    """A training's state after a step, with everything that keeps it company in the wild."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, milestones=[2, 3])
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    sgd.step()
    schedule.step()
    rest = {"epoch": 3, "arch": "resnet8", "optimizer": sgd.state_dict(), "lr_scheduler": schedule.state_dict()}
    return rest | {"args": argparse.Namespace(lr=0.1, name="a run"), "best_prec1": torch.tensor(91.7)}


def old_keys(state):
    """As torchvision's first DenseNets were published."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): t for name, t in state.items()}


KERAS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
KERAS_PARTS = {"norm1": "0_bn", "conv1": "1_conv", "norm2": "1_bn", "conv2": "2_conv"}


def keras(state):
    """As Keras names and lays out its DenseNets (keras.applications.DenseNet121().weights, by path)."""
    out = {}
    for name, tensor in state.items():
        layer, end = name.rsplit(".", 1)
        layer = layer.removeprefix("features.")
        if match := re.fullmatch(r"denseblock(\d)\.denselayer(\d)\.(\w+)", layer):
            block, number, part = match.groups()
            path = f"conv{int(block) + 1}_block{number}_{KERAS_PARTS[part]}"
        elif match := re.fullmatch(r"transition(\d)\.(\w+)", layer):
            path = f"pool{int(match[1]) + 1}_{'bn' if match[2] == 'norm' else 'conv'}"
        else:
            path = {"conv0": "conv1_conv", "norm5": "bn", "classifier": "predictions"}[layer]
        if end == "num_batches_tracked":
            continue
        if tensor.dim() == 4:
            out[f"{path}/kernel"] = tensor.permute(2, 3, 1, 0).contiguous()
        elif tensor.dim() == 2:
            out[f"{path}/kernel"] = tensor.t().contiguous()
        else:
            out[f"{path}/{'bias' if layer == 'classifier' else KERAS[end]}"] = tensor
    return out


def as_type(state, dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}


def names():
    """Names and shapes of timm's networks, in their order."""
    import timm

    for model in ("resnet18", "resnet50", "densenet121"):
        for name, tensor in timm.create_model(model).state_dict().items():
            if not name.endswith("num_batches_tracked"):
                yield f"{model} {name} {'x'.join(str(n) for n in tensor.shape)}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    model = resnet()
    state = model.state_dict()
    legacy = {"_use_new_zipfile_serialization": False}
    torch.save(state, FOLDER / "resnet.pth")
    torch.save(state, FOLDER / "resnet_legacy.pth", **legacy)
    save_file(state, FOLDER / "resnet.safetensors")
    for name, dtype in {"f16": torch.float16, "bf16": torch.bfloat16}.items():
        torch.save(as_type(state, dtype), FOLDER / f"resnet_{name}.pth")
        save_file(as_type(state, dtype), FOLDER / f"resnet_{name}.safetensors")
    last = {name: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for name, t in state.items()}
    torch.save(last, FOLDER / "resnet_channels_last.pth")

    parallel = torch.nn.DataParallel(resnet()).state_dict()
    rest = checkpoint(resnet())
    torch.save({"state_dict": parallel} | rest, FOLDER / "checkpoint_legacy.th", **legacy)
    average = {name: t * 2 for name, t in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": average} | rest, FOLDER / "checkpoint_ema.pth")
    torch.save({"model": parallel} | rest, FOLDER / "checkpoint.pth")
    torch.save(model, FOLDER / "module.pth")

    small = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([0.5, -0.5])}
    torch.save(small, FOLDER / "small.pth")
    torch.save(small, FOLDER / "small_legacy.pth", **legacy)
    torch.save(small, FOLDER / "twenty_one_letters_ok.pth")
    torch.save({"repeated": torch.zeros(1).expand(1 << 30)}, FOLDER / "repeated.pth")

    state = densenet().state_dict()
    torch.save(state, FOLDER / "densenet.pth")
    torch.save(old_keys(state), FOLDER / "densenet_old.pth")
    save_file(keras(state), FOLDER / "densenet_keras.safetensors")
    (FOLDER / "timm.txt").write_text("".join(names()))
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")
