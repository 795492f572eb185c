"""Outputs with the longest names that a file system takes: what lies beside them has a shorter one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ldmlr.files import beside, fitting
from ldmlr.results import write_result

RNG = np.random.default_rng(0)
MODEL = ("--hidden", "8", "--layers", "1", "--iterations", "3")
NET = ("--network", "small", "--epochs", "1", "--augment", "none", "--precision", "float32")


def name_of(size: int, suffix: str) -> str:
    return "n" * (size - len(suffix)) + suffix


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    labels = np.repeat(np.arange(3), (12, 6, 4))
    np.savez(folder / "rows.npz", features=RNG.random((22, 4), np.float32), labels=labels)
    with h5py.File(folder / "rows.h5", "w") as file:
        file["train/features"], file["train/labels"] = RNG.random((22, 4), np.float32), labels
    with h5py.File(folder / "images.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"] = RNG.integers(0, 256, (8, 8, 8, 3), np.uint8)
            file[f"{split}/labels"] = np.arange(8) % 2
    return folder


@pytest.mark.parametrize("size", [230, 255])
def test_every_writing_command_takes_them(run_cli, sources, tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    rows, images = sources / "rows.npz", sources / "images.h5"
    store, model, folder = (name_of(size, suffix) for suffix in (".h5", ".safetensors", ""))
    commands = (
        ("store", "import", rows, "--test", rows, "--out", store),
        ("store", "merge", store, store, "--out", name_of(size, "m.h5")),
        ("store", "export", store, "--out", name_of(size, ".npz")),
        ("diffuse", store, *MODEL, "--out", model),
        ("generate", model, "--out", name_of(size, "g.h5")),
        ("augment", rows, *MODEL, "--out-dir", name_of(size, "a")),
        ("baseline", images, *NET, "--out", folder),
        ("encode", folder, images, "--out", name_of(size, "e.h5")),
        ("finetune", store, "--epochs", 1, "--out", name_of(size, "f")),
        ("predict", name_of(size, "f"), store, "--out", name_of(size, ".csv")),
        ("export", name_of(size, "f"), "--format", "npz", "--out", name_of(size, "x.npz")),
    )
    for command in commands:
        done = run_cli(*command)
        assert done.returncode == 0, (command[:2], done.stderr)
        out = Path(command[-1])
        assert out.exists(), command[:2]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    # Names without an ending of ours: the copy of a source is called after it.
    again = tmp_path / name_of(size, ".npz")
    again.write_bytes(rows.read_bytes())
    assert run_cli("diffuse", again, *MODEL, "--out", "short.safetensors").returncode == 0


@pytest.mark.parametrize("size", [244, 255])
def test_a_shard_whose_own_name_is_too_long_is_refused_at_once(run_cli, sources, tmp_path, size):
    out = tmp_path / name_of(size, ".h5")
    done = run_cli("generate", sources / "rows.h5", "--generator", "gaussian", "--shard", "0/2", "--out", out)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("-00000-of-00002.h5: the name is too long; choose a shorter one")
    assert not list(tmp_path.iterdir())


def test_a_name_that_fits_is_kept(tmp_path):
    assert beside(tmp_path / "a.h5", ".lock") == tmp_path / ".a.h5.lock"
    assert fitting("a" * 250, ".json") == "a" * 250 + ".json"
    shorter = fitting("ä" * 126, ".json")  # bytes count, not letters
    assert len(shorter) == 32 + 5
    assert fitting("ä" * 125 + "a", ".json") != shorter
    (tmp_path / name_of(255, ".h5")).touch()
    assert write_result(tmp_path / name_of(255, ".h5"), {"command": "x"}).read_text()
