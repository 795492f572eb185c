"""Build of the package and its extension `ldmlr._native`; metadata is in pyproject.toml.

The extension needs a C++17 compiler (gcc 11, clang 12 or newer) and pybind11, nothing else: torch is neither
imported nor linked, so one build serves every version of torch. All instruction sets are built,
whatever the machine that builds; the one that runs is chosen at run time. All files are compiled side by
side, as many at a time as there are cores: one after the other they take minutes.

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
MAX_JOBS
    Compilers at a time; default: the number of cores.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
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
KINDS = "denoise", "train", "softmax"
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


def nvcc_commands(nvcc: str, archs: list[str]) -> dict[str, list[str]]:
    """Return what compiles each CUDA source, the slowest files of the build and so the first to start."""
    flags = [*NVCC_FLAGS, f'-DLDMLR_CUDA_TARGETS="{" ".join(archs)}"']
    flags += [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    # For later devices, which the code of a target with a letter does not run on.
    if plain := min((arch for arch in archs if arch.isdigit()), key=int, default=None):
        flags.append(f"-gencode=arch=compute_{plain},code=compute_{plain}")
    return {str(source): [nvcc, *flags] for source in sorted(Path("csrc/cuda").glob("*.cu"))}


def cuda_library_dirs(nvcc: str) -> list[str]:
    """Return the folders of the CUDA libraries, which nvcc knows."""
    run = subprocess.run([nvcc, "--dryrun", "csrc/cuda/fused.cu"], capture_output=True, text=True, check=True)
    line = re.search(r"LIBRARIES=(.*)", run.stderr)
    return re.findall(r'"?-L([^"\s]+)"?', line[1]) if line else []


def workers() -> int:
    """Return how many compilers run at a time."""
    text = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    if not text.isdigit() or int(text) < 1:
        sys.exit(f"MAX_JOBS: expected a whole number from 1, not {text!r}")
    return int(text)


def compile_all(commands: dict[str, list[str]]) -> None:
    """Run the compiler of each source; what it says is shown whole, and one that fails ends the build."""
    with ThreadPoolExecutor(workers()) as pool:
        running = {
            pool.submit(subprocess.run, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT): source
            for source, command in commands.items()
        }
        for future in as_completed(running):
            source = running[future]
            try:
                done = future.result()
            except OSError as error:
                pool.shutdown(cancel_futures=True)
                sys.exit(f"{error.filename}: {error.strerror}; a C++17 compiler is needed (gcc 11, clang 12)")
            print(f"{source}\n{done.stdout.decode(errors='replace')}", end="", flush=True)
            if done.returncode:
                pool.shutdown(cancel_futures=True)
                hint = "; LDMLR_CUDA=0 leaves the CUDA kernels out" if source.endswith(".cu") else ""
                sys.exit(f"{source}: the compiler failed (see above){hint}")


class BuildExt(build_ext):
    """Compile every source by a command of its own and link the objects."""

    def build_extension(self, ext: Extension) -> None:
        """Build with our flags after those of the Python installation, so that ours win."""
        nvcc = find_nvcc()
        include = [f"-I{folder}" for folder in (*self.compiler.include_dirs, *ext.include_dirs)]
        compiler = [*self.compiler.compiler_so_cxx, *include, *FLAGS, *sanitizer()]
        commands = nvcc_commands(nvcc, cuda_archs()) if nvcc else {}
        for source in [*ext.sources, *([] if nvcc else ["csrc/cuda/stub.cpp"])]:
            name = re.sub(rf"^({'|'.join(KINDS)})_", "", Path(source).stem)
            commands[source] = [*compiler, *INSTRUCTION_SETS.get(name, [])]
        objects = {source: Path(self.build_temp, source).with_suffix(".o") for source in commands}
        for source, target in objects.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            commands[source] += ["-c", source, "-o", str(target)]
        compile_all(commands)
        # Another copy of the CUDA runtime in the process, torch's, must not meet these symbols.
        self.compiler.link_shared_object(
            [str(target) for target in objects.values()],
            self.get_ext_fullpath(ext.name),
            libraries=["cudart_static", "rt", "dl"] if nvcc else [],
            library_dirs=cuda_library_dirs(nvcc) if nvcc else [],
            extra_postargs=["-pthread", *sanitizer(), *(["-Wl,--exclude-libs,ALL"] if nvcc else [])],
            target_lang="c++",
        )


SUFFIXES = (".cpp", ".h", ".inc", ".cu", ".cuh", ".sh")
sources = {str(path) for folder in ("csrc", "csrc/cpu") for path in Path(folder).glob("*.cpp")}
if platform.machine() not in ("x86_64", "AMD64"):
    sources -= {f"csrc/cpu/{kind}_{name}.cpp" for kind in KINDS for name in INSTRUCTION_SETS}

native = Extension(
    "ldmlr._native",
    sources=sorted(sources),
    # Also what the archive of sources holds: with the stub that takes the place of the CUDA kernels.
    depends=sorted(str(p) for p in Path("csrc").rglob("*") if p.suffix in SUFFIXES),
    include_dirs=[pybind11.get_include()],
    language="c++",
)

setup(
    packages=[*find_packages(include=["ldmlr", "ldmlr.*"]), "ldmlr_cli"],
    package_dir={"ldmlr_cli": "cli"},
    package_data={"ldmlr": ["py.typed", "*.pyi"], "ldmlr.report": ["*.css", "*.j2"]},
    ext_modules=[native],
    cmdclass={"build_ext": BuildExt},
)
