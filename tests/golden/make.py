"""Writes the golden files of this folder: what PyTorch computes for our ops, blocks, models, optimizers and schedules.

    pip install torch torchvision safetensors
    python tests/golden/make.py            # half a minute on one thread

Made with Python 3.11, torch 2.15.0, torchvision 0.29.2, safetensors 0.8.0, numpy 2.4.6 (which torchvision brings).

PyTorch computes in float64 from float32 inputs, and every result is rounded to float32 once: the files hold what the
definition gives, to the last bit or nearly so, whatever the machine. A second run on the same machine gives the same
bytes. All is then computed again in float32, and the largest distance between the two, relative to the largest value of
its tensor, is printed for every group: what float32 costs PyTorch itself, a measure for the tolerances of the tests.

Activations are channels last, [N, H, W, C]. Weights have torchvision's names and layouts (convolutions
[out, in / groups, height, width], linear [out, in]). Class indices are stored as float32. README.md lists the names.

The rule: nothing is random. Element i (row-major, in the stored layout) of the tensor `name` comes from

    h = FNV-1a-64 of the name's UTF-8 bytes
    z = h + i + 0x9E3779B97F4A7C15                                       mod 2^64, as are the products below
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9
    z = (z ^ z >> 27) * 0x94D049BB133111EB
    u = ((z ^ z >> 31) >> 40) * 2^-23 - 1                                in [-1, 1), exact in float32
    value = offset + scale * u                                           in float64, rounded to float32 once

where the end of the name and the number of axes decide offset and scale:

    ...weight, two axes or more    0      sqrt(12 / fan_in)              fan_in = elements / first axis; float64
    ...weight, one axis            0.5    0.1
    ...bias                        0.25   0.1
    ...running_mean                0      0.1
    ...running_var                 1      0.3
    anything else                  0      1

With these, most inputs of a ReLU lie away from zero, where its gradient jumps, and the logits of all models stay below 40.
"""
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch.optim import lr_scheduler
from torchvision.models import densenet, resnet

FOLDER = Path(__file__).parent


# ---------------------------------------------------------------------------------------------------------- the rule


def uniform(name, count):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = (z ^ z >> np.uint64(31)) >> np.uint64(40)
    return z.astype(np.float64) * 2.0**-23 - 1.0


def offset_and_scale(name, shape):
    if name.endswith("weight") and len(shape) > 1:
        return 0.0, math.sqrt(12.0 / math.prod(shape[1:]))
    vectors = {"weight": (0.5, 0.1), "bias": (0.25, 0.1), "running_mean": (0.0, 0.1), "running_var": (1.0, 0.3)}
    return next((pair for ending, pair in vectors.items() if name.endswith(ending)), (0.0, 1.0))


def rule(name, *shape):
    """The tensor that the rule gives for a name and a shape, as float32 values in the working precision."""
    offset, scale = offset_and_scale(name, shape)
    values = (offset + scale * uniform(name, math.prod(shape))).astype(np.float32)
    return torch.from_numpy(values).reshape(shape).to(torch.get_default_dtype())


def classes(name, count, *shape):
    """Class indices below `count` by the rule: floor((u + 1) / 2 * count)."""
    return torch.from_numpy(np.floor((uniform(name, math.prod(shape)) + 1) / 2 * count).astype(np.int64)).reshape(shape)


# ------------------------------------------------------------------------------------------------------------ helpers


def nchw(x):
    return x.permute(0, 3, 1, 2)


def nhwc(x):
    return x.permute(0, 2, 3, 1)


