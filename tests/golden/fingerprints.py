"""Writes fingerprints.safetensors: what PyTorch computes for networks of torchvision, of timm and of the papers, in little space.

    pip install torch torchvision timm safetensors
    python tests/golden/fingerprints.py            # some minutes on one thread

Made with the versions that make.py names, and timm 1.0.31. Weights, images and arithmetic are those of make.py: nothing is random,
PyTorch computes in float64 and rounds once. A network of 10 classes sees two images of 64 x 64 (WRN: 32 x 32), once in
evaluation and once in training mode. Its gradients are stored as two numbers a parameter, in the order of their sorted names: the
norm, and the sum of the products with numbers in [-1, 1) that the rule gives for `NAME/u`, which no permutation of the elements
leaves alone. README.md lists the names.
"""
import sys

import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from make import FOLDER, fill, nchw, rule, state, store
from safetensors.torch import save_file


class WideBlock(nn.Module):
    """Pre-activation; where the shape changes the shortcut begins behind the first norm."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        a = F.relu(self.bn1(x))
        shortcut = self.convShortcut(a) if hasattr(self, "convShortcut") else x
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(a))))


class Stage(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-depth-factor of Zagoruyko and Komodakis 2016 under the names that published weights have."""

    def __init__(self, depth, factor):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        inputs = 16
        for i, outputs in enumerate((16 * factor, 32 * factor, 64 * factor), 1):
            blocks = [WideBlock(inputs, outputs, 2 if i > 1 else 1)]
            blocks += [WideBlock(outputs, outputs, 1) for _ in range((depth - 4) // 6 - 1)]
            setattr(self, f"block{i}", Stage(blocks))
            inputs = outputs
        self.bn1 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


#   name: name of the images. Chosen as those of make.py: with them the least inputs of a ReLU lie within float32's rounding of its bend.
TORCHVISION = {"resnet34": "x0", "resnet101": "x2", "resnext50_32x4d": "x5"}
TIMM = {"resnet50d": "x4", "resnetv2_18": "x0"}
WIDE = {"wrn16_4": "x0"}
MODELS = TORCHVISION | TIMM | WIDE


def make(name, classes=10):
    if name in TORCHVISION:
        return torchvision.models.get_model(name, num_classes=classes)
    if name in TIMM:
        return timm.create_model(name, num_classes=classes)
    return WideResNet(*(int(number) for number in name.removeprefix("wrn").split("_")))


def fingerprint(name, image, dtype):
    torch.set_default_dtype(dtype)
    model, edge, out = fill(make(name)), 32 if name in WIDE else 64, {}
    x = rule(image, 2, edge, edge, 3).requires_grad_()
    with torch.no_grad():
        store(out, name, {"eval/logits": model.eval()(nchw(x))})
    logits = model.train()(nchw(x))
    loss = F.cross_entropy(logits, torch.tensor([3, 7]))
    loss.backward()
    gradients = {k: p.grad.double() for k, p in sorted(model.named_parameters())}
    norms = torch.stack([g.norm() for g in gradients.values()])
    sums = torch.stack([(g * rule(f"{k}/u", *g.shape)).sum() for k, g in gradients.items()])
    store(out, name, {"train/logits": logits, "train/loss": loss, "dx_norm": x.grad.double().norm()})
    store(out, name, {"grad_norms": norms, "grad_sums": sums})
    return out


def digest(name):
    """FNV-1a of names and shapes, as tests/models.rs has it; a classifier that is a 1 x 1 convolution counts as linear."""
    shape = lambda k, v: list(v.shape[:2]) if k == "head.fc.weight" else list(v.shape)
    lines = sorted(f"{k} {shape(k, v)}" for k, v in state(make(name, 10 if name in WIDE else 1000)).items())
    h = 0xCBF29CE484222325
    for byte in "\n".join(lines).encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    out = {}
    for name, image in MODELS.items():
        exact, rounded = (fingerprint(name, image, dtype) for dtype in (torch.float64, torch.float32))
        apart = lambda key: (exact[f"{name}/{key}"].double() - rounded[f"{name}/{key}"]).abs()
        logits = apart("train/logits").max() / exact[f"{name}/train/logits"].abs().max()
        gradients = [(apart(key) / exact[f"{name}/grad_norms"].double()).max() for key in ("grad_norms", "grad_sums")]
        print(f"{name:20} {digest(name):#018x} float32 away: logits {logits:.0e}, gradients {max(gradients):.0e}", flush=True)
        out |= exact
    path = FOLDER / "fingerprints.safetensors"
    save_file({name: tensor.float().contiguous() for name, tensor in out.items()}, path)
    print(f"{path.name}: {len(out)} tensors, {path.stat().st_size} bytes")
