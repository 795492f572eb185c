"""The native road without torch and scikit-learn: what it takes to start, and that it survives a fork.

Importing torch takes longer than drawing most stores, and its threads are gone in a forked process, where it
waits for them for ever. So commands that need neither do not import it; each runs here where it cannot.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.blobs import SMALL, blob_store, blobs

import ldmlr
from ldmlr.device import DRIVERS
from ldmlr.diffusion.weights import Weights, shapes
from ldmlr.store import FeatureStore

# A module that is None cannot be imported: the import fails, whoever asks.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(('torch', 'sklearn', 'scipy', 'pandas')))\n"
COMMAND = WITHOUT + "from ldmlr_cli.main import main; main(sys.argv[1:])"
ON_CPU = "--device", "cpu"


def alone(code: str, *words: object, folder: Path) -> str:
    """Run Python without torch and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], cwd=folder, capture_output=True, text=True,
        check=False, timeout=60, env={**os.environ, "LDMLR_ISA": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a model of it."""
    folder = tmp_path_factory.mktemp("without-torch")
    with blob_store(folder / "features.h5") as store:
        ldmlr.LatentDiffusion(**SMALL).fit_store(store).save(folder / "model.safetensors")
    return folder


def test_generate(folder: Path) -> None:
    words = "generate", "model.safetensors", "--seed", 3, "--json", *ON_CPU
    here = json.loads(alone(COMMAND, *words, "--out", "one.h5", folder=folder))
    model = ldmlr.LatentDiffusion.load(folder / "model.safetensors")
    with h5py.File(folder / "one.h5") as file:
        rows, labels = file["train/features"][:], file["train/labels"][:]
    assert here["rows"] == len(rows) > 0
    assert here["backend"] == "native"
    assert np.array_equal(rows, model.sample(labels, seed=3))
    alone(COMMAND, *words, "--class-scale", "0=1.2", "--dtype", "bfloat16", "--out", "two.h5", folder=folder)
    alone(COMMAND, *words, "--dry-run", folder=folder)
    alone(COMMAND, *words, "--out", "one.h5", "--resume", folder=folder)


@pytest.mark.parametrize("generator", ["oversampling"])
def test_augment(folder: Path, generator: str) -> None:
    words = "augment", "features.h5", "--generator", generator, "--out-dir", "balanced", "--overwrite"
    alone(COMMAND, *words, *ON_CPU, folder=folder)
    with FeatureStore.open(folder / "balanced" / "features.h5") as store:
        counts = store.split("train").counts
    assert (counts == counts.max()).all()
    alone(COMMAND, *words, "--generator", "diffusion", "--dry-run", *ON_CPU, folder=folder)


def test_store(folder: Path) -> None:
    for words in (
        ("inspect", "features.h5"), ("verify", "features.h5"), ("export", "features.h5", "--out", "a.npz"),
        ("import", "a.npz", "--out", "again.h5"),
        ("merge", "features.h5", "again.h5", "--out", "both.h5"),
    ):  # fmt: skip
        alone(COMMAND, "store", *words, folder=folder)


@pytest.mark.skipif(any(map(os.path.exists, DRIVERS)), reason="torch is asked for the GPUs")
def test_info(folder: Path) -> None:
    found = json.loads(alone(COMMAND, "info", "--json", folder=folder))
    assert found["extension"]["chosen"]


SAMPLE = """
import numpy as np, ldmlr
model = ldmlr.LatentDiffusion.load(sys.argv[1])
rows = [model.sample(np.arange(90) % 3, seed=5, threads=threads, device="cpu") for threads in (1, 2)]
model.save(sys.argv[2])
assert (rows[0] == rows[1]).all()
np.save(sys.argv[3], rows[0])
"""


def test_load_sample_and_save(folder: Path) -> None:
    alone(WITHOUT + SAMPLE, "model.safetensors", "again.safetensors", "rows.npy", folder=folder)
    model = ldmlr.LatentDiffusion.load(folder / "model.safetensors")
    assert np.array_equal(np.load(folder / "rows.npy"), model.sample(np.arange(90) % 3, seed=5))
    assert (folder / "again.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def drawn_in_child(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what a forked child draws."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(draw()))
    child.start()
    try:
        assert receiver.poll(30), "the child hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_draws_what_its_parent_drew(folder: Path, threads: int) -> None:
    labels = np.arange(700) % 3
    loaded = ldmlr.LatentDiffusion.load(folder / "model.safetensors")
    fitted = ldmlr.LatentDiffusion(**SMALL).fit(*blobs())
    for model in (loaded, fitted):
        torch.mm(torch.ones(256, 256), torch.ones(256, 256))  # the parent has threads of torch
        rows = model.sample(labels, seed=5, threads=threads)
        assert np.array_equal(drawn_in_child(lambda m=model: m.sample(labels, seed=5, threads=threads)), rows)


def test_tensors_are_answered_with_tensors(folder: Path) -> None:
    model = ldmlr.LatentDiffusion.load(folder / "model.safetensors")
    labels = np.arange(50) % 3
    rows = model.sample(torch.from_numpy(labels))
    assert isinstance(rows, torch.Tensor)
    assert np.array_equal(rows.numpy(), model.sample(labels))
    short = model.sample(torch.from_numpy(labels), dtype=torch.bfloat16)
    assert short.dtype == torch.bfloat16
    assert np.array_equal(short.view(torch.uint16).numpy(), model.sample(labels, dtype="bfloat16"))


@pytest.mark.parametrize("network", ["additive", "adaln"])
def test_arrays_and_modules_are_one_network(network: str) -> None:
    model = ldmlr.LatentDiffusion(**{**SMALL, "network": network, "layers": 2}).fit(*blobs())
    weights = model.weights
    assert isinstance(weights, Weights)
    config = model.config
    wanted = shapes(network, model.dim, model.num_classes, config.hidden, config.layers)
    assert {name: array.shape for name, array in weights.arrays.items()} == wanted
    assert (weights.latent, weights.num_classes) == (model.dim, model.num_classes)
    again = model.network.weights()
    assert again.network == network
    assert all(np.array_equal(again.arrays[name], array) for name, array in weights.arrays.items())
    # The table of times in NumPy is that of the module.
    t = np.linspace(1e-3, 1, 7)
    expected = model.network.time(torch.from_numpy(t)).detach().numpy()
    np.testing.assert_allclose(weights.time_table(t), expected, rtol=1e-12, atol=1e-12)
    # And so is what it predicts, for rows with and without a class.
    x = np.random.default_rng(0).standard_normal((7, model.dim)).astype(np.float32)
    labels = np.arange(7) % (model.num_classes + 1)
    with torch.no_grad():
        wanted = model.network(torch.from_numpy(x), torch.from_numpy(t).float(), torch.from_numpy(labels))
    np.testing.assert_allclose(weights.predict(x, t, labels), wanted.numpy(), rtol=1e-4, atol=1e-5)


TRAIN = """
import numpy as np, ldmlr
random = np.random.default_rng(0)
y = np.repeat([0, 1], [150, 40])
for dim in (6, 90):
    X = random.standard_normal((190, dim)) + y[:, None]
    model = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=30, batch_size=32).fit(X, y, device="cpu")
    assert model.held_out["rows"] > 0
    assert model.trained["trainer"] == "native"
    assert model.sample(y, device="cpu").shape == X.shape
