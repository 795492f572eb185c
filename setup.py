"""Build of the package and its extension `ldmlr._native`; metadata is in pyproject.toml.

The extension needs a C++17 compiler (gcc or clang) and pybind11, nothing else: torch is neither
imported nor linked, so one build serves every version of torch.

Environment
-----------
LDMLR_SANITIZE
    ``address``, ``undefined`` or ``thread``: build with that sanitizer (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# Every floating-point operation is written out where its rounding matters: the compiler must
# neither fuse nor reorder them. (-ffast-math would also switch denormals off for the process.)
FLAGS = [
    "-std=c++17",
    "-O3",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-g0",
]


def sanitizer() -> list[str]:
    """Return the flags of the sanitizer that LDMLR_SANITIZE asks for."""
    name = os.environ.get("LDMLR_SANITIZE")
    if not name:
        return []
    if name not in ("address", "undefined", "thread"):
        sys.exit(f"LDMLR_SANITIZE: unknown value {name!r}; choose address, undefined or thread")
    return [f"-fsanitize={name}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]


class BuildExt(build_ext):
    """Build with our flags after those of the Python installation, so that ours win."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link the extension."""
        ext.extra_compile_args = [*FLAGS, *sanitizer()]
        ext.extra_link_args = ["-pthread", *sanitizer()]
        super().build_extension(ext)


native = Extension(
    "ldmlr._native",
    sources=sorted(str(path) for folder in ("csrc", "csrc/cpu") for path in Path(folder).glob("*.cpp")),
    depends=sorted(str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc")),
    include_dirs=["csrc", pybind11.get_include()],
    language="c++",
)

setup(
    packages=[*find_packages(include=["ldmlr", "ldmlr.*"]), "ldmlr_cli"],
    package_dir={"ldmlr_cli": "cli"},
    package_data={"ldmlr": ["py.typed", "*.pyi"]},
    ext_modules=[native],
    cmdclass={"build_ext": BuildExt},
)
