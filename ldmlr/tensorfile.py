"""Reading safetensors: through a memory map, or from a copy in memory where the file system has no maps.

All of a model is needed, so an object elsewhere is fetched whole, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open
from safetensors.numpy import load

from ldmlr.files import no_maps, parse_json
from ldmlr.remote import as_path
from ldmlr.spool import local_copy


class TensorFile(Protocol):
    """An open file of tensors."""

    def metadata(self) -> dict[str, str] | None:
        """Return the texts of the header."""

    def keys(self) -> list[str]:
        """Return the names of the tensors."""

    def get_tensor(self, name: str) -> Any:
        """Return a tensor."""


class _Copy:
    """A file in memory, with what `safetensors.safe_open` has."""

    def __init__(self, data: bytes, framework: str) -> None:
        if framework == "pt":
            from safetensors.torch import load as load_tensors

            self._tensors: Mapping[str, Any] = load_tensors(data)
        else:
            self._tensors = load(data)
        # Loading has looked at the header: eight bytes of its length, and JSON.
        end = 8 + int.from_bytes(data[:8], "little")
        self._metadata: dict[str, str] | None = parse_json(data[8:end]).get("__metadata__")

    def metadata(self) -> dict[str, str] | None:
        return self._metadata

    def keys(self) -> list[str]:
        return list(self._tensors)

    def get_tensor(self, name: str) -> Any:
        return self._tensors[name]


@contextmanager
def open_tensors(path: str | Path, framework: str) -> Iterator[TensorFile]:
    """Open a safetensors file for a block.

    Parameters
    ----------
    path
        The file, or a URL.
    framework
        ``np`` for arrays, ``pt`` for tensors of PyTorch.

    Raises
    ------
    OSError, safetensors.SafetensorError
        It cannot be read, or is damaged.
    """
    with local_copy(as_path(path)) as place:
        try:
            mapped = safe_open(place, framework)
        except OSError as error:
            if not no_maps(error, place):
                raise
            yield _Copy(place.read_bytes(), framework)
            return
        with mapped as file:
            yield file
