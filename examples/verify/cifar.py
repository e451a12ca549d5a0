"""The residual networks of He et al. 2015, section 4.2: an example of a custom network for `reference.py`."""
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    """A block whose shortcut has no parameters: it takes every second pixel, and pads channels with zeros."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.new = stride, planes - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        before = self.new // 2
        return F.relu(y + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new - before)))


class ResNet(nn.Module):
    def __init__(self, depth, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, planes in enumerate((16, 32, 64), 1):
            stride = 1 if stage == 1 else 2
            blocks = [Block(inputs, planes, stride)]
            blocks += [Block(planes, planes, 1) for _ in range((depth - 2) // 6 - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = planes
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def resnet20(num_classes=10):
    return ResNet(20, num_classes)


def resnet56(num_classes=10):
    return ResNet(56, num_classes)


def resnet110(num_classes=10):
    return ResNet(110, num_classes)
