"""Types of the extension; csrc/bindings.cpp. Addresses are those of C-ordered arrays."""

from collections.abc import Callable, Sequence
from typing import ClassVar

compiler: str
padding: int

class Dtype:
    float32: ClassVar[Dtype]
    float16: ClassVar[Dtype]
    bfloat16: ClassVar[Dtype]
    int8: ClassVar[Dtype]

class Denoiser:
    dim: int
    hidden: int
    layers: int
    classes: int
    folded: int
    input: int
    first: int
    w1: int
    w2: int
    output: int
    b_in: int
    b2: int
    b_out: int
    bias_step: int
    bias_class: int
    quantise: int

class Transform:
    mean: int
    diagonal: int
    triangle: int
    floor: float

class SampleParams:
    def __init__(self, other: SampleParams = ...) -> None: ...

    net: Denoiser
    transform: Transform
    steps: int
    num_steps: int
    guidance: float
    seed: int
    first_row: int
    rows: int
    labels: int
    out: int
    out_dtype: Dtype

def philox4x32(c0: int, c1: int, c2: int, c3: int, k0: int, k1: int) -> tuple[int, int, int, int]: ...
def standard_normal(
    isa: str, seed: int, first_row: int, rows: int, dim: int, stream: int, step: int, out: int
) -> None: ...
def instruction_sets() -> list[tuple[str, bool, bool, bool]]: ...
def packed_size(outputs: int, inputs: int, dtype: Dtype) -> int: ...
def pack(
    isa: str, matrix: int, outputs: int, inputs: int, dtype: Dtype, factor: float, packed: int
) -> None: ...
def sample_scratch(isa: str, net: Denoiser, weights: Dtype, threads: int) -> int: ...
def sample(
    isa: str,
    params: SampleParams,
    weights: Dtype,
    threads: int,
    scratch: int,
    progress: Callable[[int], object] | None,
) -> None: ...
def peak(isa: str, weights: Dtype, iterations: int) -> float: ...
def denoise_step(
    isa: str,
    row: Sequence[float],
    x: int,
    x0: int,
    f: int,
    rows: int,
    dim: int,
    seed: int,
    first_row: int,
    step: int,
    threads: int,
) -> None: ...

cuda_architectures: str
cuda_sizes: tuple[int, int, int, int, int]

def cuda_sample(call: int) -> None: ...
def cuda_scratch_bytes(model: int, slab: int) -> int: ...
def cuda_forget(graph_key: int) -> None: ...
def cuda_denoise_step(params: int, device: int, stream: int) -> None: ...
def cuda_normals(params: int, out: int, device: int, stream: int) -> None: ...
