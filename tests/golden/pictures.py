"""Writes tests/golden/pictures: small pictures of every kind, and what torchvision's presets make of them (pictures.safetensors).

    pip install torch torchvision safetensors
    python tests/golden/pictures.py        # a second

Made with torchvision 0.29.2, Pillow 13.0.0. Pictures are waves and noise from a fixed rule, read back from their files with PIL and
converted to RGB (or to L, where the network sees grey). Every preset is torchvision.transforms' Resize (bilinear, antialias) of the PIL
picture, CenterCrop, ToTensor and Normalize; channels last. Since version 13 Pillow resizes some pictures that become lower rows first, which
rounds otherwise; there is none of those among these. README.md lists the names.
"""
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image, __version__
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights

FOLDER = Path(__file__).parent / "pictures"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def waves(height, width, channels, noise=24):
    """Bytes: a wave a channel, and noise of the golden files' rule."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    rule = np.arange(height * width * channels, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rule = ((rule >> np.uint64(40)) % np.uint64(2 * noise + 1)).astype(np.float64) - noise
    planes = [127 + 100 * np.sin((c + 2) * x / 9 + y / (5 + c)) for c in range(channels)]
    return np.clip(np.stack(planes, -1) + rule.reshape(height, width, channels), 0, 255).astype(np.uint8)


def pictures():
    rgb = Image.fromarray(waves(90, 131, 3))
    alpha = Image.fromarray(waves(37, 23, 4), "RGBA")
    return {
        "rgb.png": rgb,
        "tall.png": Image.fromarray(waves(44, 27, 3)),
        "small.png": Image.fromarray(waves(9, 13, 3)),
        "one.png": Image.fromarray(np.array([[[10, 200, 60]]], np.uint8)),
        "alpha.png": alpha,
        "grey.png": Image.fromarray(waves(40, 51, 1)[..., 0]),
        "grey_alpha.png": Image.merge("LA", (alpha.getchannel(0), alpha.getchannel(3))),
        "palette.png": rgb.quantize(32),
        "bits16.png": Image.fromarray(waves(40, 51, 1)[..., 0].astype(np.uint16) * 257),
        "photo.jpg": (rgb, {"quality": 92, "subsampling": 0}),
        "progressive.jpg": (rgb, {"quality": 80, "progressive": True}),
        "grey.jpg": (rgb.convert("L"), {"quality": 90}),
    }


def preset(resize, crop, mean, std):
    return T.Compose([T.Resize(resize), T.CenterCrop(crop), T.ToTensor(), T.Normalize(mean, std)])


def last(tensor):
    return tensor.permute(1, 2, 0).contiguous()


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        picture, options = picture if isinstance(picture, tuple) else (picture, {})
        picture.save(FOLDER / name, **options)
    # Orientation 6: upright, the first row is at the right.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(waves(16, 24, 3, 0)).save(FOLDER / "turned.jpg", quality=95, exif=exif)

    small = preset(28, 24, **IMAGENET)
    expected = {}
    for path in sorted(FOLDER.glob("*.*g")):
        if path.stem in ("bits16", "turned"):
            continue  # PIL cuts 16 bits off at 255, and does not turn pictures upright.
        picture = Image.open(path)
        expected[f"imagenet_28_24/{path.name}"] = last(small(picture.convert("RGB")))
    for name in ("rgb", "tall", "small"):
        picture = Image.open(FOLDER / f"{name}.png")
        expected[f"imagenet_60_50x41/{name}.png"] = last(preset(60, (50, 41), **IMAGENET)(picture))
    # Every seventh row and column: all would be more than the rest of the folder.
    whole = last(ResNet18_Weights.IMAGENET1K_V1.transforms()(Image.open(FOLDER / "rgb.png")))
    expected["imagenet/rgb.png/every7"] = whole[::7, ::7].contiguous()
    grey = preset(28, 28, (0.5,), (0.25,))(Image.open(FOLDER / "rgb.png").convert("L"))
    expected["grey_28_28/rgb.png"] = last(grey)
    # A tensor in [0, 1] is not rounded in between.
    tensor = T.ToTensor()(Image.open(FOLDER / "rgb.png"))
    floats = T.Compose([T.Resize(28, antialias=True), T.CenterCrop(24), T.Normalize(**IMAGENET)])
    expected["imagenet_28_24/floats"] = last(floats(tensor))
    save_file(expected, FOLDER.with_suffix(".safetensors"))
    print(f"Pillow {__version__}, torch {torch.__version__}:", *(f"{n} {list(t.shape)}" for n, t in expected.items()), sep="\n  ")


if __name__ == "__main__":
    main()
