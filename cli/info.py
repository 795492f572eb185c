"""``ldmlr info``: what is installed, what the machine has, and which kernels will run."""

from __future__ import annotations

from typing import Any

import click

from .options import emit, json_option


@click.command(name="info")
@json_option
def command(as_json: bool) -> None:
    """Versions, CPU instruction sets, CUDA devices and the kernels that will run.

    \b
    Example:
      ldmlr info
    """
    from ldmlr import results
    from ldmlr.device import cuda_devices
    from ldmlr.isa import choose
    from ldmlr.processor import number_type
    from ldmlr.sampler import backends as sampling
    from ldmlr.sampler.cpu import sampler as native

    chosen = number_type(choose())
    document: dict[str, Any] = {
        "versions": results.versions(),
        "hardware": results.hardware(),
        "extension": native.build_info(),
        "cuda_devices": _device_names(cuda_devices()),
        "backends": list(sampling.BACKENDS),
        "weights": {"auto": chosen.name, "reason": chosen.reason},
    }
    hardware = document["hardware"]
    lines = {
        "versions": _pairs(document["versions"]),
        "processor": f"{hardware['processor']}, {hardware['cores']} usable cores",
        "extension": _pairs(document["extension"]),
        "CUDA devices": ", ".join(document["cuda_devices"]) or "none",
        "sampling": f"{', '.join(document['backends'])}; auto takes the first that can run the model",
        "weights": f"auto is {chosen.name} on this processor: {chosen.reason}",
    }
    emit(document, as_json, "\n".join(f"{name:<12}  {text}" for name, text in lines.items()))


def _device_names(count: int) -> list[str]:
    if not count:
        return []
    import torch

    return [torch.cuda.get_device_name(number) for number in range(count)]


def _pairs(values: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return "/".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{name} {text(value)}" for name, value in values.items())
