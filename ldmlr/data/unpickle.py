"""Reading the pickles of the Python CIFAR archives without running what they say.

A pickle may call any function it names. Here only the three names that those files hold are
known, and each is a stand-in of this module: it keeps the bytes of an array and checks them,
and no function of NumPy or of anything else is called. Any other name ends the reading
before it is used.
"""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from ldmlr.boundary import first_line
from ldmlr.errors import InputError

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _Type:
    """Stands in for ``numpy.dtype``."""

    __slots__ = ("name",)

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode("ascii", "replace") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment: bytes have neither."""


class _Array:
    """Stands in for ``numpy.ndarray``."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Type) or dtype.name not in ("u1", "uint8"):
            raise pickle.UnpicklingError("an array that is not uint8")
        if not isinstance(data, bytes) or any(type(n) is not int or n < 0 for n in shape):
            raise pickle.UnpicklingError("an array without its bytes")
        if math.prod(shape) != len(data):
            raise pickle.UnpicklingError("an array whose shape does not match its bytes")
        array = np.frombuffer(data, np.uint8)
        self.value = array.reshape(shape, order="F" if fortran else "C")


class _Reconstruct:
    """Stands in for the function that makes an empty array; a class, so that it has no attributes to set."""

    __slots__ = ()

    def __call__(self, *_: object) -> _Array:
        return _Array()


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name == "_reconstruct":
            return _Reconstruct()
        if module == "numpy" and name == "ndarray":
            return _Array
        if module == "numpy" and name == "dtype":
            return _Type
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a CIFAR file never does")


def load_pickle(data: bytes, where: str) -> dict[bytes, Any]:
    """Read a dictionary of uint8 arrays, lists, byte strings and whole numbers.

    Parameters
    ----------
    data
        The pickle, as written by Python 2.
    where
        File and member, for messages.

    Returns
    -------
    document
        Keys are bytes. Values are not looked into: check those that are used.

    Raises
    ------
    InputError
        The pickle is damaged or holds anything else; nothing of it was run.
    """
    try:
        document = _Restricted(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = first_line(error)
        raise InputError(
            f"{where}: not a CIFAR pickle, not read ({reason}); download the archive again"
        ) from None
    if not isinstance(document, dict):
        raise InputError(
            f"{where}: the pickle holds a {type(document).__name__}, not the dictionary of a CIFAR file; "
            "download the archive again"
        )
    return {key: value.value if isinstance(value, _Array) else value for key, value in document.items()}
