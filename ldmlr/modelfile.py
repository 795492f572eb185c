"""Model files: safetensors whose header holds the whole configuration; never a pickle.

The header has one key, ``ldmlr``, with a JSON document: format, schema version, a sha256
of the tensors, the configuration and the statistics that are not arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ldmlr.errors import InputError, LdmlrError
from ldmlr.files import check_input, check_output, parse_json, write_bytes

FORMAT = "ldmlr-diffusion"
SCHEMA_VERSION = 1
KEY = "ldmlr"


def checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes of the tensors, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def write(path: Path, header: Mapping[str, Any], tensors: dict[str, torch.Tensor], overwrite: bool) -> None:
    """Write header and tensors, whole or not at all."""
    check_output(path, overwrite)
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    document = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "sha256": checksum(flat), **header}
    write_bytes(path, save(flat, metadata={KEY: json.dumps(document, sort_keys=True)}), overwrite)


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the header and the tensors of a model file.

    Raises
    ------
    InputError
        The file is missing, no safetensors file, not a model of this package, of a newer
        version, or damaged.
    """
    check_input(path, "model file")
    with damaged(path):
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise InputError(
                    f"{path}: a safetensors file, but no diffusion model; give one made by ldmlr diffuse"
                )
            header: dict[str, Any] = parse_json(text)
            kind = header.get("format") if isinstance(header, dict) else None
            if kind != FORMAT:
                raise InputError(f"{path}: holds {kind!r}, expected {FORMAT!r}; check the path")
            if header["schema_version"] > SCHEMA_VERSION:
                raise InputError(
                    f"{path}: written by a newer version (schema {header['schema_version']}, "
                    f"this one reads up to {SCHEMA_VERSION}); upgrade ldmlr"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if checksum(tensors) != header["sha256"]:
            raise InputError(
                f"{path}: the checksum does not match; the file is damaged, make or copy it again"
            )
    return header, tensors


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turn whatever a damaged model file causes into one line that names it."""
    try:
        yield
    except LdmlrError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: damaged model file ({error}); make or copy it again") from None
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError, OSError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable model file ({detail}); make or copy it again") from None
