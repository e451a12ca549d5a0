"""Writes autocast.safetensors: what PyTorch computes with torch.autocast("cpu", torch.bfloat16) for two networks of
models.safetensors, with the weights and images of the rule in make.py. Made with the versions that make.py names.

    python tests/golden/autocast.py
"""
import torch
import torch.nn.functional as F
from make import FOLDER, MODELS, fill, nchw, rule, save_file

NETWORKS = ["resnet20", "resnet18_cifar"]


def autocast(name):
    make, edge, input_name, _ = MODELS[name]
    out, labels = {}, torch.tensor([3, 7])
    for mode in ("eval", "train"):
        model = fill(make())
        model.train(mode == "train")
        x = rule(input_name, 2, edge, edge, 3).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(nchw(x))
        F.cross_entropy(logits.float(), labels).backward()
        out[f"{name}/{mode}/logits"] = logits.detach().float().contiguous()
        out[f"{name}/{mode}/dx_norm"] = x.grad.double().norm().float()
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    tensors = {}
    for name in NETWORKS:
        tensors |= autocast(name)
    save_file(tensors, FOLDER / "autocast.safetensors")
    print({name: tensor.flatten()[:3].tolist() for name, tensor in tensors.items()})
