"""Recipes of stage 1 by name, and the configuration that one of them and some options make.

A recipe is the differences from the defaults of `BaselineConfig`; an option that is given goes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ldmlr.encoders.config import BaselineConfig
from ldmlr.errors import UsageError, nearest, opt

# Du et al. (CVPR 2023), factor 100, as their commands say: consistency 4 for CIFAR-100-LT, for CIFAR-10-LT
# 1 in one place and 4 in another. Their "ResNet-32" has four times the usual channels: --network
# resnet32x4, at 16 times the multiplications. They draw partners afresh from the whole set, and weigh the
# targets of CutMix by the share that was drawn, not by that of the pixels that were pasted.
GLMC: dict[str, Any] = {
    "loss": "weighted",
    "weight_power": 1.2,
    "cumulative": True,
    "mixup": 1.0,
    "cutmix": 1.0,
    "consistency": 4.0,
    "epochs": 200,
    "batch_size": 64,
    "lr": 0.01,
    "nesterov": False,
    "weight_decay": 5e-3,
    "warmup_epochs": 10.0,
}

# The CIFAR baseline of Han (ICML 2023) and its second step, which draws all classes equally often.
# Theirs draws max_c n_c images of each class per epoch, ours as many as there are training images.
WCDAS: dict[str, Any] = {
    "head": "wcdas",
    "mixup": 0.0,
    "augment": ("crop", "flip", "autoaugment"),
    "epochs": 700,
    "batch_size": 256,
    "lr": 0.2,
    "weight_decay": 1e-4,
    "warmup_epochs": 0.0,
    "head_epochs": 30,
    "head_lr": 0.005,
}

# Options that only some settings look at: given by the user without those, they are a mistake.
USES: dict[str, tuple[Callable[[BaselineConfig], bool], str]] = {
    "weight_power": (lambda c: c.loss == "weighted", opt("loss", "weighted")),
    "margin": (lambda c: c.loss == "ldam", opt("loss", "ldam")),
    "tau": (lambda c: c.loss == "binary", opt("loss", "binary")),
    "contrast_loss": (lambda c: c.contrast > 0, opt("contrast")),
    "contrast_temperature": (lambda c: c.contrast > 0, opt("contrast")),
    "nesterov": (lambda c: c.momentum > 0, opt("momentum")),
    "distil": (lambda c: c.teacher is not None, opt("teacher")),
    "teacher_network": (lambda c: c.teacher is not None, opt("teacher")),
    "temperature": (lambda c: c.teacher is not None, opt("teacher")),
    "cutmix_share": (
        lambda c: c.mixup > 0 and c.cutmix > 0 and not c.two_views,
        f"both {opt('mixup')} and {opt('cutmix')}, on one view",
    ),
    "crop_padding": (lambda c: "crop" in c.augment, opt("augment", "crop")),
    "cutout_size": (lambda c: "cutout" in c.augment, opt("augment", "cutout")),
    "randaugment_ops": (lambda c: "randaugment" in c.augment, opt("augment", "randaugment")),
    "randaugment_magnitude": (lambda c: "randaugment" in c.augment, opt("augment", "randaugment")),
    "milestones": (lambda c: c.schedule == "step", opt("schedule", "step")),
    "head_lr": (lambda c: c.head_epochs > 0, opt("head_epochs")),
    "head_weight_decay": (lambda c: c.head_epochs > 0, opt("head_epochs")),
}

# The same in a thirteenth of the multiplications, for a machine without a GPU: a seventh of the epochs,
# most of them on smaller images, with the weight decay of a short training.
WCDAS_SHORT: dict[str, Any] = {
    **WCDAS,
    "first_size": 0.5,
    "epochs": 100,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 5e-4,
    "warmup_epochs": 2.0,
    "head_epochs": 10,
    "head_weight_decay": 1e-4,
}

# Recipes by name: the differences from the defaults above.
PRESETS: dict[str, dict[str, Any]] = {
    "cifar-ce-mixup": {},
    "cifar-wcdas": WCDAS,
    "cifar-wcdas-short": WCDAS_SHORT,
    # Three tenths of the multiplications of cifar-wcdas; 84.05 on CIFAR-10-LT (docs/results.md).
    "cifar-wcdas-mixup": {
        **WCDAS_SHORT,
        "loss": "balanced-softmax",
        "mixup": 1.0,
        "first_size": 0.75,
        "epochs": 320,
    },
    "cifar-glmc": GLMC,
    # MaxNorm and its second step after Alshammari et al. (CVPR 2022): 10 epochs at 0.01 with weight
    # decay 0.1. They draw as the data are and weight the loss; drawing evenly and the bound are ours.
    "cifar-glmc-maxnorm": {
        **GLMC,
        "max_norm": 1.0,
        "head_epochs": 10,
        "head_lr": 0.01,
        "head_weight_decay": 0.1,
    },
    "imagenet-ce": {
        "network": "resnet10",
        "mixup": 0.0,
        "augment": ("resized-crop", "flip"),
        "epochs": 90,
        "batch_size": 256,
    },
    # ResNet-10 with WCDAS on ImageNet-LT (Han, ICML 2023): concentrations from sigmoid(-1), and a second
    # step of 30 epochs from a rate of 0.2. Theirs also jitters colours, and crops the test images out of 256.
    "imagenet-wcdas": {
        "network": "resnet10",
        "head": "wcdas",
        "concentration": -1.0,
        "mixup": 0.0,
        "augment": ("resized-crop", "flip"),
        "epochs": 90,
        "batch_size": 256,
        "lr": 0.4,
        "weight_decay": 1e-4,
        "warmup_epochs": 0.0,
        "head_epochs": 30,
        "head_lr": 0.2,
    },
    "digits": {
        "network": "small",
        "mixup": 0.0,
        "augment": ("crop",),
        "crop_padding": 1,
        "epochs": 80,
        "batch_size": 64,
        "warmup_epochs": 1.0,
        "precision": "float32",
    },
}


def default_preset(image_size: int) -> str:
    """Return the preset for images of this size (the longer side, pixels).

    ``digits`` up to 16 pixels, ``cifar-ce-mixup`` up to 64, ``imagenet-ce`` above.
    """
    if image_size <= 16:
        return "digits"
    return "cifar-ce-mixup" if image_size <= 64 else "imagenet-ce"


def baseline_config(preset: str, values: Mapping[str, Any] | None = None) -> BaselineConfig:
    """Return the configuration of a preset with some values replaced (None and () mean: not given)."""
    if preset not in PRESETS:
        raise UsageError(f"{opt('preset')}: unknown value {preset!r}; {nearest(preset, PRESETS)}")
    given = {key: value for key, value in (values or {}).items() if value is not None and value != ()}
    config = BaselineConfig.from_mapping({**PRESETS[preset], **given})
    for name, (used, where) in USES.items():
        if name in given and not used(config):
            raise UsageError(f"{opt(name)}: has no effect without {where}; leave it out")
    return config
