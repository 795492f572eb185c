"""``ldmlr diffuse`` and the job behind it: interrupts, resume, a model that cannot be saved."""

from __future__ import annotations

import json

import pytest
from support.blobs import SMALL, blob_store, blobs

import ldmlr
from ldmlr.diffusion import course, fused
from ldmlr.diffusion import train as training
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.generation.diffuse import checkpoint_path, diffuse, preview
from ldmlr.store import FeatureStore, SplitData


@pytest.fixture
def store(tmp_path):
    return blob_store(tmp_path / "store.h5")


def interrupt(monkeypatch, at):
    """Make the training, by either trainer, stop like a Ctrl-C in the given iteration."""
    original, advance = training._Objective.__call__, fused.Steps.advance
    calls = {"n": 0}

    def call(self, *arguments):
        calls["n"] += 1
        if calls["n"] > at:
            raise KeyboardInterrupt
        return original(self, *arguments)

    def limited(self, config, state, last, bar=None):
        calls["n"] += last - state.done
        if calls["n"] > at:
            raise KeyboardInterrupt
        advance(self, config, state, last, bar)

    def restore():
        monkeypatch.setattr(training._Objective, "__call__", original)
        monkeypatch.setattr(fused.Steps, "advance", advance)

    monkeypatch.setattr(training._Objective, "__call__", call)
    monkeypatch.setattr(fused.Steps, "advance", limited)
    return restore


@pytest.mark.parametrize(
    ("network", "trainer"), [("additive", "native"), ("additive", "reference"), ("adaln", "auto")]
)
def test_an_interrupted_training_resumes_to_the_same_model(store, tmp_path, monkeypatch, network, trainer):
    monkeypatch.setattr(course, "CHECKPOINT_EVERY", 10)
    config = DiffusionConfig(**{**SMALL, "iterations": 75}, network=network, trainer=trainer)
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    diffuse(store, whole, config, seed=1)
    restore = interrupt(monkeypatch, 67)
    with pytest.raises(KeyboardInterrupt):
        diffuse(store, out, config, seed=1)
    restore()
    assert not out.exists()
    checkpoint = tmp_path / ".out.safetensors.checkpoint"
    assert checkpoint.exists()
    with pytest.raises(UsageError, match="other settings or data"):
        diffuse(store, out, config, seed=2, resume=True)
    with pytest.raises(UsageError, match="an interrupted run left its work here; go on with resume=True, or"):
        diffuse(store, out, config, seed=1)
    assert checkpoint.exists()
    counted = interrupt(monkeypatch, 15)  # 60 of the 75 iterations are done
    diffuse(store, out, config, seed=1, resume=True)
    counted()
    assert out.read_bytes() == whole.read_bytes()
    assert not checkpoint.exists()


def test_overwrite_starts_an_interrupted_training_afresh(store, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "CHECKPOINT_EVERY", 10)
    out = tmp_path / "out.safetensors"
    restore = interrupt(monkeypatch, 15)
    with pytest.raises(KeyboardInterrupt):
        diffuse(store, out, DiffusionConfig(**SMALL), seed=1)
    restore()
    diffuse(store, out, DiffusionConfig(**SMALL), seed=2, overwrite=True)
    assert ldmlr.LatentDiffusion.load(out).seed == 2
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


def test_a_finished_training_is_not_repeated(store, tmp_path):
    out = tmp_path / "model.safetensors"
    config = DiffusionConfig(**SMALL)
    _, first = diffuse(store, out, config)
    stamp = out.stat().st_mtime_ns
    model, again = diffuse(store, out, config, resume=True)
    assert (first["finished_before"], again["finished_before"]) == (False, True)
    assert out.stat().st_mtime_ns == stamp
    assert model.fingerprint() == ldmlr.LatentDiffusion.load(out).fingerprint()
    with pytest.raises(UsageError, match="other settings or data"):
        diffuse(store, out, config.replace(hidden=8), resume=True)
    with pytest.raises(UsageError, match="already exists"):
        diffuse(store, out, config)
    diffuse(store, out, config.replace(hidden=8), overwrite=True)
    assert ldmlr.LatentDiffusion.load(out).config.hidden == 8
    _, figures = diffuse(store, out, config, resume=True, overwrite=True)
    assert not figures["finished_before"]
    assert ldmlr.LatentDiffusion.load(out).config == config