def state(module):
    """Parameters and running statistics under torchvision's names; the counter of batches is left out."""
    return {k: v.detach().clone() for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def fill(module, prefix=""):
    """Sets every state tensor by the rule, under its name behind a prefix."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                tensor.copy_(rule(prefix + name, *tensor.shape))
    return module


def store(out, prefix, tensors):
    out.update({f"{prefix}/{name}": tensor.detach().clone() for name, tensor in tensors.items()})


# ---------------------------------------------------------------------------------------------------------------- ops


def op(out, name, f, inputs, changes=(), **constants):
    """Stores an op: inputs, `y`, an upstream gradient `dy` by the rule, and `dINPUT` for every input.

    `inputs` are shapes, filled by the rule, or tensors. `constants` are tensors without a gradient; those that the op
    `changes` are stored before, and again as `after/NAME`.
    """
    given = {k: v if torch.is_tensor(v) else rule(f"{name}/{k}", *v) for k, v in inputs.items()}
    given = {k: v.clone().requires_grad_() for k, v in given.items()}
    store(out, name, given | constants)
    y = f(**given, **constants)
    dy = rule(f"{name}/dy", *y.shape)
    y.backward(dy)
    gradients = {f"d{k}": v.grad for k, v in given.items()}
    store(out, name, {"y": y, "dy": dy} | gradients | {f"after/{k}": constants[k] for k in changes})


def elementwise_ops(out):
    maps = (2, 3, 3, 4)
    op(out, "add", lambda a, b: a + b, {"a": maps, "b": maps})
    op(out, "mul", lambda a, b: a * b, {"a": maps, "b": maps})
    op(out, "scale", lambda x: -1.5 * x, {"x": maps})
    op(out, "scale_channels", lambda x, gate: nhwc(nchw(x) * gate[:, :, None, None]), {"x": maps, "gate": (2, 4)})
    zeros_too = rule("relu/x", *maps)
    zeros_too[0, 0] = 0.0
    op(out, "relu", lambda x: F.relu(x), {"x": zeros_too})
    op(out, "sigmoid", lambda x: torch.sigmoid(x), {"x": 8 * rule("sigmoid/x", *maps)})


def matrix_ops(out):
    op(out, "matmul", lambda a, b: a @ b, {"a": (5, 7), "b": (7, 6)})
    op(out, "linear", lambda x, weight, bias: F.linear(x, weight, bias), {"x": (5, 7), "weight": (6, 7), "bias": (6,)})


#   name: (x [N, H, W, C], weight [out, in / groups, height, width], options)
CONVOLUTIONS = {
    "stride1_pad1": ((2, 5, 6, 3), (4, 3, 3, 3), {"padding": 1}),
    "stride2_pad1": ((2, 7, 6, 3), (4, 3, 3, 3), {"stride": 2, "padding": 1}),
    "pointwise": ((2, 4, 5, 6), (5, 6, 1, 1), {}),
    "pointwise_stride2": ((2, 5, 6, 4), (6, 4, 1, 1), {"stride": 2}),
    "stem7_stride2_pad3": ((1, 11, 12, 3), (4, 3, 7, 7), {"stride": 2, "padding": 3}),
    "dilation2_pad2": ((1, 7, 8, 3), (4, 3, 3, 3), {"padding": 2, "dilation": 2}),
    "groups2_pad1": ((2, 5, 5, 4), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    "depthwise_pad1": ((2, 5, 5, 6), (6, 1, 3, 3), {"padding": 1, "groups": 6}),
    "depthwise_twice_stride2": ((2, 6, 7, 4), (8, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 4}),
    "wide_kernel": ((2, 6, 9, 3), (4, 3, 3, 5), {"stride": (1, 2), "padding": (0, 2)}),
    "uneven": ((2, 7, 6, 3), (4, 3, 3, 2), {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)}),
    "same_even": ((2, 5, 6, 3), (4, 3, 4, 2), {"padding": "same"}),
    "same_dilated": ((1, 6, 7, 3), (4, 3, 2, 2), {"padding": "same", "dilation": 3}),
    "no_bias": ((2, 5, 6, 3), (4, 3, 3, 3), {"padding": 1}),
}


def convolutions(out):
    for name, (x, weight, options) in CONVOLUTIONS.items():
        def conv(x, weight, bias=None):
            return nhwc(F.conv2d(nchw(x), weight, bias, **options))

        bias = {} if name == "no_bias" else {"bias": weight[:1]}
        op(out, f"conv2d/{name}", conv, {"x": x, "weight": weight} | bias)


def norms(out):
    def arguments(name, channels, *more):
        shape = (3, 4, 3, channels)
        inputs = {"x": 2 * rule(f"{name}/x", *shape) + 0.5, "weight": (channels,), "bias": (channels,)}
        statistics = {k: rule(f"{name}/{k}", channels) for k in ("running_mean", "running_var")}
        return inputs | {k: shape for k in more}, statistics

    def norm(train, relu=False):
        def f(x, weight, bias, running_mean, running_var, residual=None):
            y = nhwc(F.batch_norm(nchw(x), running_mean, running_var, weight, bias, train, 0.1, 1e-5))
            y = y if residual is None else y + residual
            return F.relu(y) if relu else y

        return f

    for mode in ("train", "eval"):
        changes = ("running_mean", "running_var") if mode == "train" else ()
        for form in ("", "_relu", "_add", "_add_relu"):
            name = f"batch_norm/{mode}{form}"
            inputs, statistics = arguments(name, 5, *(["residual"] if "_add" in form else []))
            op(out, name, norm(mode == "train", "_relu" in form), inputs, changes, **statistics)


def pools(out):
    def pool(f, *arguments, **options):
        return lambda x: nhwc(f(nchw(x), *arguments, **options))

    op(out, "max_pool2d/k3_s2_p1", pool(F.max_pool2d, 3, 2, 1), {"x": (2, 7, 6, 3)})
    op(out, "max_pool2d/k2_s2", pool(F.max_pool2d, 2, 2), {"x": (2, 6, 5, 3)})
    # Few different values, so that most windows hold their largest twice: the first one takes the gradient.
    ties = torch.round(2 * rule("max_pool2d/ties/x", 2, 7, 6, 3)) / 2
    op(out, "max_pool2d/ties", pool(F.max_pool2d, 3, 2, 1), {"x": ties})
    # Keras pads 7 x 6 by one row above and below, and by one column on the right.
    same = lambda x, *arguments: F.max_pool2d(F.pad(x, (0, 1, 1, 1), value=-math.inf), *arguments)
    op(out, "max_pool2d/same_k3_s2", pool(same, 3, 2), {"x": (2, 7, 6, 3)})
    op(out, "avg_pool2d/k2_s2", pool(F.avg_pool2d, 2, 2), {"x": (2, 6, 5, 3)})
    op(out, "avg_pool2d/k3_s2_p1_count_pad", pool(F.avg_pool2d, 3, 2, 1), {"x": (2, 7, 6, 3)})
    op(out, "avg_pool2d/k3_s2_p1_skip_pad", pool(F.avg_pool2d, 3, 2, 1, count_include_pad=False), {"x": (2, 7, 6, 3)})
    op(out, "global_avg_pool", lambda x: x.mean((1, 2)), {"x": (2, 4, 5, 6)})


def shapes(out):
    op(out, "concat", lambda a, b, c: torch.cat([a, b, c], 3), {"a": (2, 3, 2, 3), "b": (2, 3, 2, 1), "c": (2, 3, 2, 2)})
    op(out, "channel_slice/from1_to4", lambda x: x[..., 1:4], {"x": (2, 3, 2, 6)})
    op(out, "pad_channels/before1_after2", lambda x: F.pad(x, (1, 2)), {"x": (2, 3, 2, 4)})
    op(out, "flatten", lambda x: x.flatten(1), {"x": (2, 3, 2, 4)})


def losses(out):
    op(out, "sum", lambda x: x.sum(), {"x": (2, 3, 3, 4)})
    op(out, "mean", lambda x: x.mean(), {"x": (2, 3, 3, 4)})
    for name, f in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        op(out, name, lambda x: f(x, -1), {"x": 4 * rule(f"{name}/x", 5, 7)})
    labels = classes("cross_entropy/labels", 7, 5)
    for name, smoothing in (("cross_entropy/labels", 0.0), ("cross_entropy/smoothing0.1", 0.1)):
        def loss(x, labels):
            return F.cross_entropy(x, labels, label_smoothing=smoothing)

        op(out, name, loss, {"x": 4 * rule(f"{name}/x", 5, 7)}, labels=labels)
    soft = rule("cross_entropy/soft/targets", 5, 7).add(1.0)
    soft = (soft / soft.sum(1, keepdim=True)).float().to(soft.dtype)
    for name, smoothing in (("cross_entropy/soft", 0.0), ("cross_entropy/soft_smoothing0.1", 0.1)):
        def soft_loss(x, targets):
            return F.cross_entropy(x, targets, label_smoothing=smoothing)

        op(out, name, soft_loss, {"x": 4 * rule(f"{name}/x", 5, 7)}, targets=soft)
    op(out, "mse", lambda x, target: F.mse_loss(x, target), {"x": (5, 7), "target": (5, 7)})


def ops():
    out = {}
    for group in (elementwise_ops, matrix_ops, convolutions, norms, pools, shapes, losses):
        group(out)
    return out


# ------------------------------------------------------------------------------------------------- the CIFAR networks


class PadShortcut(nn.Module):
    """Option A of He et al. 2015, section 3.3: every second pixel, and zeros for the new channels, half on each side."""

    def __init__(self, inputs, planes):
        super().__init__()
        self.before = (planes - inputs) // 2
        self.after = planes - inputs - self.before

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarBlock(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 and inputs == planes else PadShortcut(inputs, planes)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """The network of He et al. 2015, section 4.2: 6n + 2 layers, widths w, 2w, 4w; the paper's w is 16."""

    def __init__(self, n, width=16, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for stage, planes in enumerate((width, 2 * width, 4 * width), 1):
            blocks = [CifarBlock(inputs if b == 0 else planes, planes, 2 if b == 0 and stage > 1 else 1) for b in range(n)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = planes
        self.linear = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet18_cifar():
    """torchvision's ResNet-18 for 32 x 32 images: a 3 x 3 stem of stride 1 and no max-pool."""
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def tiny_densenet():
    """torchvision's DenseNet, growth 4, blocks of 2 and 2, 8 channels to begin with, behind a bare 3 x 3 stem."""
    net = densenet.DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, bn_size=4, num_classes=5)
    net.features.conv0 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
    net.features.norm0 = net.features.relu0 = net.features.pool0 = nn.Identity()
    return net


# ------------------------------------------------------------------------------------------------------------- blocks


def projection(inputs, outputs, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


#   name: (channels of the input, constructor)
BLOCKS = {
    "basic_identity": (4, lambda: resnet.BasicBlock(4, 4)),
    "basic_projection": (4, lambda: resnet.BasicBlock(4, 6, 2, projection(4, 6, 2))),
    "basic_pad": (4, lambda: CifarBlock(4, 8, 2)),
    "bottleneck_identity": (8, lambda: resnet.Bottleneck(8, 2)),
    "bottleneck_projection": (6, lambda: resnet.Bottleneck(6, 2, 2, projection(6, 8, 2))),
    "dense_layer": (6, lambda: densenet._DenseLayer(6, growth_rate=3, bn_size=4, drop_rate=0.0)),
    "dense_block": (6, lambda: densenet._DenseBlock(3, 6, bn_size=4, growth_rate=3, drop_rate=0.0)),
    "transition": (6, lambda: densenet._Transition(6, 3)),
}


def blocks():
    out = {}
    for name, (channels, make) in BLOCKS.items():
        block = fill(make(), f"{name}/state/").train()
        x = rule(f"{name}/x", 3, 6, 6, channels).requires_grad_()
        store(out, f"{name}/state", state(block))
        # torchvision's dense layers apply ReLU in place, on their own values only.
        y = nhwc(block(nchw(x)))
        dy = rule(f"{name}/dy", *y.shape)
        y.backward(dy)
        store(out, name, {"x": x, "y": y, "dy": dy, "dx": x.grad})
        store(out, f"{name}/grad", {k: p.grad for k, p in block.named_parameters()})
        store(out, f"{name}/after", {k: v for k, v in state(block).items() if "running" in k})
    return out


# ------------------------------------------------------------------------------------------------------------- models


#   name: (constructor, edge of the images, name of the input, layers whose gradients and statistics are stored whole)
#   Of forty inputs by the rule, each model has one that brings no ReLU within float32's rounding of its bend: there,
#   the gradient would jump.
MODELS = {
    "resnet18": (torchvision.models.resnet18, 64, "x11", ("bn1", "layer4.1.bn2", "fc")),
    "resnet50": (torchvision.models.resnet50, 64, "x16", ("bn1", "layer4.2.bn3", "fc")),
    "densenet121": (torchvision.models.densenet121, 64, "x32", ("features.norm0", "features.norm5", "classifier")),
    "resnet18_cifar": (resnet18_cifar, 32, "x2", ("conv1", "bn1", "layer4.1.bn2", "fc")),
    "resnet20": (lambda: CifarResNet(3), 32, "x29", ("conv1", "bn1", "layer3.2.bn2", "linear")),
}


def models():
    out = {}
    samples = {f"bn.{k}": (8,) for k in ("weight", "bias", "running_mean", "running_var")}
    samples |= {"conv.weight": (4, 3, 3, 3), "linear.weight": (5, 4), "x": (2, 2, 2, 3)}
    store(out, "rule", {name: rule(name, *shape) for name, shape in samples.items()})
    for name, (make, edge, input_name, layers) in MODELS.items():
        model = fill(make())
        x = rule(input_name, 2, edge, edge, 3).requires_grad_()
        labels = torch.tensor([3, 7])
        logits = model.eval()(nchw(x))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        store(out, f"{name}/eval", {"logits": logits, "loss": loss, "dx_norm": x.grad.double().norm()})
        store(out, f"{name}/eval_grad_norm", {k: p.grad.double().norm() for k, p in model.named_parameters()})
        model.zero_grad()
        x.grad = None
        logits = model.train()(nchw(x))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        gradients = {k: p.grad for k, p in model.named_parameters()}
        store(out, f"{name}/train", {"logits": logits, "loss": loss, "dx_norm": x.grad.double().norm()})
        store(out, f"{name}/grad_norm", {k: g.double().norm() for k, g in gradients.items()})
        chosen = {k: gradients.get(k, v) for k, v in state(model).items() if k.rpartition(".")[0] in layers}
        store(out, f"{name}/grad", {k: v for k, v in chosen.items() if k in gradients and v.numel() <= 2000})
        store(out, f"{name}/after", {k: v for k, v in chosen.items() if "running" in k})
    return out


# ----------------------------------------------------------------------------------------------------------- training


STEPS = 20

#   name: (optimizer, options, largest global norm of the gradients)
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}, None),
    "sgd_momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, None),
    "sgd_nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, None),
    "sgd_dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1}, None),
    "sgd_decay": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.05}, None),
    "sgd_momentum_decay": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}, None),
    "sgd_nesterov_decay": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}, None),
    "sgd_clipped": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 0.5),
    "adam": (torch.optim.Adam, {"lr": 0.02}, None),
    "adam_decay": (torch.optim.Adam, {"lr": 0.02, "weight_decay": 0.05}, None),
    "adam_betas": (torch.optim.Adam, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}, None),
    "adamw": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.01}, None),
    "adamw_no_decay": (torch.optim.AdamW, {"lr": 0.02, "weight_decay": 0.0}, None),
    "adamw_betas": (torch.optim.AdamW, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}, None),
}


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 5)
        self.fc2 = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


