"""Rows of the benchmark table, of whatever backend: what was measured, and its deviation from float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.bench.models import operations_per_row, random_labels
from ldmlr.sampler import reference
from ldmlr.sampler.spec import SamplerSpec

Row = dict[str, Any]
# Labels [n] -> rows [n, D], an array or a tensor of any device.
Draw = Callable[[npt.NDArray[np.int64]], Any]


def deviation(
    spec: SamplerSpec, draw: Draw, rows: int = 200, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Return the maximum and RMS deviation from the float64 reference, in standard deviations of its rows.

    Parameters
    ----------
    spec, draw
        The model, and what draws rows of it.
    rows
        Rows compared.
    device
        Where the reference computes: a core takes seconds for a wide model.
    """
    labels = random_labels(spec, rows)
    exact = reference.sample(spec, labels, device=device, precision=torch.float64).numpy()
    drawn = draw(labels)
    if isinstance(drawn, torch.Tensor):
        drawn = drawn.cpu().numpy()
    difference = (drawn - exact) / exact.std()
    return float(np.abs(difference).max()), float(np.sqrt(np.mean(difference**2)))


def table_row(
    what: str,
    spec: SamplerSpec,
    draw: Draw,
    rows_per_s: float,
    *,
    backend: str,
    isa: str,
    dtype: str,
    threads: int | None,
    device: torch.device | str = "cpu",
    **more: Any,
) -> Row:
    """Return a row with all columns of the benchmark table; `more` replaces and adds to them.

    `device` is where the float64 reference computes.
    """
    largest, rms = deviation(spec, draw, device=device)
    tables: Any = spec.tables
    row: Row = {
        "what": what, "backend": backend, "isa": isa, "dtype": dtype, "dim": spec.dim,
        "hidden": tables.w_in.shape[0], "layers": len(tables.w1), "steps": len(spec.rows),
        "guidance": spec.guidance, "threads": threads, "rows_per_s": rows_per_s,
        "gflop_per_s": rows_per_s * operations_per_row(spec) * 1e-9,
        "ceiling_gflop_per_s": None, "fraction": None, "error": largest, "error_rms": rms,
    }  # fmt: skip
    return {**row, **more}
