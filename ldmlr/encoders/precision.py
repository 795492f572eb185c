"""Arithmetic of the training: float32, or autocast to a shorter type."""

from __future__ import annotations

import torch
from torch import nn

from ldmlr.encoders.config import BaselineConfig
from ldmlr.errors import UsageError, opt

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def features_of(network: nn.Module, images: torch.Tensor, config: BaselineConfig) -> torch.Tensor:
    """Return float32 features of normalised images, in the arithmetic and layout of a training."""
    # Pixels come with the channels last, and every layer would follow its input.
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    images = images.contiguous(memory_format=layout)
    short = config.precision != "float32"
    with torch.autocast(images.device.type, DTYPES[config.precision], enabled=short):
        features: torch.Tensor = network(images)
    return features.float()


def resolve_precision(name: str, device: torch.device) -> str:
    """Return ``float32``, ``bfloat16`` or ``float16`` for a device.

    ``auto`` takes bfloat16 where the processor or the GPU multiplies it in hardware, float16
    (with a scaled loss) on GPUs that have only that, and float32 elsewhere.

    Raises
    ------
    UsageError
        float16 was asked for on the CPU, where its small range has no scaler.
    """
    if name == "float16" and device.type == "cpu":
        raise UsageError(
            f"{opt('precision')}: float16 needs a CUDA device; choose bfloat16 or float32 on the CPU"
        )
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"