def train(model, optimizer, batches, clip=None):
    """The loss of every step, before the step, and the global norms of the gradients, before clipping."""
    losses, norms = [], []
    for x, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip if clip else math.inf))
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), torch.stack(norms)


def optimizers(out):
    x, labels = rule("optim/x", STEPS, 8, 6), classes("optim/labels", 3, STEPS, 8)
    store(out, "optim", {"x": x, "labels": labels})
    store(out, "optim/init", state(fill(TwoLayers(), "optim/init/")))
    for name, (make, options, clip) in OPTIMIZERS.items():
        model = fill(TwoLayers(), "optim/init/")
        losses, norms = train(model, make(model.parameters(), **options), zip(x, labels), clip)
        store(out, f"optim/{name}", {"losses": losses, "grad_norms": norms})
        store(out, f"optim/{name}/after", state(model))


def networks(out):
    for name, make in {"net/resnet": lambda: CifarResNet(1, 4, 5), "net/densenet": tiny_densenet}.items():
        model = fill(make(), f"{name}/init/").train()
        x, labels = rule(f"{name}/x", 16, 8, 8, 3), classes(f"{name}/labels", 5, 16)
        store(out, name, {"x": x, "labels": labels})
        store(out, f"{name}/init", state(model))
        sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        losses, norms = train(model, sgd, [(nchw(x), labels)] * STEPS)
        with torch.no_grad():
            logits = model.eval()(nchw(x))
        store(out, name, {"losses": losses, "grad_norms": norms, "eval_logits": logits})
        store(out, f"{name}/after", state(model))


