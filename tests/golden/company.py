"""Writes tests/golden/weights/company_*.pth: a checkpoint with everything that keeps weights company in the wild.

    pip install torch numpy
    python tests/golden/company.py         # a second

Made with torch 2.15.0, numpy 2.4.6, Python 3.11. Each file has the same tensors below `state_dict`, which are small and
exact: `weight` [2, 3] counts from 1, `bias` is 0.5 and -0.5.
"""
import argparse
import collections
import datetime
import enum
import fractions
import pathlib
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "weights"


class Color(enum.Enum):
    RED = 1


class Config(dict):
    """A dictionary with attributes, as many configurations are."""


class Settings:
    def __init__(self):
        self.lr, self.names = 0.1, ["a", "b"]


class Holder:
    def __init__(self):
        self.weight = torch.ones(1)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)
        self.fc = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(1, 2))

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 1


def company():
    """Values of every kind, without tensors."""
    defaults = collections.defaultdict(list)
    defaults["loss"] += [1.0, 0.5]
    config = Config(lr=0.1)
    config.path = pathlib.PurePosixPath("a/b")
    recursive = ["a"]
    recursive.append(recursive)
    return {
        "scalars": [np.float64(91.4), np.float32(0.5), np.int64(7), np.bool_(True)],
        "arrays": [np.arange(6.0).reshape(2, 3), np.array(["a", "b"]), np.arange(4, dtype=np.int8)[::2]],
        "random": np.random.RandomState(0).get_state(),
        "sets": [{1, 2}, frozenset("ab"), set()],
        "collections": [defaults, collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1, 2], 3)],
        "keys": {(1, 2): 3, None: 1, 0.5: 2, True: 4, b"k": 5, Color.RED: 6, 7: 8},
        "paths": [pathlib.PurePosixPath("/tmp/run"), pathlib.PureWindowsPath("C:/run")],
        "times": [datetime.datetime(2026, 11, 30, 12, 5), datetime.date(2026, 11, 30), datetime.timedelta(hours=2)],
        "numbers": [1 + 2j, 1 << 70, -(1 << 40), 1.5, Decimal("0.1"), fractions.Fraction(1, 3), range(3), slice(1, 2)],
        "bytes": [b"", b"abc\xff", b"x" * 300, bytearray(b"abc"), "é\u20ac\U0001f600", "\ud800"],
        "objects": [argparse.Namespace(lr=0.1, name="run"), Color.RED, config, Settings(), Slots(), Color, len],
        "torch": [torch.Size([1, 2]), torch.float16, torch.device("cpu")],
        "loss": torch.nn.CrossEntropyLoss(label_smoothing=0.1),
        "recursive": recursive,
    }


def main():
    weight = torch.arange(1.0, 7.0).reshape(2, 3)
    state = collections.OrderedDict(weight=weight, bias=torch.tensor([0.5, -0.5]))
    state._metadata = collections.OrderedDict({"": {"version": 1}})
    checkpoint = company() | {"state_dict": state, "parameter": torch.nn.Parameter(torch.ones(1)), "epoch": 3}
    for protocol in range(2, 6):
        torch.save(checkpoint, FOLDER / f"company_{protocol}.pth", pickle_protocol=protocol)
    torch.save(checkpoint, FOLDER / "company_legacy.pth", pickle_protocol=4, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(FOLDER / "company_5.pth") as stored:
        with zipfile.ZipFile(FOLDER / "company_deflated.pth", "w", zipfile.ZIP_DEFLATED) as deflated:
            for name in stored.namelist():
                deflated.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)
    refused()


def refused():
    """Files that hold tensors in another form."""
    torch.save({"epoch": 3, "model": Net()}, FOLDER / "company_module.pth")
    torch.save({"state_dict": {"a": torch.ones(1)}, "ema": Holder()}, FOLDER / "company_object.pth")
    torch.save([torch.ones(1), torch.ones(2)], FOLDER / "company_list.pth")
    torch.save(torch.ones(1), FOLDER / "company_tensor.pth")
    torch.save({(1, 2): torch.ones(1)}, FOLDER / "company_keys.pth")
    torch.jit.script(Net()).save(FOLDER / "company_script.pt")


if __name__ == "__main__":
    import company  # so that the classes are pickled under this name, not under `__main__`

    company.main()
