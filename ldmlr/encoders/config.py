"""Configuration of stage 1; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, counted, nearest, opt
from ldmlr.heads.config import HEADS

NETWORKS = ("resnet32", "resnet32x2", "resnet32x4", "resnet10", "resnet50", "small")
LOSSES = ("cross-entropy", "balanced-softmax", "weighted", "ldam", "binary")
CONTRASTS = ("supervised", "balanced", "binary")
# In the order in which they are applied.
AUGMENTATIONS = ("resized-crop", "crop", "flip", "autoaugment", "randaugment", "cutout")
VIEWS = ("weak", "strong")


@dataclasses.dataclass(frozen=True)
class BaselineConfig(Config):
    """How a baseline network is trained. The defaults are those of the preset ``cifar-ce-mixup``."""

    network: str = option(
        "resnet32",
        "resnet32, resnet32x2, resnet32x4 (CIFAR), resnet10, resnet50 (large images), small (digits), or "
        "module:factory, which is imported and run.",
        metavar="NAME",
    )
    init: str | None = option(
        None,
        "Trained baseline (folder or file) whose weights to start from; its head too, if the classes and "
        "--head are the same.",
        metavar="MODEL",
    )
    teacher: str | None = option(
        None,
        "Trained baseline (folder or file) of the same classes whose logits to match beside the labels.",
        metavar="MODEL",
    )
    teacher_network: str | None = option(
        None,
        "The teacher's network, where it is module:factory other than --network; it is imported and run.",
        metavar="NAME",
    )
    distil: float = option(
        0.5, "Share of --teacher in the loss; the labels have the rest.", above=0, maximum=1
    )
    temperature: float = option(2.0, "Logits are divided by it before they are matched.", above=0)
    head: str = option("linear", "Classification head.", choices=HEADS)
    concentration: float = option(0.0, "First concentration of a wcdas head, before the sigmoid.")
    loss: str = option(
        "cross-entropy",
        "Loss; balanced-softmax adds the log prior, weighted weights classes, ldam gives rare ones a margin, "
        "binary asks of each class by itself.",
        choices=LOSSES,
    )
    weight_power: float = option(1.0, "Class weight n_c^-power of --loss weighted.", minimum=0)
    margin: float = option(
        15.0, "Margin of the rarest class for --loss ldam, in logits.", above=0, maximum=80
    )
    tau: float = option(
        1.0, "Strength of the prior of each class in --loss binary; 0: all classes alike.", minimum=0
    )
    uniformity: float = option(
        0.0, "Weight of a loss that pushes the class weights of the head apart; 0 is off.", minimum=0
    )
    cumulative: bool = option(
        False, "Go over from cross-entropy (with a head of its own) to --loss along (epoch / epochs)^2."
    )
    mixup: float = option(1.0, "Mixup: alpha of the Beta distribution; 0 is off.", minimum=0)
    cutmix: float = option(0.0, "CutMix: alpha of the Beta distribution; 0 is off.", minimum=0)
    cutmix_share: float = option(
        0.5, "Share of the batches that CutMix takes where mixup is on too.", minimum=0, maximum=1
    )
    consistency: float = option(
        0.0,
        "Weight of the consistency of two views of an image, one for mixup and one for CutMix; 0: one view.",
        minimum=0,
    )
    contrast: float = option(
        0.0,
        "Weight of a loss that draws features of a class together and others apart, over two views of an "
        "image; 0 is off.",
        minimum=0,
    )
    contrast_loss: str = option(
        "supervised",
        "That loss: supervised; balanced, all classes with one say; or binary, pair by pair.",
        choices=CONTRASTS,
    )
    contrast_temperature: float = option(0.1, "The cosines of that loss are divided by it.", minimum=0.01)
    augment: tuple[str, ...] = option(
        ("crop", "flip"),
        f"Augmentation, given once for each of {', '.join(AUGMENTATIONS)}; or none.",
        metavar="NAME",
    )
    crop_padding: int = option(4, "Padding of crop, pixels.", minimum=0)
    cutout_size: int = option(16, "Side of the square of cutout, pixels.", minimum=1)
    randaugment_ops: int = option(2, "Operations of randaugment for each image.", minimum=1)
    randaugment_magnitude: int = option(9, "Strength of randaugment, 0 to 30.", minimum=0, maximum=30)
    first_size: float = option(
        1.0,
        "Side of the images in the first epoch, a share of the full one; it grows until 4/5 of the epochs.",
        above=0,
        maximum=1,
    )
    epochs: int = option(200, "Passes over the training images.", minimum=1)
    batch_size: int = option(128, "Images in a batch.", minimum=2)
    lr: float = option(0.1, "Learning rate after the warm-up (SGD).", above=0)
    momentum: float = option(0.9, "Momentum.", minimum=0, maximum=1)
    nesterov: bool = option(True, "Nesterov's momentum, or the plain one.")
    weight_decay: float = option(5e-4, "Weight decay, on all parameters.", minimum=0)
    max_norm: float = option(
        0.0, "Bound on the norm of each class's weights in a linear head, kept after every step; 0 is off.",
        minimum=0,
    )  # fmt: skip
    schedule: str = option("cosine", "Learning rate: cosine to 0, or steps.", choices=("cosine", "step"))
    milestones: tuple[int, ...] = option(
        (160, 180), "Epochs at which the step schedule divides by ten (once each).", minimum=1,
        metavar="EPOCH",
    )  # fmt: skip
    warmup_epochs: float = option(5.0, "Epochs of linear warm-up, at most a quarter of all.", minimum=0)
    head_epochs: int = option(
        0, "Afterwards train the head alone for so many epochs, drawing all classes equally often.", minimum=0
    )
    head_lr: float = option(0.005, "Learning rate of those epochs, falling to 0 along a cosine.", above=0)
    head_weight_decay: float | None = option(
        None, "Weight decay of those epochs.  [default: --weight-decay]", minimum=0
    )
    ema: float = option(0.0, "Decay per step of averaged weights, such as 0.999; 0 is off.", minimum=0)
    precision: str = option(
        "auto",
        "Arithmetic; auto is bfloat16 where the processor has it.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    channels_last: bool = option(True, "Keep images and weights with the channels last.")
    val_fraction: float = option(
        0.0, "Fraction of each class's training images held out as val.", minimum=0, maximum=0.5
    )

    def __post_init__(self) -> None:
        names: object = self.augment
        if isinstance(names, str):
            names = (names,)
        if isinstance(names, list | tuple):
            words = [word.strip() for name in names for word in str(name).split(",")]
            object.__setattr__(self, "augment", tuple(sort_augmentations(words)))
        super().__post_init__()
        if self.ema >= 1:
            raise UsageError(f"{opt('ema')}: must be below 1, not {self.ema!r}")
        if self.concentration and self.head != "wcdas":
            raise UsageError(
                f"{opt('concentration')}: a {self.head} head has none; use {opt('head', 'wcdas')} or leave "
                "it out"
            )
        if self.max_norm and self.head != "linear":
            raise UsageError(
                f"{opt('max_norm')}: only the direction of the weights of a {self.head} head counts; "
                "leave it out"
            )
        if self.two_views and self.mixup and self.cutmix and self.mixup != self.cutmix:
            name = "consistency" if self.consistency else "contrast"
            raise UsageError(
                f"{opt(name)}: both views share one draw, so {opt('mixup')} {self.mixup:g} and "
                f"{opt('cutmix')} {self.cutmix:g} must be equal (or one of them 0)"
            )
        if self.cumulative and self.loss == "cross-entropy":
            raise UsageError(
                f"{opt('cumulative')}: goes over to {opt('loss')}; choose one other than cross-entropy"
            )

    @property
    def two_views(self) -> bool:
        """Whether each image is shown twice in a step, augmented in two ways."""
        return self.consistency > 0 or self.contrast > 0


def sort_augmentations(names: list[str]) -> list[str]:
    """Return the augmentations in the order of application, or raise an error naming the nearest."""
    for name in names:
        if name not in (*AUGMENTATIONS, "none"):
            raise UsageError(
                f"{opt('augment')}: unknown value {name!r}; {nearest(name, (*AUGMENTATIONS, 'none'))}"
            )
    if "none" in names and len(set(names)) > 1:
        raise UsageError(f"{opt('augment')}: none excludes the others; leave it out")
    if "crop" in names and "resized-crop" in names:
        raise UsageError(f"{opt('augment')}: crop and resized-crop exclude each other; leave one out")
    return [name for name in AUGMENTATIONS if name in names]


@dataclasses.dataclass(frozen=True)
class EncodeConfig(Config):
    """How images are encoded."""

    views: int = option(0, "Also keep K augmented views of the training rows.", minimum=0, metavar="K")
    view_kinds: tuple[str, ...] = option(
        (), "Kind of each view, once per view: weak or strong.  [default: half weak, half strong]",
        metavar="KIND",
    )  # fmt: skip
    mirror: bool = option(
        False, "Average the features of each image, and of each view, with those of its mirror image."
    )
    view_flip: str = option(
        "auto", "Mirror views; auto: if the encoder was trained so.", choices=("auto", "yes", "no")
    )
    batch_size: int = option(256, "Images in a batch.", minimum=1)
    dtype: str = option("float32", "How features are kept.", choices=("float32", "float16", "bfloat16"))
    mean: tuple[float, ...] = option(
        (),
        "Pixel mean per channel, for an encoder that is no baseline: of pixels 0 .. 255, or 0 .. 1 if no "
        "value of both is above 1.  [default: its own, else ImageNet's]",
        metavar="X",
    )
    std: tuple[float, ...] = option((), "Pixel deviation per channel, likewise.", metavar="X")
    network: str | None = option(
        None,
        "Network of a baseline that was trained with module:factory, named again: it is imported and run, "
        "which a file alone cannot ask for.",
        metavar="NAME",
    )

    weights: Path | None = option(
        None, "Weights of timm:NAME or open_clip:NAME.  [default: those of the hub or its cache]",
        metavar="FILE",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.view_kinds:
            if kind not in VIEWS:
                raise UsageError(f"{opt('view_kinds')}: unknown value {kind!r}; {nearest(kind, VIEWS)}")
        if self.view_kinds and len(self.view_kinds) != self.views:
            raise UsageError(
                f"{opt('view_kinds')}: {counted(len(self.view_kinds), 'kind')} for {opt('views')} "
                f"{self.views}; give one per view"
            )
        if (len(self.mean) or len(self.std)) and len(self.mean) != len(self.std):
            raise UsageError(f"{opt('mean')} and {opt('std')}: give both, one value per channel each")
        if any(value <= 0 for value in self.std):
            raise UsageError(f"{opt('std')}: every value must be above 0")

    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each view: by default the first half weak (one more of an odd K)."""
        if self.view_kinds:
            return self.view_kinds
        weak = (self.views + 1) // 2
        return ("weak",) * weak + ("strong",) * (self.views - weak)
