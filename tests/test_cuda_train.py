"""The CUDA trainer (csrc/cuda/train*) on emulated threads, beside autograd and the trainer of the CPU.

What this cannot show is what only the hardware has: test_cuda_train_device.py is for that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.blobs import SMALL, blobs
from support.emulator import Emulator, at, canary
from support.training_case import CUDA_SHAPES, CUDA_TOLERANCE, Case, check_gradients, continued

import ldmlr
from ldmlr import _native, cuda_device, device
from ldmlr.bench import cuda as bench
from ldmlr.bench import cuda_train as measurements
from ldmlr.diffusion import course, fused
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.course import Dead
from ldmlr.diffusion.fit import choose
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.sampler.noise import Stream, standard_normal_reference


class Emulated:
    """The extension's trainer, replaced by the same kernels on emulated threads."""

    def __init__(self, emulator: Emulator) -> None:
        self.library = emulator.library
        self.calls: list[tuple[int, int]] = []
        self.call = _native.CudaTrainCall()

    def train(self, call: _native.CudaTrainCall, first: int, count: int, every: int, report: Any) -> None:
        """Do what `_native.cuda_train` does, on memory that is poisoned before and watched at its end."""
        size = _native.cuda_train_scratch_bytes(call.params)
        self.memory = canary(size + 256)
        call.scratch = self.memory.ctypes.data
        errors: list[BaseException] = []

        @ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint32, ctypes.c_double)
        def look(done: int, answering: float) -> bool:
            try:
                report(done, answering)
            except BaseException as error:
                errors.append(error)
            return bool(errors)

        arguments = (ctypes.c_uint32(first), ctypes.c_uint32(count), ctypes.c_uint32(every), look)
        assert self.library.emulated_train(at(call), *arguments) == 0
        assert (self.memory[size:] == 0xFF).all(), "a write beyond the scratch"
        self.calls.append((first, count))
        self.call = call
        for error in errors:
            raise error

    def drawn(self, params: _native.TrainParams) -> tuple[np.ndarray, ...]:
        """Return input, target, features of the times, and labels of the last step."""
        found = (ctypes.c_void_p * 4)()
        self.library.emulated_drawn(at(self.call), found)
        times = -(-params.batch // params.share)
        shapes = [(params.batch, params.latent)] * 2 + [(times, 64), (params.batch,)]
        arrays = []
        for address, shape in zip(found, shapes, strict=True):
            raw = ctypes.string_at(address, 4 * int(np.prod(shape)))
            arrays.append(np.frombuffer(raw, np.int32 if len(shape) == 1 else np.float32).reshape(shape))
        return tuple(arrays)


@pytest.fixture
def emulated(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulated]:
    """Make the processor look like a device of sm_90 whose trainer is the emulated one."""
    found = Emulated(emulator)
    monkeypatch.setattr(_native, "cuda_train", found.train)
    for name, answer in (
        ("unavailable", None), ("indexed", torch.device("cpu", 0)), ("shared_limit", 227 << 10),
        ("stream_of", 0),
    ):  # fmt: skip
        monkeypatch.setattr(cuda_device, name, lambda *arguments, answer=answer: answer)
    return found


@pytest.fixture(autouse=True)
def no_network_is_dead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in test_fused.py.
    if "dies" not in request.node.name:
        monkeypatch.setattr(course, "ALIVE", -1.0)


@pytest.mark.parametrize("shape", CUDA_SHAPES, ids=str)
def test_loss_and_gradients_are_those_of_autograd(emulated: Emulated, shape: tuple[Any, ...]) -> None:
    case = Case(shape)
    check_gradients(case, case.cuda_steps(), CUDA_TOLERANCE)
    assert emulated.calls == [(0, 1)]


@pytest.mark.parametrize("prediction", ["eps", "x0"])
def test_what_is_drawn_is_drawn_as_on_the_cpu_to_the_bit(emulated: Emulated, prediction: str) -> None:
    """Noise and rows are what the network should say; times show in their features."""
    case = Case((6, 8, 1, 7, 83, 8, prediction), seed=2**40 + 3, label_dropout=0.3)
    steps, twin = case.cuda_steps(), case.twin()
    state = steps.start(case.config)
    features = fused.time_features(course.times()).astype(np.float32)
    for step in range(3):
        steps.advance(case.config, state, step + 1)
        noisy, target, timed, labels = emulated.drawn(steps.params)
        x, t, expected, clean = (part.numpy() for part in twin.draw(step))
        assert np.array_equal(labels, expected)
        assert np.array_equal(timed, features[np.round(t[::8] * course.RESOLUTION).astype(int)])
        if prediction == "eps":
            noise = standard_normal_reference(case.seed, 0, 83, 6, Stream.TRAIN_NOISE, step)
            assert np.array_equal(target, noise)
        else:
            assert np.array_equal(target, clean.astype(np.float32))
        assert np.allclose(noisy, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 32, 2, 4, 64, 8, "v"), (9, 21, 3, 5, 30, 8, "v")], ids=str)
def test_the_course_of_a_training_is_that_of_the_cpu(emulated: Emulated, shape: tuple[Any, ...]) -> None:
    """Sixty steps: weights, moments and averages stay beside those of the trainer of the CPU."""
    case = Case(shape, weight_decay=0.01)
    expected, steps = case.trained(), case.cuda_steps()
    state = steps.start(case.config)
    steps.advance(case.config, state, case.config.iterations)
    assert state.losses == pytest.approx(expected.losses, rel=1e-5)
    assert state.total == expected.total == 0.0
    for found, wanted, allowed in zip(state.state, expected.state, (1e-4, 1e-6, 1e-7, 1e-4), strict=True):
        assert np.abs(found - wanted).max() < allowed


