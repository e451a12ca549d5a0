"""Exchanges weights between skipgrad and torchvision, both ways, through the files of a folder.

    python tests/golden/interop.py DIR

Reads what skipgrad wrote:

    input.safetensors                     x, [N, H, W, 3]: the images of both directions
    resnet18.safetensors                  weights under torchvision's names, loaded with strict=True
    densenet121.safetensors
    resnet18-logits.safetensors           logits, [N, 1000], in evaluation mode, for x
    densenet121-logits.safetensors

and compares the logits with PyTorch's to 1e-4. Writes torch-resnet18.safetensors, torch-densenet121.safetensors and
their -logits files for the other direction: fresh weights, perturbed norms. The exit status is 1 if anything
differs. Versions: those of make.py.
"""
import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file, save_file

TOLERANCE = 1e-4
MODELS = {"resnet18": torchvision.models.resnet18, "densenet121": torchvision.models.densenet121}


def logits_of(model, x):
    with torch.inference_mode():
        return model.eval()(x.permute(0, 3, 1, 2))


def check(name, folder, x):
    """Whether skipgrad's weights load and give skipgrad's logits."""
    weights = load_file(folder / f"{name}.safetensors")
    model = MODELS[name]()
    # A file carries no version of its modules, so PyTorch takes it for one from before num_batches_tracked existed and
    # does not miss the counters, even when strict.
    model.load_state_dict(weights, strict=True)
    ours = load_file(folder / f"{name}-logits.safetensors")["logits"]
    theirs = logits_of(model, x)
    if ours.shape != theirs.shape:
        print(f"{name}: logits are {list(ours.shape)}, expected {list(theirs.shape)}")
        return False
    difference = (ours - theirs).abs().max().item()
    good = difference <= TOLERANCE
    verdict = "equal" if good else "NOT EQUAL"
    largest = theirs.abs().max().item()
    print(f"{name}: {len(weights)} tensors; logits up to {largest:.3f}, largest difference {difference:.2e}: {verdict}")
    return good


def write(name, folder, x):
    """A model of PyTorch's for skipgrad to load, and its logits."""
    torch.manual_seed(1)
    model = MODELS[name]()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.9, 1.1)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.7, 1.3)
    save_file(model.state_dict(), folder / f"torch-{name}.safetensors")
    save_file({"logits": logits_of(model, x)}, folder / f"torch-{name}-logits.safetensors")
    print(f"torch-{name}: written, {len(model.state_dict())} tensors")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    torch.set_num_threads(2)
    x = load_file(folder / "input.safetensors")["x"]
    for name in MODELS:
        write(name, folder, x)
    results = [check(name, folder, x) for name in MODELS]
    sys.exit(0 if all(results) else 1)
