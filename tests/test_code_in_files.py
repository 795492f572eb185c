"""A file never chooses code: the caller names networks from elsewhere, a program has operators alone."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from support.packages import importable
from test_foreign_encoders import export, normalising

from ldmlr import modelfile
from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encoder import open_encoder
from ldmlr.encoders.model import Baseline
from ldmlr.encoders.networks.custom import load_exported
from ldmlr.encoders.networks.program import check_program
from ldmlr.errors import InputError, UsageError

MODULE = """
import pathlib
from torch import nn
pathlib.Path(__file__).with_name("ran").touch()

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))
"""
QUICK = {"epochs": 1, "precision": "float32", "mixup": 0.0}


@pytest.fixture
def trained(tmp_path, image_file, monkeypatch):
    """Return a baseline whose network is code, the name of its network, and the trace of its import."""
    with importable("chosen_net", MODULE, tmp_path, monkeypatch) as name:
        config = BaselineConfig(network=f"{name}:net", **QUICK)
        train_baseline(open_image_set(image_file), config, tmp_path / "model", device="cpu")
        ran = tmp_path / "ran"
        ran.unlink()
        sys.modules.pop(name)
        yield tmp_path / "model", f"{name}:net", ran


def test_the_word_of_a_file_alone_imports_nothing(trained, run_cli, image_file, tmp_path):
    model, name, ran = trained
    with pytest.raises(
        InputError, match=rf"code outside this package.* name it yourself with network {name}$"
    ):
        Baseline.load(model)
    other = ("--preset", "digits", "--epochs", "1", "--out", tmp_path / "second")
    for words in (
        ("encode", model, image_file, "--out", tmp_path / "f.h5"),
        ("baseline", image_file, *other, "--teacher", model),
        ("baseline", image_file, *other, "--init", model),
    ):
        done = run_cli(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        option = "--teacher-network" if "--teacher" in words else "--network"
        assert f"if you trust it, name it yourself with {option} {name}" in done.stderr
    assert not ran.exists()
    assert not (tmp_path / "f.h5").exists()


def test_the_caller_names_the_network_again(trained, run_cli, image_file, tmp_path):
    model, name, ran = trained
    done = run_cli("encode", model, image_file, "--network", name, "--out", tmp_path / "f.h5")
    assert done.returncode == 0, done.stderr
    assert ran.exists()
    done = run_cli(
        "baseline", image_file, "--preset", "digits", "--epochs", "1", "--out", tmp_path / "second",
        "--teacher", model, "--teacher-network", name,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_another_network_than_the_file_has_is_refused(trained, image_file):
    model, name, ran = trained
    images = open_image_set(image_file)
    with pytest.raises(UsageError, match=rf"network: other:net is not the network of .*, which is {name}"):
        open_encoder(str(model), images, EncodeConfig(network="other:net"))
    assert not ran.exists()
    with pytest.raises(UsageError, match="is no baseline, and brings its own"):
        open_encoder("chosen_net:net", images, EncodeConfig(network="chosen_net:net"))


def test_a_network_can_be_named_by_its_file(image_file, tmp_path):
    file = tmp_path / "by_file_net.py"
    file.write_text(MODULE)
    encoder = open_encoder(f"{file}:net", open_image_set(image_file), EncodeConfig())
    assert encoder.dim == 5


def test_sizes_in_a_header_ask_for_no_memory(image_file, tmp_path):
    config = BaselineConfig(network="small", **QUICK)
    train_baseline(open_image_set(image_file), config, tmp_path / "model", device="cpu")
    path = tmp_path / "model" / "model.safetensors"
    model = Baseline.load(path)
    header, tensors = modelfile.read(path, modelfile.BASELINE, {})
    for network, shape in (("resnet50", [8, 8, 3]), ("small", [8, 8, 60_000]), ("resnet50", [8, 8, 60_000])):
        changed = {
            **header,
            "network": network,
            "shape": shape,
            "mean": [1.0] * shape[2],
            "std": [1.0] * shape[2],
        }
        modelfile.write(path, modelfile.BASELINE, changed, tensors, overwrite=True)
        with pytest.raises(InputError, match="weights do not fit"):
            Baseline.load(path)
    model.save(path, overwrite=True)
    assert Baseline.load(path).name == "small"


# --- programs ------------------------------------------------------------------------------------


class Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def rewritten(path: Path, change) -> Path:
    """Return a copy of a program with some members changed: name, content -> content."""
    copy = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, change(entry, old.read(entry)))
    return copy


@pytest.fixture
def program(tmp_path):
    return export(normalising().eval(), tmp_path / "net.pt2")


def test_an_exported_program_is_let_through(program):
    check_program(program)
    assert load_exported(program, (8, 8, 3))[1] == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.os.system"), ("target", "torch.ops.load_library"), ("target", "_operator.call"),
        ("target", "torch.ops.aten.add.__class__"), ("target", "#builtins"), ("expr_str", "__import__('os')"),
        ("expr_str", "exec(s0)"), ("expr_str", "s0.func"), ("expr_str", "[s0]"),
    ],
)  # fmt: skip
def test_a_program_that_names_anything_else_is_refused(program, key, value):
    def put(name, content):
        if not name.endswith("models/model.json"):
            return content
        document, done = json.loads(content), []

        def walk(part):
            for at, inner in part.items() if isinstance(part, dict) else enumerate(part):
                if at == key and isinstance(inner, str):
                    part[at] = value
                    done.append(at)
                elif isinstance(inner, dict | list):
                    walk(inner)

        walk(document)
        assert done
        return json.dumps(document)

    with pytest.raises(InputError, match=r"no operator of torch|no arithmetic"):
        load_exported(rewritten(program, put), (8, 8, 3))


def test_pickles_in_a_program_run_nothing(program, tmp_path):
    ran = tmp_path / "ran"
    plain = io.BytesIO()
    torch.save({"x": Touch(ran)}, plain)

    def put(name, content):
        return (
            content
            if name.endswith((".json", "version", "byteorder", "archive_format"))
            else plain.getvalue()
        )

    with pytest.raises(InputError, match=r"not a program written by torch\.export\.save"):
        load_exported(rewritten(program, put), (8, 8, 3))
    assert not ran.exists()
    assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") is None
    pickle.loads(pickle.dumps(Touch(ran)))  # the trap is one
    assert ran.exists()