"""


def test_training_and_what_held_out_rows_say_of_it(folder: Path) -> None:
    alone(WITHOUT + TRAIN, folder=folder)
    options = "--hidden", 16, "--layers", 1, "--iterations", 30, "--batch-size", 32
    words = "features.h5", *options, "--overwrite", *ON_CPU
    alone(COMMAND, "augment", *words, "--out-dir", "drawn", folder=folder)
    found = json.loads(alone(COMMAND, "diffuse", *words, "--out", "own.safetensors", "--json", folder=folder))
    assert found["trained"]["trainer"] == "native"


@pytest.mark.skipif(any(map(os.path.exists, DRIVERS)), reason="torch is asked for the GPUs")
def test_the_over_sampler_of_tables_imports_no_torch(folder: Path) -> None:
    code = """
import sys
import numpy as np, ldmlr
random = np.random.default_rng(0)
y = np.repeat([0, 1], [150, 40])
X = random.standard_normal((190, 90)) + y[:, None]
options = {"hidden": 16, "layers": 1, "iterations": 30, "batch_size": 32}
X2, y2 = ldmlr.LatentDiffusionSampler(random_state=0, model_options=options).fit_resample(X, y)
assert np.bincount(y2).tolist() == [150, 150]
assert "torch" not in sys.modules
"""
    alone(code, folder=folder)
