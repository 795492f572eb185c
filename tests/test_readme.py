"""Every command and snippet of the README runs, in order, as a newcomer would run it."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from support.pages import ROOT, blocks, commands, read

from ldmlr.data import open_image_set
from ldmlr.store import FeatureStore, SplitData

README = read("README.md")
# What is added to a command so that it takes seconds here.
QUICKER = {
    "ldmlr run digits-lt": "--seeds 2 --set baseline.epochs=20 --set diffuse.iterations=300",
    "ldmlr run photos": "--seeds 2 --image-size 8 --set baseline.epochs=2 --set diffuse.iterations=60",
    "ldmlr run emb.npz": "--folds 2 --seed 0 --set diffuse.iterations=30",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the README takes for granted: images in folders, features in files."""
    path = tmp_path_factory.mktemp("readme")
    images = open_image_set("digits-lt", seed=0)
    splits = {}
    for name, split in (("train", images.train), ("test", images.test)):
        pixels, labels = split.load(np.arange(len(split))), split.labels
        splits[name] = {"features": pixels.reshape(len(pixels), -1) / 255, "labels": labels}
        for label in range(3):
            place = path / "photos" / name / f"digit{label}"
            place.mkdir(parents=True)
            for i in np.flatnonzero(labels == label)[: 24 // (label + 1)]:
                Image.fromarray(pixels[i].squeeze()).save(place / f"{i}.jpg")
    FeatureStore.write(path / "features.h5", **{name: SplitData(**split) for name, split in splits.items()})
    few = splits["train"]["labels"] < 3
    np.savez(path / "emb.npz", **{name: values[few][::4, ...] for name, values in splits["train"].items()})
    np.savez(path / "new.npz", features=splits["test"]["features"])
    return path


@pytest.mark.parametrize("line", [line for line, _ in commands("README.md")], ids=lambda line: line[:40])
def test_every_command_runs(line, folder, monkeypatch, run_cli):
    monkeypatch.chdir(folder)
    quicker = next((more for start, more in QUICKER.items() if line.startswith(start)), "")
    done = run_cli(*shlex.split(line)[1:], *quicker.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if line == "ldmlr run digits-lt":
        table, verdict = done.stdout.split("\n\n")[:2]
        shown = [row.split()[0] for row in table.splitlines()[2:]]
        assert "generation" in verdict.lower()
        assert shown == ["baseline", "baseline", "ldmlr", "ldmlr"]


def test_what_run_prints_is_what_it_printed():
    printed = next(code.text for code in blocks("README.md", "text") if "baseline" in code.text)
    table, verdict = printed.split("\n\n")
    lines = table.splitlines()
    path = ROOT / "benchmarks" / "results" / "accuracy" / "run-digits.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = document["rows"]
    assert verdict.strip() == document["verdict"]
    assert lines[0].split()[2:] == ["all", "many", "medium", "few"]
    assert len(rows) == len(lines) - 2 == 4
    for row, line in zip(rows, lines[2:], strict=True):
        cells = re.split(r"  +", line)
        adjustment = "" if row["adjustment"] == "none" else f" + {row['adjustment']}"
        assert cells[0] == row["method"] + adjustment
        figures = [row[group] for group in ("all", "many", "medium", "few")]
        assert cells[1:] == [f"{figure['mean']:.2f} ± {figure['std']:.2f}" for figure in figures]


def test_the_python_snippet_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(blocks("README.md", "python")[0].text, "README.md", "exec"), names)
    assert names["rows"].shape == (100, names["store"].dim)
    assert names["head"].predict(names["store"].test.features).shape == (540,)
    assert len(names["data"]) == 1200
    counts = [int((names["y2"] == label).sum()) for label in range(10)]
    assert counts == [120] * 10


def test_the_test_command_is_the_one_that_ci_runs():
    after = README.split("<!-- test command -->\n", 1)[1]
    assert re.match(r"```sh\npip install -c constraints\.txt -e '\.\[test\]' && pytest -n auto\n```\n", after)
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


def test_it_is_one_page():
    assert len(README.splitlines()) < 150
    for paragraph in re.split(r"\n\n+", re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)):
        if not paragraph.lstrip().startswith(("|", "<!--", "- ")):
            assert len(paragraph.split()) <= 70, paragraph
