"""Writes tests/golden/augment.safetensors: what torchvision's transforms of PIL images make of two small images.

    pip install torch torchvision safetensors
    python tests/golden/augment.py        # a second

Made with torchvision 0.29.2, Pillow 13.0.0. Images are waves and noise from the fixed rule of pictures.py. README.md lists the names. All
images are bytes, kept as float16, which has them exactly; the magnitudes of the op spaces are float32.
"""
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.functional as F
from pictures import waves
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}
# Angle, translation, scale, shear.
AFFINES = [
    (0.0, [0, 0], 1.0, [0.0, 0.0]), (0.0, [3, -2], 1.0, [0.0, 0.0]), (0.0, [0, 0], 0.5, [0.0, 0.0]), (0.0, [1, 0], 1.75, [0.0, 0.0]),
    (30.0, [0, 0], 1.0, [0.0, 0.0]), (-7.5, [-4, 5], 1.25, [0.0, 0.0]), (0.0, [0, 0], 1.0, [12.5, -20.0]), (100.0, [2, 1], 0.75, [-30.0, 8.0]),
]


def main():
    images = {"color": Image.fromarray(waves(16, 19, 3)), "gray": Image.fromarray(waves(16, 19, 1)[..., 0])}
    golden = {}

    def put(name, image):
        pixels = np.asarray(image)
        golden[name] = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).astype(np.float16))

    for kind, image in images.items():
        put(f"{kind}/image", image)
        factors = [0.0, 0.25, 0.75, 1.25, 1.9] if kind == "color" else [0.5, 1.5]
        for factor in factors:
            put(f"{kind}/adjust_brightness/{factor}", F.adjust_brightness(image, factor))
            put(f"{kind}/adjust_contrast/{factor}", F.adjust_contrast(image, factor))
            put(f"{kind}/adjust_saturation/{factor}", F.adjust_saturation(image, factor))
            put(f"{kind}/adjust_sharpness/{factor}", F.adjust_sharpness(image, factor))
        for hue in [-0.5, -0.1, 0.05, 0.3, 0.5] if kind == "color" else [0.2]:
            put(f"{kind}/adjust_hue/{hue}", F.adjust_hue(image, hue))
        for bits in [1, 4, 7]:
            put(f"{kind}/posterize/{bits}", F.posterize(image, bits))
        for threshold in [0, 99.5, 128, 256]:
            put(f"{kind}/solarize/{threshold}", F.solarize(image, threshold))
        put(f"{kind}/autocontrast", F.autocontrast(Image.eval(image, lambda x: 40 + x // 2)))
        put(f"{kind}/autocontrast_image", Image.eval(image, lambda x: 40 + x // 2))
        put(f"{kind}/equalize", F.equalize(image))
        put(f"{kind}/invert", F.invert(image))
    gray = images["gray"]
    for mode, interpolation in MODES.items():
        for i, (angle, translate, scale, shear) in enumerate(AFFINES):
            moved = F.affine(gray, angle, translate, scale, shear, interpolation, fill=51)
            put(f"affine/{mode}/{i}", moved)
            golden[f"affine/parameters/{i}"] = torch.tensor([angle, *translate, scale, *shear])
        for angle in [-135, -45, 0, 10, 90, 180, 200]:
            put(f"rotate/{mode}/{angle}", F.rotate(gray, angle, interpolation, fill=51))
        put(f"rotate_color/{mode}/33", F.rotate(images["color"], 33, interpolation))
    spaces = {
        "trivial_augment_wide": TrivialAugmentWide()._augmentation_space(31),
        "rand_augment": RandAugment()._augmentation_space(31, (24, 32)),
        "rand_augment_4": RandAugment()._augmentation_space(4, (24, 32)),
    }
    for space, ops in spaces.items():
        for op, (magnitudes, signed) in ops.items():
            golden[f"{space}/{op}/{'signed' if signed else 'unsigned'}"] = magnitudes.float().reshape(-1)
    for op in ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]:
        magnitudes = spaces["trivial_augment_wide"][op][0]
        for i in [1, 7, 22, 30]:
            for mode, interpolation in MODES.items():
                put(f"ops/{op}/{mode}/{i}", _apply_op(gray, op, -float(magnitudes[i]), interpolation, None))
    put("resized_crop/image", Image.fromarray(waves(41, 57, 3)))
    for top, left, height, width, rows, columns in [(3, 5, 30, 40, 12, 12), (10, 0, 9, 57, 12, 12), (0, 20, 41, 11, 16, 16)]:
        cropped = F.resized_crop(Image.fromarray(waves(41, 57, 3)), top, left, height, width, [rows, columns])
        put(f"resized_crop/{top}_{left}_{height}_{width}", cropped)
    path = Path(__file__).with_name("augment.safetensors")
    save_file(golden, path)
    print(f"{len(golden)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
