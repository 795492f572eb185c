"""The CUDA trainer on a device, skipped where there is none; test_cuda_train.py has emulated threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.blobs import SMALL, blobs
from support.training_case import CUDA_SHAPES, CUDA_TOLERANCE, Case, check_gradients, continued

import ldmlr
from ldmlr import cuda_device
from ldmlr.diffusion import course, fused_state

pytestmark = pytest.mark.cuda

RECIPE = (64, 128, 2, 10, 512, 8, "v")


@pytest.fixture(scope="module")
def device() -> str:
    """Return the CUDA device, or skip."""
    reason = cuda_device.unavailable(torch.device("cuda"))
    if reason:
        pytest.skip(reason)
    return str(cuda_device.indexed(torch.device("cuda")))


@pytest.fixture(autouse=True)
def no_network_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in test_fused.py.
    monkeypatch.setattr(course, "ALIVE", -1.0)


def trained(case: Case, device: str, stops: tuple[int, ...] = (), **options: Any) -> fused_state.State:
    steps = case.cuda_steps(device, **options)
    state = steps.start(case.config)
    for stop in (*stops, case.config.iterations):
        steps.advance(case.config, state, stop)
    return state


@pytest.mark.parametrize("shape", [*CUDA_SHAPES, RECIPE, (512, 512, 2, 100, 512, 8, "v")], ids=str)
def test_loss_and_gradients_are_those_of_autograd(device: str, shape: tuple[Any, ...]) -> None:
    case = Case(shape)
    check_gradients(case, case.cuda_steps(device), CUDA_TOLERANCE)


@pytest.mark.parametrize("shape", [RECIPE, (9, 21, 3, 5, 30, 8, "eps")], ids=str)
def test_the_course_of_a_training_is_that_of_the_cpu(device: str, shape: tuple[Any, ...]) -> None:
    case = Case(shape, weight_decay=0.01)
    expected, state = case.trained(), trained(case, device)
    assert state.losses == pytest.approx(expected.losses, rel=1e-5)
    for found, wanted, allowed in zip(state.state, expected.state, (2e-4, 1e-6, 1e-7, 2e-4), strict=True):
        assert np.abs(found - wanted).max() < allowed


@pytest.mark.parametrize("shape", [RECIPE, (33, 40, 2, 290, 700, 8, "x0")], ids=str)
def test_the_same_bits_by_graph_by_single_launches_and_in_parts(device: str, shape: tuple[Any, ...]) -> None:
    case = Case(shape, iterations=157)
    expected = trained(case, device, graph_steps=0)
    for options in ({}, {"graph_steps": 7}, {"graph_steps": 1}, {"stops": (1, 50, 76, 149)}):
        for _ in range(3):  # a race would show at times
            state = trained(case, device, **options)
            assert np.array_equal(state.state, expected.state)
            assert state.losses == expected.losses


def test_a_stream_of_the_caller_is_used(device: str) -> None:
    case = Case(RECIPE, iterations=60)
    expected = trained(case, device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        assert np.array_equal(trained(case, device).state, expected.state)


def test_it_goes_on_where_the_cpu_left_off(device: str, tmp_path: Path) -> None:
    case = Case(RECIPE, iterations=40)
    state, other = continued(case, case.cuda_steps(device), tmp_path / "checkpoint")
    assert other.losses == pytest.approx(state.losses, rel=1e-5)
    assert np.abs(other.state - state.state).max() < 2e-4


def test_auto_trains_a_model_by_it(device: str) -> None:
    features, labels = blobs()
    expected = ldmlr.LatentDiffusion(**SMALL, precision="float32").fit(features, labels, device="cpu")
    model = ldmlr.LatentDiffusion(**SMALL).fit(features, labels, device=device)
    assert model.trained == {"trainer": "native", "precision": "float32", "isa": "cuda"}
    for name, array in expected.weights.arrays.items():
        assert np.abs(model.weights.arrays[name] - array).max() < 1e-5, name
