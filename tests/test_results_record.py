"""``benchmarks/record.py``: what is kept of a result document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.scripts import benchmark_scripts


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    with benchmark_scripts() as found:
        yield found


def test_record_keeps_the_figures_of_a_result(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = {"mean": 81.123456789, "std": 0.1, "values": [81.0, 81.246913578]}
    row = {
        "method": "ldmlr",
        "adjustment": "none",
        "all": figure,
        "few": None,
        "per_class": [1.0],
        "steps": 10,
    }
    whole = {
        "command": "run", "rows": [row], "steps": [{"stage": "diffuse"}], "losses": [1.0],
        "seconds": 1.23456789, "command_line": "ldmlr run /home/me/a.h5 --out=/home/me/b 'c d' --mix 1/2",
        "teacher": {"model": "a", "sha256": "b", "config": {"epochs": 3}},
        "inputs": {"/home/me/a.h5": "e3b0"}, "head": "/home/me/run/head.safetensors",
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(whole))
    common = [str(tmp_path / "result.json"), "--results", str(tmp_path), "--topic", "accuracy", "--id"]
    assert scripts.record.main([*common, "run-mine"]) == 0
    path = tmp_path / "accuracy" / "run-mine.json"
    kept = json.loads(path.read_text())
    assert kept == {
        "command": "run",
        "rows": [
            {
                "method": "ldmlr", "adjustment": "none", "few": None, "steps": 10,
                "all": {"mean": 81.123457, "std": 0.1, "values": [81.0, 81.2469]},
            }
        ],
        "seconds": 1.23457,
        "command_line": "ldmlr run a.h5 --out=b 'c d' --mix 1/2",
        "teacher": {"model": "a", "sha256": "b"},
        "inputs": {"a.h5": "e3b0"},
        "head": "head.safetensors",
    }  # fmt: skip
    entry = capsys.readouterr().out
    assert "[experiments.run-mine]" in entry
    assert scripts.record.sha256(path) in entry

    assert scripts.record.main([*common, "My Run"]) == 1
    (tmp_path / "result.json").write_text("{}")
    assert scripts.record.main([*common, "run-mine"]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_the_mean_over_classes_is_kept_of_rows_that_are_judged_by_it(scripts: SimpleNamespace) -> None:
    figure = {"mean": 70.12345678, "std": 0.0, "values": [70.12345678]}
    row = {"method": "ldmlr", "adjustment": "none", "all": figure, "balanced": figure}
    assert "balanced" not in scripts.record.slim({"rows": [row]})["rows"][0]
    document = scripts.record.slim({"rows": [row | {"judged_by": "balanced"}]})
    assert document["rows"][0]["balanced"] == {"mean": 70.123457, "std": 0.0, "values": [70.1235]}
    assert scripts.record.slim(document) == document
    experiment = SimpleNamespace(id="mine", data=["own"], file="own.json")
    lines = list(scripts.summarise._accuracies(experiment, document["rows"][0]))
    assert [line["group"] for line in lines] == ["all", "balanced"]
