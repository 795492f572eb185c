"""Build of the package and its extension `ldmlr._native`; metadata is in pyproject.toml.

The extension needs a C++17 compiler (gcc or clang) and pybind11, nothing else: torch is neither
imported nor linked, so one build serves every version of torch. All instruction sets are built,
whatever the machine that builds; the one that runs is chosen at run time.

Environment
-----------
LDMLR_SANITIZE
    ``address``, ``undefined`` or ``thread``: build with that sanitizer (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# Every floating-point operation is written out where its rounding matters: the compiler must
# neither fuse nor reorder them. (-ffast-math would also switch denormals off for the process.)
# gcc 12 takes the undefined operands inside its own AVX-512 intrinsics for uninitialised values.
FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-pthread"]
FLAGS += ["-g0", "-Wall", "-Wextra", "-Wno-uninitialized"]

# One file per instruction set, each with its own flags; csrc/cpu/dispatch.cpp chooses among them.
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
VNNI = [*AVX512, "-mavx512vnni"]
INSTRUCTION_SETS = {"avx2": AVX2, "avx512": AVX512, "avx512vnni": VNNI, "avx512bf16": [*VNNI, "-mavx512bf16"]}


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
        """Compile the instruction-set files with their flags, then everything else, and link."""
        flags = [*FLAGS, *sanitizer()]
        if platform.machine() in ("x86_64", "AMD64"):
            for name, more in INSTRUCTION_SETS.items():
                ext.extra_objects += self.compiler.compile(
                    [f"csrc/cpu/denoise_{name}.cpp"],
                    output_dir=self.build_temp,
                    extra_postargs=[*flags, *more],
                )
        ext.extra_compile_args = flags
        ext.extra_link_args = ["-pthread", *sanitizer()]
        super().build_extension(ext)


special = {Path(f"csrc/cpu/denoise_{name}.cpp") for name in INSTRUCTION_SETS}
sources = {path for folder in ("csrc", "csrc/cpu") for path in Path(folder).glob("*.cpp")}
headers = {path for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc")}

native = Extension(
    "ldmlr._native",
    sources=sorted(str(path) for path in sources - special),
    depends=sorted(str(path) for path in headers | special),
    include_dirs=[pybind11.get_include()],
    language="c++",
)

setup(
    packages=[*find_packages(include=["ldmlr", "ldmlr.*"]), "ldmlr_cli"],
    package_dir={"ldmlr_cli": "cli"},
    package_data={"ldmlr": ["py.typed", "*.pyi"]},
    ext_modules=[native],
    cmdclass={"build_ext": BuildExt},
)
