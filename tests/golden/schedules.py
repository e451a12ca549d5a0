"""Writes tests/golden/schedules.safetensors: learning rates of schedules that are not in training.safetensors.

    pip install torch safetensors
    python tests/golden/schedules.py        # a second

Made with torch 2.15.0. README.md lists the names.
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, ReduceLROnPlateau

LOSSES = [2.0, 1.5, 1.2, 1.21, 1.1999, 1.3, 1.25, 1.19, 1.19, 1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 0.5, 0.4, 0.41, 0.42, 0.39999, 0.4, 0.4, 0.4, 0.4, 0.4]
PLATEAUS = {"default_patience1": (0.1, 1, 1e-4, 0, 0.0), "cooldown": (0.5, 0, 1e-2, 2, 0.0), "floor": (0.3, 2, 1e-4, 1, 0.05)}


def sgd(lr):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


def main():
    golden = {"plateau/losses": torch.tensor(LOSSES)}
    for name, (factor, patience, threshold, cooldown, floor) in PLATEAUS.items():
        optimizer = sgd(1.0)
        scheduler = ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=threshold, cooldown=cooldown, min_lr=floor, eps=0)
        rates = []
        for loss in torch.tensor(LOSSES).tolist():
            scheduler.step(loss)
            rates.append(optimizer.param_groups[0]["lr"])
        golden[f"plateau/{name}"] = torch.tensor(rates)
    for name, (steps, factor, floor) in {"once": (20, 1, 0.0), "doubled": (8, 2, 0.01), "tripled": (5, 3, 0.0)}.items():
        optimizer = sgd(0.1)
        scheduler = CosineAnnealingWarmRestarts(optimizer, steps, factor, floor)
        rates = []
        for _ in range(60):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        golden[f"warm_restarts/{name}"] = torch.tensor(rates)
    save_file(golden, Path(__file__).with_name("schedules.safetensors"))
    print(*(f"{name}: {rates.tolist()}" for name, rates in golden.items()), sep="\n")


if __name__ == "__main__":
    main()
