"""Runs `verify` on networks of torchvision with random weights, and prints one line of a table for each.

    cargo build --release --example verify
    python sweep.py --verify ../../target/release/examples/verify --size 64 resnet18 densenet121

Without names it runs all networks.

Two float32 programs agree on a gradient only where it is continuous. It is not where an input of a ReLU is
within rounding of zero, or where two inputs of a max-pooling window are almost equal, and among millions of
inputs there are some such. So every channel before a ReLU is shifted a little, until its inputs have a gap
at zero (in training by the shift of the normalization, in evaluation by its running mean), and images are
drawn until no window has two almost equal inputs. Everything else is as in `reference.py`.
"""
import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from reference import network, perturb, reference, save
from torch import nn

NAMES = """resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2
wide_resnet101_2 densenet121 densenet169 densenet201 densenet161""".split()

# Channels are shifted by about this fraction of their spread; inputs of a window differ by at least this.
MOVED, APART = 0.3, 1e-6


class NearTie(Exception):
    """Two inputs of a max-pooling window are almost equal."""


class Pooled(Exception):
    """The first max-pooling is done, and its windows have no almost equal inputs."""


def to_gap(x):
    """Returns what to add to each channel of x to center a gap at zero, and the smallest distance from zero then."""
    values = x.transpose(0, 1).flatten(1).sort(dim=1).values
    middles, gaps = (values[:, 1:] + values[:, :-1]) / 2, values[:, 1:] - values[:, :-1]
    far = (middles.abs() - MOVED * values.std(dim=1, keepdim=True)).clamp(min=0)
    # The widest gap within reach, or one that is farther away by less than it is wider.
    best = (gaps - far).argmax(dim=1, keepdim=True)
    shift = -middles.gather(1, best)
    return shift[:, 0], (values + shift).abs().min().item()


@contextlib.contextmanager
def away_from_kinks(model, only_stem=False):
    """Makes passes of the model shift its normalizations. Yields a list of the distances from zero that result."""
    last, margins, relu, max_pool2d = [None], [], F.relu, F.max_pool2d

    def moved(x, inplace=False):
        norm = last[0]
        shift, margin = to_gap(x)
        margins.append(margin)
        if model.training:
            before = norm.bias.clone()
            norm.bias += shift
            norm.bias.copy_(norm.bias.float())
            shift = norm.bias - before
        else:
            before, slope = norm.running_mean.clone(), norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.running_mean -= shift / slope
            norm.running_mean.copy_(norm.running_mean.float())
            shift = (before - norm.running_mean) * slope
        return relu(x + shift[:, None, None])

    def pooled(x, kernel_size, stride, padding, *rest, **more):
        windows = F.unfold(F.pad(x, [padding] * 4).flatten(0, 1)[:, None], kernel_size, stride=stride)
        best = windows.topk(2, dim=1).values
        if ((best[:, 0] - best[:, 1] < APART) & (best[:, 0] > 0)).any():
            raise NearTie
        if only_stem:
            raise Pooled
        return max_pool2d(x, kernel_size, stride, padding, *rest, **more)

    hooks = [
        module.register_forward_hook(lambda module, _inputs, _output: last.__setitem__(0, module))
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    F.relu, F.max_pool2d = moved, pooled
    try:
        yield margins
    finally:
        F.relu, F.max_pool2d = relu, max_pool2d
        for hook in hooks:
            hook.remove()


def has_no_ties(model, images):
    try:
        with away_from_kinks(model, only_stem=True):
            model(images)
    except (NearTie, Pooled) as end:
        return isinstance(end, Pooled)


@torch.no_grad()
def settle(model, batch, size):
    """Draws images, shifts the normalizations, and returns how near to zero an input of a ReLU comes."""
    model.double()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    statistics = {name: state[name] for name, _ in model.named_buffers()}

    def passes(run):
        """Runs a pass in training mode, and one in evaluation mode."""
        model.load_state_dict(state)
        training = run(model.train())
        model.load_state_dict(statistics, strict=False)
        return training, run(model.eval())

    while True:
        images = torch.randn(batch, 3, size, size)
        if all(passes(lambda model: has_no_ties(model, images.double()))):
            break

    def whole(model):
        with away_from_kinks(model) as margins:
            model(images.double())
        return min(margins)

    margin = min(passes(whole))
    model.float()
    return images, margin


def worst(output, title):
    """Returns the largest relative difference below a title, its tensor, and that of PyTorch's own float32."""
    found = re.search(title + r"\n  worst of \d+: (\S+) at (.*?); PyTorch's float32: (\S+)\n", output)
    return found[1], found[2], found[3]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=NAMES)
    parser.add_argument("--verify", help="the program; without it, only files are written")
    parser.add_argument("--out", type=Path, help="a folder, where the files stay")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--activations", action="store_true", help="compare what every module gives, too")
    options = parser.parse_args()

    if not options.verify and not options.out:
        parser.error("--verify or --out is needed")
    columns = ["logits", "PyTorch's", "gradients, training", "PyTorch's", "worst in", "statistics", "margin", ""]
    if options.verify:
        print(f"| {options.batch} images of {options.size} x {options.size} | " + " | ".join(columns) + " |", flush=True)
        print("|---" * (len(columns) + 1) + "|")
    good = True
    for name in options.models:
        torch.manual_seed(0)
        model = network(name, options.classes)
        perturb(model, 3)
        images, margin = settle(model, options.batch, options.size)
        labels = torch.arange(options.batch) % options.classes
        tensors, texts = reference(model, images, labels, options.activations)
        with contextlib.nullcontext(options.out) if options.out else tempfile.TemporaryDirectory() as folder:
            weights, file = (Path(folder) / f"{name}.{what}.safetensors" for what in ("weights", "reference"))
            save(weights, {key: tensor for key, tensor in model.state_dict().items() if tensor.dim() > 0}, {})
            save(file, tensors, texts)
            if not options.verify:
                continue
            command = [options.verify, "--brief", "--model", name, "--weights", weights, "--reference", file]
            command += ["--tolerance", str(options.tolerance)]
            answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode == 2:
            sys.exit(answer.stderr)
        good &= answer.returncode == 0
        logits, _, own_logits = worst(answer.stdout, "evaluation, outputs")
        gradients, at, own_gradients = worst(answer.stdout, "training, gradients")
        statistics, _, _ = worst(answer.stdout, "training, running statistics")
        verdict = "equal" if answer.returncode == 0 else "NOT EQUAL"
        row = [name, logits, own_logits, gradients, own_gradients, f"`{at}`", statistics, f"{margin:.0e}", verdict]
        print("| " + " | ".join(row) + " |", flush=True)
        if verdict != "equal":
            print(answer.stdout, file=sys.stderr, flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
