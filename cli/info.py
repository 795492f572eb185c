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
    import torch

    from ldmlr import native, results, sampling

    build = native.build_info()
    document: dict[str, Any] = {
        "versions": results.versions(),
        "hardware": results.hardware(),
        "extension": build,
        "cuda_devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "backends": sampling.available_backends(),
        "default_backend": sampling.resolve_backend("auto"),
    }
    lines = [
        "versions      " + ", ".join(f"{k} {v}" for k, v in document["versions"].items()),
        f"processor     {document['hardware']['processor']}, {document['hardware']['cores']} usable cores",
        "extension     " + ", ".join(f"{k} {v}" for k, v in build.items()),
        "CUDA devices  " + (", ".join(document["cuda_devices"]) or "none"),
        f"sampling      {document['default_backend']} (available: {', '.join(document['backends'])})",
    ]
    emit(document, as_json, "\n".join(lines))
