"""Looking at an exported program (``.pt2``) before PyTorch makes one of it.

Such a file is a graph of operators by name, and PyTorch's loader follows any name: ``torch.os.system`` is
one. It also evaluates the expressions of sizes as Python. So only operators (``torch.ops.NAMESPACE.NAME``),
arithmetic on sizes, and expressions of numbers, symbols and the functions of sizes are let through. PyTorch
does not promise that its loader withstands a hostile file, and a program is run: this keeps plain traps out,
not every one.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldmlr.errors import InputError
from ldmlr.files import parse_json

_NAME = r"[A-Za-z_]\w*"
_TARGETS = re.compile(
    rf"torch\.ops\.(?!_)\w+\.{_NAME}(\.{_NAME})?|torch\.sym_\w+|torch\._sym_\w+|math\.[a-z0-9]+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
# What sizes are made of: symbols such as s0 and u1, numbers, and the functions that tracing makes.
_WORD = re.compile(r"[A-Za-z_]\w*")
_SIZE_WORDS = re.compile(
    r"[suz]f?\d+|zuf\d+|Max|Min|Mod|Abs|Pow|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|True|False|oo|int_oo|zoo|nan"
    r"|Integer|Rational|Float|Symbol|floor|ceiling|sqrt|exp|log|cos|sin|FloorDiv|ModularIndexing|PythonMod"
    r"|CleanDiv|CeilToInt|FloorToInt|CeilDiv|IntTrueDiv|FloatTrueDiv|TrueDiv|Where|ToFloat|TruncToInt"
    r"|TruncToFloat|RoundToInt|RoundDecimal|Identity|IsNonOverlappingAndDenseIndicator|LShift|RShift"
    r"|positive|nonnegative|negative|nonpositive|integer|real|finite|evaluate|FloatPow|PowByNatural|OpaqueUnaryFn_\w+|BitwiseFn_\w+|e"
)
_SIZE_SIGNS = re.compile(r"[\w\s+\-*/%(),.<>=!&|~']*")
# A graph of the largest encoders has a few megabytes.
_LONGEST_GRAPH = 256 << 20


def check_program(path: Path) -> None:
    """Refuse a program with anything but operators and sizes in its graph.

    Raises
    ------
    InputError
        The file is no zip archive, is damaged, or names something else.
    """
    where = f"{path}: not a program written by torch.export.save"
    try:
        with zipfile.ZipFile(path) as archive:
            graphs = [entry for entry in archive.infolist() if entry.filename.endswith(".json")]
            if sum(entry.file_size for entry in graphs) > _LONGEST_GRAPH:
                raise ValueError("its graph is longer than that of any encoder")
            for entry in graphs:
                for key, value in _texts(parse_json(archive.read(entry))):
                    _check(key, value)
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{where} ({error}); export it again") from None


def _check(key: str, value: str) -> None:
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    if key == "target" and not (_TARGETS.fullmatch(value) and ".__" not in value):
        raise ValueError(f"it calls {shown!r}, which is no operator of torch")
    if key == "expr_str":
        words = _WORD.findall(value)
        plain = _SIZE_SIGNS.fullmatch(value) and not re.search(r"\.\s*[A-Za-z_]", value)
        if not plain or not all(_SIZE_WORDS.fullmatch(word) for word in words):
            raise ValueError(f"the size {shown!r} is no arithmetic")


def _texts(document: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts of a document, each after the key it stands under."""
    waiting = [(key, document)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, entry) for entry in value]
