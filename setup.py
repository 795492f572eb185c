"""Build of the package and its extension `ldmlr._native`; metadata is in pyproject.toml.

The extension needs a C++17 compiler (gcc 11, clang 12 or newer) and pybind11, nothing else: torch is neither
imported nor linked, so one build serves every version of torch. All instruction sets are built,
whatever the machine that builds; the one that runs is chosen at run time.

Environment
-----------
LDMLR_SANITIZE
    ``address``, ``undefined`` or ``thread``: build with that sanitizer (see CONTRIBUTING.md).
LDMLR_CUDA
    ``auto`` (default): build the CUDA kernels where there is an ``nvcc``; ``1``: build them or fail;
    ``0``: leave them out. Whether the machine that builds has a GPU plays no part.
LDMLR_CUDA_ARCHS
    Targets of the CUDA kernels, such as ``80,90a`` (default). Later devices compile the smallest one
    without a letter at start.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
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
BF16 = [*VNNI, "-mavx512bf16"]
AMX = [*BF16, "-mamx-tile", "-mamx-bf16", "-mamx-int8"]
INSTRUCTION_SETS = {"avx2": AVX2, "avx512": AVX512, "avx512vnni": VNNI, "avx512bf16": BF16, "amx": AMX}


def sanitizer() -> list[str]:
    """Return the flags of the sanitizer that LDMLR_SANITIZE asks for."""
    name = os.environ.get("LDMLR_SANITIZE")
    if not name:
        return []
    if name not in ("address", "undefined", "thread"):
        sys.exit(f"LDMLR_SANITIZE: unknown value {name!r}; choose address, undefined or thread")
    return [f"-fsanitize={name}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]


# -fmad=false: as for the CPU, the compiler must not fuse a product and a sum that were written apart.
NVCC_FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Werror", "all-warnings"]
NVCC_FLAGS += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-ffp-contract=off,-pthread"]
CUDA_ARCHS = "80,90a"


def find_nvcc() -> str | None:
    """Return the nvcc to build with, None for a build without CUDA."""
    wanted = os.environ.get("LDMLR_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        sys.exit(f"LDMLR_CUDA: unknown value {wanted!r}; choose auto, 0 or 1")
    home = os.environ.get("CUDA_HOME")
    found = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    if wanted == "1" and not found:
        where = f"{home}/bin (CUDA_HOME)" if home else "PATH"
        sys.exit(
            f"LDMLR_CUDA=1: there is no nvcc in {where}; install the CUDA toolkit, or use LDMLR_CUDA=auto"
        )
    return None if wanted == "0" else found


def cuda_archs() -> list[str]:
    """Return the targets of the CUDA kernels."""
    text = os.environ.get("LDMLR_CUDA_ARCHS") or CUDA_ARCHS
    archs = re.split(r"[\s,;]+", text.strip())
    found = [re.fullmatch(r"(\d{2,3})[a-z]?", arch) for arch in archs]
    numbers = [int(arch[1]) for arch in found if arch]
    # Of two targets of a number, the one without a letter has no wgmma, and the driver may take it.
    if len(set(numbers)) < len(archs) or min(numbers) < 80:
        sys.exit(f"LDMLR_CUDA_ARCHS: expected distinct numbers from 80 such as {CUDA_ARCHS!r}, not {text!r}")
    return archs


def cuda_library_dirs(nvcc: str) -> list[str]:
    """Return the folders of the CUDA libraries, which nvcc knows."""
    run = subprocess.run([nvcc, "--dryrun", "csrc/cuda/fused.cu"], capture_output=True, text=True, check=True)
    line = re.search(r"LIBRARIES=(.*)", run.stderr)
    return re.findall(r'"?-L([^"\s]+)"?', line[1]) if line else []


class BuildExt(build_ext):
    """Build with our flags after those of the Python installation, so that ours win."""

    def build_extension(self, ext: Extension) -> None:
        """Compile the instruction-set files with their flags, then everything else, and link."""
        flags = [*FLAGS, *sanitizer()]
        nvcc = find_nvcc()
        archs = cuda_archs() if nvcc else []
        if platform.machine() in ("x86_64", "AMD64"):
            for name, more in INSTRUCTION_SETS.items():
                ext.extra_objects += self.compiler.compile(
                    [f"csrc/cpu/denoise_{name}.cpp"],
                    output_dir=self.build_temp,
                    extra_postargs=[*flags, *more],
                )
        ext.extra_compile_args = flags
        ext.extra_link_args = ["-pthread", *sanitizer()]
        if nvcc:
            self.build_cuda(ext, nvcc, archs)
        else:
            ext.sources = [*ext.sources, "csrc/cuda/stub.cpp"]
        super().build_extension(ext)

    def build_cuda(self, ext: Extension, nvcc: str, archs: list[str]) -> None:
        """Compile the CUDA files and link the runtime statically: a machine without CUDA can load it."""
        flags = [*NVCC_FLAGS, f'-DLDMLR_CUDA_TARGETS="{" ".join(archs)}"']
        flags += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        # For later devices, which the code of a target with a letter does not run on.
        if plain := min((arch for arch in archs if arch.isdigit()), key=int, default=None):
            flags.append(f"-gencode=arch=compute_{plain},code=compute_{plain}")
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        running = {}
        for source in sorted(Path("csrc/cuda").glob("*.cu")):
            target = str(folder / f"{source.stem}.o")
            print(f"nvcc {source} for {' '.join(archs)}", flush=True)
            running[target] = subprocess.Popen([nvcc, *flags, "-c", str(source), "-o", target])
        if any([process.wait() for process in running.values()]):
            sys.exit("nvcc failed (see above); install with LDMLR_CUDA=0 to leave the CUDA kernels out")
        ext.extra_objects += running
        ext.library_dirs = cuda_library_dirs(nvcc)
        ext.libraries = ["cudart_static", "rt", "dl"]
        # Another copy of the runtime in the process, torch's, must not meet these symbols.
        ext.extra_link_args.append("-Wl,--exclude-libs,ALL")


special = {Path(f"csrc/cpu/denoise_{name}.cpp") for name in INSTRUCTION_SETS}
sources = {path for folder in ("csrc", "csrc/cpu") for path in Path(folder).glob("*.cpp")}
headers = {path for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inc", ".cu", ".cuh")}

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
    package_data={"ldmlr": ["py.typed", "*.pyi"], "ldmlr.report": ["*.css"]},
    ext_modules=[native],
    cmdclass={"build_ext": BuildExt},
)
