"""The whole solver loop as one graph of other runtimes: torch.compile, ONNX Runtime and OpenVINO.

The same function as the native sampler: noise in, rows out, all steps, guidance and the transform included.
Noise is made once, which the native sampler makes anew for every row. The runtimes are optional.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ldmlr.bench.torch_sampler import BATCH
from ldmlr.sampler.reference import additive
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

COMPILER = "torch.compile"

# noise [N, D] and labels [N] -> rows [N, D]
Run = Callable[[Tensor, Tensor], object]


class Loop(nn.Module):
    """All steps of a deterministic solver, from noise to features, for additive networks."""

    def __init__(self, spec: SamplerSpec) -> None:
        super().__init__()
        self.rows, self.guidance, self.null, self.k = spec.rows, spec.guidance, spec.num_classes, spec.k
        self.floor = float(spec.floor) if np.ndim(spec.floor) == 0 else -np.inf
        tables: Any = spec.tables
        self.names = tuple(tables.__dataclass_fields__)
        for name in self.names:
            self.register_buffer(name, torch.from_numpy(np.asarray(getattr(tables, name))))
        self.register_buffer("mean", torch.from_numpy(spec.mean).float())
        self.register_buffer("scale", torch.from_numpy(spec.scale).float())

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Return rows ``[N, D]`` of classes ``[N]``."""
        w: dict[str, Tensor] = {name: getattr(self, name) for name in self.names}

        def predict(x: Tensor, step: int) -> Tensor:
            h = torch.addmm(w["b_in"], x, w["w_in"].T)
            f = additive(w, h, step, labels)
            if self.guidance == 1:
                return f
            f_null = additive(w, h, step, torch.full_like(labels, self.null))
            return f_null + self.guidance * (f - f_null)

        x = solve(self.rows, noise, predict, lambda step: torch.zeros_like(noise))
        mean, scale = self.get_buffer("mean"), self.get_buffer("scale")
        return (mean[labels] + self.k * (x @ scale.T)).clamp_min(self.floor)


class Peer:
    """A graph of one runtime that draws rows batch by batch.

    Parameters
    ----------
    spec
        What to draw from.
    name
        A key of `PEERS`.
    threads
        CPU threads.
    """

    def __init__(self, spec: SamplerSpec, name: str, threads: int) -> None:
        self.dim = spec.dim
        self.noise = torch.randn(BATCH, spec.latent, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(BATCH) % spec.num_classes
        self.run = PEERS[name](Loop(spec).eval(), self.noise, labels, threads)

    @torch.no_grad()
    def __call__(self, labels: npt.NDArray[np.int64]) -> float:
        """Draw one row per label, whole batches alone, and return how many."""
        whole = len(labels) // BATCH * BATCH
        for start in range(0, whole, BATCH):
            self.run(self.noise, torch.from_numpy(labels[start : start + BATCH]))
        return float(whole)


def available() -> list[str]:
    """Return the runtimes that are installed; torch.compile always is."""
    needed = {COMPILER: ("torch",), "ONNX Runtime": ("onnxruntime", "onnx", "onnxscript"),
              "OpenVINO": ("openvino",)}  # fmt: skip
    return [name for name, modules in needed.items() if all(map(importlib.util.find_spec, modules))]


def _compiled(loop: Loop, noise: Tensor, labels: Tensor, threads: int) -> Run:
    torch.set_num_threads(threads)
    # Traced first: the compiler does not follow the solver's table, which is numbers by then.
    traced = torch.export.export(loop, (noise, labels)).module()
    graph: Run = torch.compile(traced, fullgraph=True, dynamic=False)
    return graph


def _onnx(loop: Loop, noise: Tensor, labels: Tensor, threads: int) -> Run:
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="ldmlr-bench-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        path = Path(folder) / "loop.onnx"
        torch.onnx.export(loop, (noise, labels), path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(noise: Tensor, labels: Tensor) -> object:
        return session.run(None, dict(zip(names, (noise.numpy(), labels.numpy()), strict=True)))[0]

    return run


def _openvino(loop: Loop, noise: Tensor, labels: Tensor, threads: int) -> Run:
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(loop, example_input=(noise, labels), input=[noise.shape, labels.shape])
    # As all others: float32, which it would round to bfloat16 where the processor has it.
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", options)

    def run(noise: Tensor, labels: Tensor) -> object:
        return compiled((noise.numpy(), labels.numpy()))[0]

    return run


PEERS: dict[str, Callable[[Loop, Tensor, Tensor, int], Run]] = {
    COMPILER: _compiled, "ONNX Runtime": _onnx, "OpenVINO": _openvino,
}  # fmt: skip