def warm_up(sgd, after):
    start = lr_scheduler.LinearLR(sgd, start_factor=0.1, end_factor=1.0, total_iters=10)
    return lr_scheduler.SequentialLR(sgd, [start, after], milestones=[10])


#   name: (base learning rate, scheduler)
SCHEDULES = {
    "one_cycle": (0.4, lambda sgd: lr_scheduler.OneCycleLR(sgd, 0.4, total_steps=60, pct_start=0.3, cycle_momentum=False)),
    "cosine": (0.1, lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, T_max=60)),
    "cosine_floor": (0.1, lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, T_max=60, eta_min=0.01)),
    "step": (0.1, lambda sgd: lr_scheduler.StepLR(sgd, step_size=20, gamma=0.1)),
    "multi_step": (0.1, lambda sgd: lr_scheduler.MultiStepLR(sgd, milestones=[15, 40], gamma=0.2)),
    "polynomial0.9": (0.1, lambda sgd: lr_scheduler.PolynomialLR(sgd, total_iters=60, power=0.9)),
    "polynomial1": (0.1, lambda sgd: lr_scheduler.PolynomialLR(sgd, total_iters=60, power=1.0)),
    "warmup_cosine": (0.1, lambda sgd: warm_up(sgd, lr_scheduler.CosineAnnealingLR(sgd, T_max=50))),
    "warmup_step": (0.1, lambda sgd: warm_up(sgd, lr_scheduler.StepLR(sgd, step_size=20, gamma=0.1))),
}


