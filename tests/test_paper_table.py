"""``benchmarks/paper_table.py``: the table comes from the result files, and the README's copy is current."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks" / "paper_table.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paper_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figure(mean, std=0.0):
    return {"mean": mean, "std": std, "values": [mean - std, mean + std]}


def document(command, rows, config=None, **more):
    table = [
        {"method": method, "adjustment": adjustment, "all": figure(*numbers)}
        for method, adjustment, *numbers in rows
    ]
    return {"command": command, "rows": table, "config": config or {}, **more}


def save(folder, name, content):
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def cells(text):
    """Return (row, line) -> figures of a markdown table."""
    found, place = {}, ""
    for line in text.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if len(parts) == 7 and parts[0] != "top-1 %" and "---" not in parts[0]:
            place = parts[0].strip("*") or place
            found[place, parts[1]] = parts[2:]
    return found


def test_the_copy_in_the_readme_is_current(script, capsys):
    assert script.main(["--check", str(ROOT / "README.md")]) == 0, capsys.readouterr().err


def test_the_table_of_the_committed_results(script):
    found = cells(script.markdown(script.read_cells(script.RESULTS)))
    run = json.loads((script.RESULTS / "run-cifar10-lt-if100-features.json").read_text())
    recipe = next(row for row in run["rows"] if (row["method"], row["adjustment"]) == ("ldmlr", "none"))
    shown = found["CE + LDMLR", "measured"][script.COLUMNS.index("C10 IF100")]
    assert shown == f"{recipe['all']['mean']:.2f} ± {recipe['all']['std']:.2f}"
    assert found["CE + LDMLR", "published"] == ["89.13", "76.26", "60.10", "43.34", "37.2"]
    assert {place for place, line in found if line == "published"} >= set(script.PUBLISHED)


def test_what_was_not_measured_is_called_so(script, tmp_path):
    text = script.markdown(script.read_cells(tmp_path))
    found = cells(text)
    assert len(found) == 2 * len(script.PUBLISHED)
    assert all(found[place, "measured"] == ["not run"] * 5 for place in script.PUBLISHED)
    assert "best epoch on the test set" in text
    assert "GLMC" not in text


def test_each_result_finds_its_row_line_and_column(script, tmp_path):
    both = [("baseline", "none", 41.0), ("baseline", "label-shift", 48.0), ("ldmlr", "none", 49.0, 0.5)]
    save(tmp_path, "run-cifar100-lt-if10-features.json", document("run", both))
    # compare repeats what run has, and adds the paper's setting.
    other = [
        ("baseline", "none", 1.0),
        ("ldmlr", "none", 2.0),
        ("ldmlr-paper", "none", 43.0),
        ("smote", "none", 3.0),
    ]
    save(tmp_path, "compare-cifar100-lt-if10.json", document("compare", other, head={"baseline": "linear"}))
    save(tmp_path, "baseline-cifar10-lt-if10-x.json", document("baseline", both, {"head": "wcdas"}))
    save(tmp_path, "run-cifar10-lt-if10-wcdas.json", document("run", both))
    mirrored = [("baseline", "none", 42.0), ("ldmlr", "none", 50.0)]
    save(tmp_path, "run-cifar10-lt-if10-wcdas-mirror.json", document("run", mirrored))
    endings = {
        f"{part}{ending}": (part, ending, value)
        for value, part in enumerate(("taught", "retaught", "wide", "x4"), start=60)
        for ending in ("", "-mirror")
    }
    for name, (_, ending, value) in endings.items():
        figure = document("run", [("ldmlr", "none", value + bool(ending) / 2)])
        save(tmp_path, f"run-cifar10-lt-if10-wcdas-{name}.json", figure)
    save(tmp_path, "run-imagenet-lt.json", document("run", both, {"baseline": {"head": "wcdas"}}))
    save(tmp_path, "run-cifar10-lt-if100-glmc.json", document("run", both))
    save(tmp_path, "run-cifar10-own-features.json", document("run", both))
    save(tmp_path, "run-digits-lt.json", document("run", both))
    save(tmp_path, "ablate-cifar10-lt-if100.json", "{")
    found = cells(script.markdown(script.read_cells(tmp_path)))
    none = "not run"
    own, mirror = script.ENCODERS[""]
    assert found["CE", script.GIVEN] == [none, none, "41.00", none, none]
    assert found["label shift", script.GIVEN] == [none, none, "48.00", none, none]
    assert found["CE + LDMLR", script.GIVEN] == [none, none, "49.00 ± 0.50", none, none]
    assert found["CE + LDMLR", script.PAPER] == [none, none, "43.00", none, none]
    assert found["CE + LDMLR", own] == [none, "49.00 ± 0.50", none, none, none]
    assert found["WCDAS", own] == ["41.00", none, none, none, "41.00"]
    assert found["WCDAS + LDMLR", own] == ["49.00 ± 0.50", none, none, none, "49.00 ± 0.50"]
    assert found["WCDAS", mirror] == ["42.00", none, none, none, none]
    assert found["WCDAS + LDMLR", mirror] == ["50.00", none, none, none, none]
    for part, ending, value in endings.values():
        line = script.ENCODERS[part][bool(ending)]
        expected = f"{value + bool(ending) / 2:.2f}"
        assert found["WCDAS + LDMLR", line] == [expected, none, none, none, none]
    assert ("WCDAS", script.ENCODERS["taught"][0]) not in found
    assert found["GLMC, MaxNorm", own] == [none, "41.00", none, none, none]
    assert ("WCDAS", script.GIVEN) not in found


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("cifar10-lt-if100-features", "C10 IF100"), ("cifar10-lt-if10", "C10 IF10"),
        ("cifar100-if10-wcdas", "C100 IF10"), ("cifar100-own-features", "C100 IF100"),
        ("imagenet-lt-r10", "ImageNet-LT"), ("cifar10-lt-if50", None), ("cifar10-lt-if1000", None),
        ("digits-lt", None),
    ],
)  # fmt: skip
def test_names_say_the_column(script, name, column):
    assert script.column_of(name) == column


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"command": "run", "config": {}, "rows": [{}]}'])
def test_a_broken_result_is_named(script, tmp_path, capsys, content):
    save(tmp_path, "run-cifar10-lt-if10.json", content)
    assert script.main(["--results", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "run-cifar10-lt-if10.json: not a result document" in error
    assert error.count("\n") == 1


def test_check_and_write(script, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    common = ["--results", str(tmp_path)]
    assert script.main([*common, "--check", str(page)]) == 1
    assert "page.md: is not current; run benchmarks/paper_table.py --write" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert script.main([*common, "--write", str(page)]) == 0
    assert page.read_text().startswith(f"before\n{script.BEGIN}\n| top-1 %")
    assert page.read_text().endswith(f"\n{script.END}\nafter\n")
    assert script.main([*common, "--check", str(page)]) == 0
    assert script.main(common) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] in page.read_text()

    save(tmp_path, "run-cifar10-lt-if10.json", document("run", [("baseline", "none", 88.0)]))
    assert script.main([*common, "--check", str(page)]) == 1


@pytest.mark.parametrize("text", ["nothing", "{end}\n{begin}\n"])
def test_a_page_without_the_marks_is_refused(script, tmp_path, capsys, text):
    page = tmp_path / "page.md"
    page.write_text(text.format(begin=script.BEGIN, end=script.END))
    assert script.main(["--check", str(page)]) == 1
    assert "page.md: has no table between" in capsys.readouterr().err
    assert script.main(["--check", str(tmp_path / "absent.md")]) == 1


def test_published_figures_are_those_of_the_readme_summary(script):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in ("CE + LDMLR", "label shift + LDMLR"):
        line = re.search(rf"^\| published: {re.escape(row)} \(.*\|$", readme, re.M)
        assert line is not None
        ends = (script.PUBLISHED[row][script.COLUMNS.index(name)] for name in ("C10 IF100", "C100 IF100"))
        assert line[0].endswith(f"| {' | '.join(ends)} |")
