"""An installed package, from a wheel or from the sources: what a first use needs, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import numpy as np


def ldmlr(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ldmlr", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_that_of_the_package(tmp_path):
    assert metadata.version("ldmlr") in ldmlr(tmp_path, "--version")


def test_the_extension_is_there_and_draws(tmp_path):
    info = json.loads(ldmlr(tmp_path, "info", "--json"))
    assert "baseline" in json.dumps(info)
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 12])
    np.savez(tmp_path / "emb.npz", features=rng.standard_normal((72, 6)) + labels[:, None], labels=labels)
    ldmlr(tmp_path, "store", "import", "emb.npz", "--out", "emb.h5")
    options = ("--hidden", 8, "--layers", 1, "--iterations", 5, "--out", "model.safetensors")
    ldmlr(tmp_path, "diffuse", "emb.h5", *options)
    drawn = json.loads(
        ldmlr(tmp_path, "generate", "model.safetensors", "--backend", "native", "--out", "p.h5", "--json")
    )
    assert (drawn["rows"], drawn["backend"]) == (48, "native")