def schedules(out):
    for name, (lr, make) in SCHEDULES.items():
        sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        schedule, rates = make(sgd), []
        for _ in range(60):
            rates.append(sgd.param_groups[0]["lr"])
            sgd.step()
            schedule.step()
        store(out, "schedule", {name: torch.tensor(rates)})


def training():
    out = {}
    for part in (optimizers, networks, schedules):
        part(out)
    return out


# ------------------------------------------------------------------------------------------------------------ writing


def computed(make, dtype):
    torch.set_default_dtype(dtype)
    return make()


def distances(exact, rounded):
    """For every group of tensors, the largest distance relative to the largest value of its tensor."""
    worst = {}
    for name, tensor in exact.items():
        group = name.rpartition("/")[0]
        tensor = tensor.double()
        distance = (tensor - rounded[name]).abs().max() / tensor.abs().max().clamp_min(1e-30)
        worst[group] = max(worst.get(group, (0.0, "")), (distance.item(), name))
    return worst


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
    # With oneDNN, which serves float32 only, the backward pass of basic_projection corrupts the heap (torch 2.15.0).
    torch.backends.mkldnn.enabled = False
    print(f"python {sys.version.split()[0]}, torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {np.__version__}")
    for make in (ops, blocks, models, training):
        exact, rounded = computed(make, torch.float64), computed(make, torch.float32)
        path = FOLDER / f"{make.__name__}.safetensors"
        save_file({name: tensor.float().contiguous() for name, tensor in exact.items()}, path)
        print(f"{path.name}: {len(exact)} tensors, {path.stat().st_size} bytes; float32 is away from float64 by")
        for group, (distance, name) in distances(exact, rounded).items():
            print(f"    {distance:.1e}  {group:40}  most at {name.rpartition('/')[2]}")
