"""Trains DenseNet-BC-100 (k = 12) on CIFAR-10 in PyTorch with the recipe of `cargo run --release --example cifar10`.

    python densenet_cifar10.py CIFAR_DIR [--epochs 3] [--batch 64] [--lr 0.1] [--seed 0] [--threads 2] [--checkpoint FILE]

    cargo run --release --example cifar10 -- --data CIFAR_DIR --model densenet_bc100_k12 --epochs 3 --batch 64 --lr 0.1

Recipe: the last partial batch dropped; SGD with Nesterov momentum 0.9 and weight decay 5e-4 on tensors of two or more
axes; one-cycle learning rate by the step (peak at 30 %, cosine both ways, from peak/25 to peak/25e4); label smoothing
0.1; each image shifted by up to 4 pixels and flipped with probability 1/2. With --checkpoint the run is written to FILE
every 25 steps and goes on from there, so that it may be stopped at any time.
"""
import argparse
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import DenseNet

MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(1, 3, 1, 1)


def densenet_bc100_k12():
    net = DenseNet(growth_rate=12, block_config=(16, 16, 16), num_init_features=24, bn_size=4, num_classes=10)
    net.features.conv0 = nn.Conv2d(3, 24, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.features.conv0.weight)
    net.features.norm0 = net.features.relu0 = net.features.pool0 = nn.Identity()
    return net.to(memory_format=torch.channels_last)


def read(folder, files):
    records = np.concatenate([np.fromfile(os.path.join(folder, file), np.uint8).reshape(-1, 3073) for file in files])
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).float() / 255
    return (pixels - MEAN) / STD, torch.from_numpy(records[:, 0].astype(np.int64))


def augmented(images, random):
    n = len(images)
    shifted = torch.empty_like(images)
    padded = F.pad(images * STD + MEAN, (4, 4, 4, 4))
    rows, columns = (torch.randint(0, 9, (n,), generator=random).tolist() for _ in range(2))
    for i, (row, column) in enumerate(zip(rows, columns)):
        shifted[i] = padded[i, :, row:row + 32, column:column + 32]
    flip = torch.rand(n, generator=random) < 0.5
    shifted[flip] = shifted[flip].flip(3)
    return ((shifted - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def accuracy(model, images, labels):
    model.eval()
    with torch.inference_mode():
        right = sum((model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == y).sum().item()
                    for x, y in zip(images.split(250), labels.split(250)))
    model.train()
    return right / len(images)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("cifar")
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--lr", type=float, default=0.1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--checkpoint")
    options = options.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    images, labels = read(options.cifar, [f"data_batch_{i}.bin" for i in range(1, 6)])
    test_images, test_labels = read(options.cifar, ["test_batch.bin"])
    model = densenet_bc100_k12()
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    sgd = torch.optim.SGD([{"params": weights, "weight_decay": 5e-4}, {"params": others}], lr=options.lr, momentum=0.9, nesterov=True)
    steps = len(images) // options.batch
    total = options.epochs * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(sgd, options.lr, total_steps=total, pct_start=0.3, cycle_momentum=False)
    done, seconds, losses = 0, 0.0, 0.0
    if options.checkpoint and os.path.exists(options.checkpoint):
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        sgd.load_state_dict(saved["sgd"])
        schedule.load_state_dict(saved["schedule"])
        done, seconds, losses = saved["done"], saved["seconds"], saved["losses"]
    while done < total:
        epoch, step = divmod(done, steps)
        if step == 0:
            losses = 0.0
        start = time.time()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(options.seed + 1000 * epoch))
        index = order[step * options.batch:(step + 1) * options.batch]
        x = augmented(images[index], torch.Generator().manual_seed(options.seed + 1_000_003 * (done + 1)))
        sgd.zero_grad()
        loss = F.cross_entropy(model(x), labels[index], label_smoothing=0.1)
        loss.backward()
        sgd.step()
        schedule.step()
        losses += loss.item()
        seconds += time.time() - start
        done += 1
        if options.checkpoint and (done % 25 == 0 or done % steps == 0):
            torch.save({"model": model.state_dict(), "sgd": sgd.state_dict(), "schedule": schedule.state_dict(),
                        "done": done, "seconds": seconds, "losses": losses}, options.checkpoint + ".new")
            os.replace(options.checkpoint + ".new", options.checkpoint)
        if done % 25 == 0:
            print(f"step {done}/{total} loss {losses / (step + 1):.4f} {seconds / done:.3f} s a step", flush=True)
        if done % steps == 0:
            print(f"epoch {epoch + 1} train_loss {losses / steps:.4f} test_accuracy {accuracy(model, test_images, test_labels):.4f} train_seconds {seconds:.1f}", flush=True)


if __name__ == "__main__":
    main()