def test_a_model_that_cannot_be_saved_leaves_the_training(store, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "CHECKPOINT_EVERY", 10)
    out, config = tmp_path / "out.safetensors", DiffusionConfig(**SMALL)

    def full(self, path, overwrite=False):
        raise LdmlrError(f"{path}: the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ldmlr.LatentDiffusion, "save", full)
        with pytest.raises(LdmlrError, match="the disk is full"):
            diffuse(store, out, config)
    assert checkpoint_path(out).exists()
    interrupt(monkeypatch, 10)  # 20 of the 30 iterations are kept
    diffuse(store, out, config, resume=True)
    assert out.exists()
    assert not checkpoint_path(out).exists()


def test_a_kill_after_the_model_was_saved_leaves_nothing_behind(store, tmp_path):
    out, config = tmp_path / "out.safetensors", DiffusionConfig(**SMALL)
    diffuse(store, out, config)
    checkpoint_path(out).write_bytes(b"left behind")
    _, again = diffuse(store, out, config, resume=True)
    assert again["finished_before"]
    assert not checkpoint_path(out).exists()


def test_a_damaged_checkpoint_is_named(store, tmp_path):
    (tmp_path / ".m.safetensors.checkpoint").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="damaged checkpoint"):
        diffuse(store, tmp_path / "m.safetensors", DiffusionConfig(**SMALL), resume=True)


def test_the_preview_trains_nothing(store):
    summary = preview(store, DiffusionConfig(**SMALL))
    assert (summary["rows"], summary["views"], summary["fewest rows of a class"]) == (93, 3, 8)


# The command


def small_options():
    return [part for key, value in SMALL.items() for part in (f"--{key.replace('_', '-')}", value)]


def test_the_command_trains_and_says_so(store, tmp_path, run_cli):
    out = tmp_path / "runs" / "model.safetensors"
    done = run_cli("diffuse", store.path, "--out", out, *small_options(), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["command"], result["rows"], result["views"]) == ("diffuse", 93, 3)
    assert result["config"]["hidden"] == 16
    assert json.loads((out.parent / "result.json").read_text()) == result
    assert ldmlr.LatentDiffusion.load(out).counts.tolist() == [60, 25, 8]
    again = run_cli("diffuse", store.path, "--out", out, *small_options())
    assert (again.returncode, again.stdout) == (2, "")
    assert "already exists" in again.stderr
    resumed = run_cli("diffuse", store.path, "--out", out, *small_options(), "--resume")
    assert resumed.returncode == 0
    assert "nothing to do" in resumed.stderr


def test_the_command_writes_nothing_on_a_dry_run(store, tmp_path, run_cli):
    done = run_cli("diffuse", store.path, "--out", tmp_path / "x" / "m.safetensors", "--dry-run")
    assert done.returncode == 0
    assert "parameters" in done.stdout
    assert not (tmp_path / "x").exists()


def test_the_command_reads_its_options_from_a_file(store, tmp_path, run_cli):
    config = tmp_path / "run.toml"
    config.write_text("[diffuse]\nhidden = 8\nlayers = 1\niterations = 5\n")
    out = tmp_path / "m.safetensors"
    done = run_cli("diffuse", store.path, "--out", out, "--config", config, "--iterations", 6)
    assert done.returncode == 0, done.stderr
    loaded = ldmlr.LatentDiffusion.load(out).config
    assert (loaded.hidden, loaded.iterations) == (8, 6)


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--hidden", "0"), 2, "--hidden"),
        (("--network", "unet"), 2, "--network"),
        (("--device", "tpu"), 2, "--device"),
        (("--lr", "1e30", "--iterations", "20"), 1, "loss is not finite"),
    ],
)
def test_the_command_fails_in_one_line_and_leaves_nothing(store, tmp_path, run_cli, options, status, message):
    out = tmp_path / "out" / "m.safetensors"
    done = run_cli("diffuse", store.path, "--out", out, "--hidden", 8, *options)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.parent.exists() or not any(out.parent.iterdir())


def test_the_command_names_a_class_without_rows(tmp_path, run_cli):
    features, labels = blobs()
    FeatureStore.write(tmp_path / "s.h5", train=SplitData(features, labels), num_classes=4)
    done = run_cli("diffuse", tmp_path / "s.h5", "--out", tmp_path / "m.safetensors")
    assert done.returncode == 1
    assert "class 3" in done.stderr
    assert not (tmp_path / "m.safetensors").exists()