def test_calls_of_any_length_end_with_the_same_bits(emulated: Emulated) -> None:
    case = Case((9, 20, 2, 3, 30, 8, "v"), iterations=57)
    states = []
    for stops in ((57,), (1, 13, 50, 51, 57)):
        steps = case.cuda_steps()
        state = steps.start(case.config)
        for stop in stops:
            steps.advance(case.config, state, stop)
        states.append(state)
    assert np.array_equal(states[0].state, states[1].state)
    assert states[0].losses == states[1].losses


def test_it_goes_on_where_the_cpu_left_off(emulated: Emulated, tmp_path: Any) -> None:
    """The state has one format, whatever trains."""
    case = Case((9, 20, 2, 3, 30, 8, "v"), iterations=40)
    state, other = continued(case, case.cuda_steps(), tmp_path / "checkpoint")
    assert other.losses == pytest.approx(state.losses, rel=1e-5)
    assert np.abs(other.state - state.state).max() < 1e-4


def test_the_units_that_answer_are_counted_as_on_the_cpu(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the units have no weights, so that they say the same of every row."""
    case, seen = Case((8, 300, 1, 3, 64, 8, "v"), iterations=1), []
    train = emulated.train

    def watched(call: Any, first: int, count: int, every: int, report: Any) -> None:
        train(call, first, count, every, lambda done, answering: seen.append((done, answering)))

    monkeypatch.setattr(_native, "cuda_train", watched)
    steps = case.cuda_steps()
    state = steps.start(case.config)
    values = fused.fused_state.named(state.state[0], *steps.sizes(case.config))
    values["input.weight"][:150], values["second.0.weight"][:150] = 0, 0
    state.state[0] = fused.fused_state.flat(values)
    steps.advance(case.config, state, 1)
    assert seen == [(1, 0.5)]


def test_a_network_that_dies_is_reported(emulated: Emulated) -> None:
    case = Case((8, 16, 1, 3, 64, 8, "v"), lr=5.0, iterations=400)
    steps = case.cuda_steps()
    state = steps.start(case.config)
    with pytest.raises(Dead):
        steps.advance(case.config, state, 400)
    assert emulated.calls == [(0, 400)]


def test_a_model_is_fitted_by_it_from_start_to_end(
    emulated: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = blobs()
    expected = ldmlr.LatentDiffusion(**SMALL, precision="float32").fit(features, labels)
    monkeypatch.setattr(device, "cuda_devices", lambda: 1)
    model = ldmlr.LatentDiffusion(**SMALL).fit(features, labels, device="cuda")
    assert emulated.calls == [(0, 30)]
    assert model.trained == {"trainer": "native", "precision": "float32", "isa": "cuda"}
    for name, array in expected.weights.arrays.items():
        assert np.abs(model.weights.arrays[name] - array).max() < 1e-5, name


def test_what_trains_on_a_device(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "cuda:1"):
        assert choose(DiffusionConfig(), name, latent=64).document() == {
            "trainer": "native", "precision": "float32", "isa": "cuda",
        }  # fmt: skip
    for config in (
        DiffusionConfig(network="adaln"), DiffusionConfig(trainer="reference"), DiffusionConfig(hidden=8192),
    ):  # fmt: skip
        assert choose(config, "cuda", latent=64).name == "reference"
    with pytest.raises(UsageError, match="on cuda the native trainer multiplies float32"):
        choose(DiffusionConfig(precision="bfloat16"), "cuda")
    with pytest.raises(UsageError, match=r"width 8192 and 2 layers do not fit the shared memory of cuda"):
        choose(DiffusionConfig(hidden=8192, trainer="native"), "cuda", latent=64)
    reason = "this build has no CUDA kernels"
    monkeypatch.setattr(cuda_device, "unavailable", lambda place: reason)
    assert choose(DiffusionConfig(), "cuda").name == "reference"
    with pytest.raises(UsageError, match="this build has no CUDA kernels; use trainer='reference'"):
        choose(DiffusionConfig(trainer="native"), "cuda")


@pytest.mark.parametrize("latent", [1, 64, 512, 2048])
@pytest.mark.parametrize("hidden", [1, 128, 512, 2048])
def test_common_sizes_fit_the_shared_memory_of_sm_80(latent: int, hidden: int) -> None:
    params = _native.TrainParams(latent=latent, hidden=hidden, layers=4, share=8)
    assert _native.cuda_train_shared_bytes(params) <= 163 << 10


def test_an_error_of_the_runtime_is_one_line(emulated: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> None:
        raise RuntimeError("CUDA: kernel launch: invalid argument")

    monkeypatch.setattr(_native, "cuda_train", fails)
    case = Case((4, 8, 1, 2, 16, 8, "v"))
    steps = case.cuda_steps()
    with pytest.raises(LdmlrError, match="the CUDA kernels failed: CUDA: kernel launch"):
        steps.advance(case.config, steps.start(case.config), 1)


def test_the_measurements_of_a_device_run(emulated: Emulated) -> None:
    found = list(
        measurements.rows(
            torch.device("cpu", 0), ((5, 8),), compared=4, steps=3, reference=2, batch=20, repeats=1
        )
    )
    assert [row["what"] for row in found] == [
        "weights of 4 steps beside the CPU", "bits of a graph: the same", "3 steps, in graphs of 25",
        "3 steps, kernel by kernel", "2 steps of PyTorch, eager",
    ]  # fmt: skip
    assert found[0]["error_max"] < 1e-5
    assert all(row["milliseconds"] > 0 for row in found[2:])
    assert len({bench.text(row) for row in found}) == 5
