"""Writes tests/golden/losses.safetensors: losses and their gradients, and mixed batches.

    pip install torch torchvision safetensors
    python tests/golden/losses.py        # a second

Made with torch 2.15.0, torchvision 0.29.2. Numbers are from numpy's default_rng(20), computed in float64 and rounded to float32 once.
README.md lists the names.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.ops import sigmoid_focal_loss
from torchvision.transforms import v2


def main():
    rng = np.random.default_rng(20)
    golden = {}

    def rounded(array):
        return torch.tensor(array, dtype=torch.float32).double()

    rows, classes = 6, 7
    x = rounded(rng.normal(0, 2, (rows, classes)))
    labels = torch.tensor([3, 0, 6, 6, 2, 5])
    soft = rounded(rng.dirichlet(np.ones(classes), rows))
    weights = rounded(rng.uniform(0, 3, classes))
    pos_weight = rounded(rng.uniform(0, 3, classes))
    answers = rounded((rng.uniform(0, 1, (rows, classes)) > 0.6).astype(np.float64))
    answers[0] = rounded(rng.uniform(0, 1, classes))
    teacher = rounded(rng.normal(0, 3, (rows, classes)))
    given = {"x": x, "labels": labels, "soft": soft, "class_weights": weights, "pos_weight": pos_weight, "answers": answers, "teacher": teacher}

    def put(name, loss):
        leaf = x.clone().requires_grad_()
        value = loss(leaf)
        value.backward()
        golden[f"{name}/y"], golden[f"{name}/dx"] = value.detach(), leaf.grad

    for smoothing in [0.0, 0.1]:
        put(f"cross_entropy/weights/{smoothing}", lambda x: F.cross_entropy(x, labels, weights, label_smoothing=smoothing))
        put(f"cross_entropy/ignore6/{smoothing}", lambda x: F.cross_entropy(x, labels, ignore_index=6, label_smoothing=smoothing))
        both = lambda x: F.cross_entropy(x, labels, weights, ignore_index=6, label_smoothing=smoothing)
        put(f"cross_entropy/weights_ignore6/{smoothing}", both)
        put(f"cross_entropy/soft_weights/{smoothing}", lambda x: F.cross_entropy(x, soft, weights, label_smoothing=smoothing))
    put("bce_with_logits/plain", lambda x: F.binary_cross_entropy_with_logits(x, answers))
    put("bce_with_logits/pos_weight", lambda x: F.binary_cross_entropy_with_logits(x, answers, pos_weight=pos_weight))
    for alpha, gamma in [(0.25, 2.0), (0.6, 0.5), (-1, 1.0)]:
        put(f"focal_loss/{alpha}/{gamma}", lambda x: sigmoid_focal_loss(x, answers, alpha, gamma, "mean"))
    for t in [1.0, 4.0]:
        kl = lambda x: F.kl_div(F.log_softmax(x / t, 1), F.softmax(teacher / t, 1), reduction="batchmean") * t * t
        put(f"distillation/{t}", kl)

    # Three images of 4 x 6, mixed with a weight and a box that are given.
    images, targets = rounded(rng.uniform(0, 1, (3, 2, 4, 6))), torch.tensor([2, 0, 1])
    given |= {"mix/images": images.permute(0, 2, 3, 1), "mix/labels": targets}
    for name, mix, params in [
        ("mixup", v2.MixUp(num_classes=4), {"lam": 0.375}),
        ("cutmix", v2.CutMix(num_classes=4), {"box": (1, 2, 4, 4), "lam_adjusted": 1 - 6 / 24}),
    ]:
        mix.make_params = lambda _, params=params: params
        mixed, weights = mix(images.float(), targets)
        golden[f"mix/{name}/images"], golden[f"mix/{name}/targets"] = mixed.permute(0, 2, 3, 1), weights
    golden = {name: tensor.float().contiguous() for name, tensor in (golden | given).items()}
    path = Path(__file__).with_name("losses.safetensors")
    save_file(golden, path)
    print(f"{len(golden)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
