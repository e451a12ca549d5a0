"""PyTorch's lines for `densenet_memory.rs`: `DEPTH,MIB`, measured in the same way.

    pip install torch torchvision
    python benches/densenet_memory.py > pytorch.csv

The network is torchvision's DenseNet (growth 12, three blocks of (depth - 4) / 6 bottlenecks) behind a 3x3 stem without pooling, in
the channels-last layout. Memory is the peak resident set after three steps, less what was resident when the libraries were loaded.
"""
import resource
import subprocess
import sys

DEPTHS = (40, 100, 190)


def measure(depth):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from torchvision.models.densenet import DenseNet

    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    net = DenseNet(growth_rate=12, block_config=((depth - 4) // 6,) * 3, num_init_features=24, num_classes=10)
    net.features.conv0 = nn.Conv2d(3, 24, 3, 1, 1, bias=False)
    net.features.norm0 = net.features.relu0 = net.features.pool0 = nn.Identity()
    net = net.to(memory_format=torch.channels_last).train()
    sgd = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (16,))
    for _ in range(3):
        sgd.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        sgd.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(f"{sys.argv[1]},{measure(int(sys.argv[1])):.0f}")
    else:
        for depth in DEPTHS:
            subprocess.run([sys.executable, __file__, str(depth)], check=True)
