"""The fused trainer (csrc/cpu/train*, ldmlr/diffusion/fused.py) beside autograd; what must not change it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.blobs import SMALL, blobs
from support.training_case import Case, check_gradients

import ldmlr
from ldmlr import isa
from ldmlr.diffusion import checkpoint, course, fused, fused_state, train
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.course import Dead
from ldmlr.diffusion.fit import choose
from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.processor import Processor

AVAILABLE = [entry for entry in isa.instruction_sets() if entry.available]
KERNELS = [(entry.name, "float32") for entry in AVAILABLE]
KERNELS += [(entry.name, "bfloat16") for entry in AVAILABLE if entry.bfloat16]
# K, H, L, C, B, rows that share a time, prediction: nothing a multiple of anything, and the recipe.
SHAPES = [
    (10, 16, 1, 3, 64, 8, "v"),
    (33, 40, 2, 5, 100, 8, "v"),
    (5, 7, 3, 1, 13, 1, "eps"),
    (1, 1, 1, 1, 1, 8, "v"),
    (70, 130, 2, 3, 130, 4, "x0"),
    (64, 128, 2, 10, 512, 8, "v"),
]
# Largest error of a gradient, in units of the largest gradient of its array, that a type explains: sums of
# some hundred terms.
TOLERANCE = {"float32": 3e-5, "bfloat16": 4e-2}


@pytest.fixture(autouse=True)
def no_network_is_dead(request, monkeypatch):
    # A network on so few steps of random rows may well be; what is asked here is something else.
    if "dies" not in request.node.name:
        monkeypatch.setattr(course, "ALIVE", -1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "products"), KERNELS)
def test_loss_and_gradients_are_those_of_autograd(name, products, shape):
    case = Case(shape)
    check_gradients(case, case.steps(products, name), TOLERANCE[products])


@pytest.mark.parametrize(
    ("products", "weights", "losses"), [("float32", 1e-4, 1e-5), ("bfloat16", None, 1e-2)]
)
def test_the_course_of_a_training_is_that_of_pytorch(products, weights, losses):
    """Sixty steps of AdamW and averages: float32 stays beside float64, bfloat16 within a hundredth."""
    if products == "bfloat16" and not isa.choose().bfloat16:
        pytest.skip("this instruction set has no such products")
    case = Case((20, 32, 2, 4, 64, 8, "v"), weight_decay=0.01)
    state, twin = case.trained(products=products), case.twin()
    parameters = list(twin.network.parameters())
    averages = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.AdamW(parameters, weight_decay=case.config.weight_decay)
    exact = []
    for step in range(case.config.iterations):
        optimiser.param_groups[0]["lr"] = case.config.lr * course.rate(step, case.config)
        loss = twin.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        torch._foreach_lerp_(averages, parameters, course.averaging(step, case.config))
        exact.append(float(loss.detach()))
    assert state.losses == pytest.approx([np.mean(exact[:50]), np.mean(exact[50:])], rel=losses)
    if weights is None:
        return
    names = fused_state.shapes(20, 4, 32, 2)
    own = [name for name, _ in twin.network.named_parameters()]
    for which, values in ((0, parameters), (3, averages)):
        found = fused_state.named(state.state[which], 20, 4, 32, 2)
        for name in names:
            value = values[own.index(name)].detach().numpy()
            assert np.abs(found[name] - value).max() < weights, name


@pytest.mark.parametrize(("name", "products"), KERNELS)
def test_threads_calls_and_tiles_change_no_bit(name, products):
    case = Case((20, 40, 2, 30, 200, 8, "v"), iterations=12)
    whole = case.trained(products=products, set_name=name, threads=1)
    for threads, stops, tile in ((2, (), None), (3, (1, 5), 64), (4, (7,), 128)):
        parts = case.trained(products=products, set_name=name, threads=threads, stops=stops, tile=tile)
        assert np.array_equal(parts.state, whole.state)
        assert (parts.losses, parts.total) == (whole.losses, whole.total)


def test_a_batch_depends_on_seed_and_step_alone():
    case = Case((6, 16, 1, 3, 64, 8, "v"), iterations=2)
    first = case.trained()
    assert np.array_equal(first.state, case.trained().state)
    other = Case((6, 16, 1, 3, 64, 8, "v"), iterations=2, seed=2**63 + 1).trained()
    assert not np.array_equal(first.state, other.state)


def test_times_are_stratified_and_cover_the_whole_range():
    case = Case((2, 4, 1, 2, 64, 8, "v"))
    twin = case.twin()
    times = np.array([[twin.time(step, row) for row in range(64)] for step in range(50)])
    assert (np.diff(times.reshape(50, 8, 8), axis=2) == 0).all()
    strata = times[:, ::8] * 8 // (course.RESOLUTION + 1)
    assert (strata == np.arange(8)).all()
    assert times.min() < 400
    assert times.max() > course.RESOLUTION - 400


def test_classes_are_drawn_by_their_weights():
    last = fused.thresholds(np.array([3.0, 1.0, 0.0, 4.0, 0.0]))
    assert last.tolist() == [2**32 // 8 * 3 - 1, 2**31 - 1, 2**31 - 1, 2**32 - 1, 2**32 - 1]


def test_the_state_survives_its_file(tmp_path):
    case = Case((6, 16, 1, 3, 64, 8, "v"), iterations=20)
    steps, path = case.steps(), tmp_path / "checkpoint"
    state = steps.start(case.config)
    steps.advance(case.config, state, 13)
    state.save(path, "key 1")
    loaded = steps.start(case.config)
    loaded.load(path, "key 1")
    assert checkpoint.resumed(path, ["key", "key 1"]) == 1
    for found in (state, loaded):
        steps.advance(case.config, found, 20)
    assert np.array_equal(state.state, loaded.state)
    assert (state.losses, state.done) == (loaded.losses, 20)
    with pytest.raises(UsageError, match="other settings or data"):
        loaded.load(path, "key")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="damaged checkpoint"):
        loaded.load(path, "key 1")
    state.save(path, "key")
    other = Case((7, 16, 1, 3, 64, 8, "v"))
    narrow = other.steps().start(other.config)
    with pytest.raises(InputError, match=r"damaged checkpoint \(its arrays do not fit\)"):
        narrow.load(path, "key")


def test_the_checkpoint_of_the_other_trainer_is_of_other_settings(tmp_path):
    case = Case((6, 16, 1, 3, 64, 8, "v"))
    native, path = case.steps().start(case.config), tmp_path / "checkpoint"
    reference = train._start(case.config, case.importance, 3, 0, torch.device("cpu"))
    native.save(path, "key")
    with pytest.raises(UsageError, match="belongs to other settings or data"):
        reference.load(path, "key")
    save_file({"state": native.state}, path, {"key": "key"})
    for state in (native, reference):
        with pytest.raises(InputError, match="not a checkpoint of a diffusion model"):
            state.load(path, "key")


def test_ctrl_c_ends_a_training_between_two_steps():
    case = Case((64, 256, 2, 4, 512, 8, "v"), iterations=1000000)
    # A process that was started in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            case.trained()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_not_finite_is_said(monkeypatch):
    features, labels = blobs()
    model = ldmlr.LatentDiffusion(**{**SMALL, "iterations": 100}, lr=1e30, trainer="native")
    with pytest.raises(LdmlrError, match="the loss is not finite at step 50"):
        model.fit(features, labels)


def test_a_network_that_dies_is_reported():
    case = Case((8, 16, 1, 3, 64, 8, "v"), lr=5.0, iterations=400)
    with pytest.raises(Dead):
        case.trained()


def test_auto_takes_the_native_trainer_where_it_can():
    assert choose(DiffusionConfig(), "cpu").name == "native"
    for config, device in ((DiffusionConfig(network="adaln"), "cpu"), (DiffusionConfig(), "cuda:0")):
        found = choose(config, device)
        assert (found.name, found.precision) == ("reference", "float32")
    assert choose(DiffusionConfig(iterations=2**25), "cpu").name == "reference"
    assert choose(DiffusionConfig(trainer="reference"), "cpu").name == "reference"


def test_auto_multiplies_as_the_processor_does_it_faster(monkeypatch):
    zen, rapids = Processor("AuthenticAMD", 0x1A, 2), Processor("GenuineIntel", 6, 0xCF)
    for name, processor, precision in (
        ("avx2", zen, "float32"), ("avx512bf16", zen, "bfloat16"), ("avx512bf16", rapids, "float32"),
        ("amx", rapids, "float32"),
    ):  # fmt: skip
        entry = isa.InstructionSet(name, True, name != "avx2", False)
        monkeypatch.setattr(isa, "choose", lambda entry=entry: entry)
        assert choose(DiffusionConfig(), "cpu", processor).precision == precision


@pytest.mark.parametrize(
    ("options", "device", "message"),
    [
        ({"network": "adaln"}, "cpu", "--trainer native: it trains the additive network"),
        ({}, "cuda", "--trainer native: no CUDA device is visible; use --trainer reference"),
    ],
)
def test_what_the_native_trainer_cannot_do_is_said(options, device, message):
    with pytest.raises(UsageError) as caught:
        choose(DiffusionConfig(trainer="native", **options), device)
    assert message in caught.value.on_command_line()


def test_products_that_are_not_there_are_said(monkeypatch):
    monkeypatch.setenv(isa.VARIABLE, "baseline")
    config = DiffusionConfig(precision="bfloat16")
    with pytest.raises(UsageError, match="baseline has no bfloat16 products; use precision='float32'"):
        choose(config, "cpu")
    with pytest.raises(UsageError, match="only the native trainer multiplies bfloat16"):
        choose(config.replace(trainer="reference"), "cpu")


def test_a_model_says_what_trained_it(tmp_path):
    features, labels = blobs()
    model = ldmlr.LatentDiffusion(**SMALL, precision="float32").fit(features, labels)
    assert model.trained == {"trainer": "native", "precision": "float32", "isa": isa.choose().name}
    model.save(tmp_path / "m.safetensors")
    loaded = ldmlr.LatentDiffusion.load(tmp_path / "m.safetensors")
    assert loaded.trained == model.trained
    reference = ldmlr.LatentDiffusion(**SMALL, trainer="reference").fit(features, labels)
    assert reference.trained == {"trainer": "reference", "precision": "float32", "isa": "torch"}


def test_the_fused_trainer_imports_no_torch():
    """Nor does a fit of few dimensions from start to end."""
    script = (
        "import sys; import numpy as np; from ldmlr import LatentDiffusion\n"
        "rows = np.random.default_rng(0).standard_normal((200, 5))\n"
        "LatentDiffusion(iterations=30, hidden=16, basis='cholesky').fit(rows, np.arange(200) % 3)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
