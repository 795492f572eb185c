"""``benchmarks/``: results are data. Each experiment has its file, the summary and all tables are current."""

from __future__ import annotations

import csv
import io
import json
import statistics
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.scripts import BENCHMARKS, benchmark_scripts

ROOT = Path(__file__).resolve().parent.parent
RESULTS = BENCHMARKS / "results"


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    with benchmark_scripts() as found:
        yield found


@pytest.fixture(scope="module")
def experiments(scripts: SimpleNamespace) -> dict[str, Any]:
    return dict(scripts.experiments.load())


@pytest.fixture(scope="module")
def summary(scripts: SimpleNamespace) -> Any:
    return scripts.pivot.Summary(scripts.summarise.read())


def cells(text: str) -> dict[tuple[str, str], list[str]]:
    """Return (first cell or the last one before it, second cell) -> the other cells of a table."""
    found, place = {}, ""
    for line in text.splitlines()[2:]:
        parts = [part.strip() for part in line.strip("|").split("|")]
        place = parts[0].strip("*") or place
        found[place, parts[1]] = parts[2:]
    return found


# ---------------------------------------------------------------- the experiments and their files


def test_every_experiment_has_its_file_and_every_file_its_experiment(
    scripts: SimpleNamespace, experiments: dict[str, Any]
) -> None:
    listed = {entry.file for entry in experiments.values()}
    there = {str(path.relative_to(RESULTS).as_posix()) for path in RESULTS.rglob("*") if path.is_file()}
    assert there == {*listed, "summary.csv"}
    for name, entry in experiments.items():
        topic, file = entry.file.split("/")
        assert topic in scripts.record.TOPICS
        assert file == f"{name}.json"
        assert scripts.record.sha256(RESULTS / entry.file) == entry.sha256, name


def test_every_experiment_says_what_it_is(experiments: dict[str, Any]) -> None:
    data = tomllib.loads((BENCHMARKS / "experiments.toml").read_text(encoding="utf-8"))["data"]
    for name, entry in experiments.items():
        assert entry.shows, name
        assert set(entry.data) <= set(data), name
        assert entry.status in ("kept", "tried", "superseded"), name
        assert not entry.parent or entry.parent in experiments, name
        assert entry.encoder or not entry.mirror, name
        if entry.was:  # measured by a command, not taken from a table or from a paper
            assert entry.commands, name
            assert entry.hardware, name
            assert entry.commit, name
    assert {place for entry in experiments.values() for place in entry.data} == set(data)
    for name, entry in experiments.items():
        rows = json.loads((RESULTS / entry.file).read_text(encoding="utf-8"))["rows"]
        found = {row["data"] for row in rows if "data" in row}
        assert not found or found == set(entry.data), name


def test_whole_documents_are_in_the_history(experiments: dict[str, Any]) -> None:
    wanted = [f"{entry.commit}:benchmarks/results/{entry.was}" for entry in experiments.values() if entry.was]
    done = subprocess.run(
        ["git", "cat-file", "--batch-check"],
        cwd=ROOT, input="\n".join(wanted), capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    if done.returncode != 0 or all(line.endswith("missing") for line in lines):
        pytest.skip("this copy has no history")
    assert [line for line in lines if " blob " not in line] == []
    assert len(lines) == len(wanted)


def test_files_hold_what_is_kept_and_nothing_else(
    scripts: SimpleNamespace, experiments: dict[str, Any]
) -> None:
    for name, entry in experiments.items():
        text = (RESULTS / entry.file).read_text(encoding="utf-8")
        assert len(text) < 100_000, name
        document = json.loads(text)
        assert scripts.record.slim(document) == document, name
        assert scripts.record.dump(document) == text, name


def test_means_are_those_of_the_seeds(experiments: dict[str, Any], scripts: SimpleNamespace) -> None:
    figures = 0
    for name, entry in experiments.items():
        for row in scripts.experiments.document(entry)["rows"]:
            for group in scripts.record.GROUPS:
                figure = row.get(group) if "method" in row else None
                if figure is not None:
                    figures += 1
                    assert figure["mean"] == pytest.approx(statistics.fmean(figure["values"]), abs=1e-4), name
                    spread = statistics.stdev(figure["values"]) if len(figure["values"]) > 1 else 0
                    assert figure["std"] == pytest.approx(spread, abs=2e-4), name
    assert figures > 3000


def test_the_tree_is_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    # Weights and records step by step do not belong here; source may grow with what it does.
    assert max(sizes.values()) < 7e5
    kept = (RESULTS, ROOT / "tests" / "fixtures", ROOT / "docs" / "pictures")
    assert sum(size for path, size in sizes.items() if any(folder in path.parents for folder in kept)) < 2.3e6
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 2e6


# ---------------------------------------------------------------- the summary


def test_the_summary_is_current(scripts: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts.summarise.main(["--check"]) == 0, capsys.readouterr().err


def test_the_summary_has_one_line_for_each_figure(scripts: SimpleNamespace) -> None:
    rows = scripts.summarise.read()
    places = {(*(row[name] for name in scripts.summarise.PLACE), row["quantity"]) for row in rows}
    assert len(places) == len(rows) > 5000
    methods = {row["method"] for row in rows}
    assert {"oversampling", "views", "ldmlr"} <= methods
    assert not {"random-oversampling", "duplicated-views"} & methods


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results" / "accuracy").mkdir(parents=True)
    (tmp_path / "experiments.toml").write_text("[experiments]\n")
    return tmp_path


def add(folder: Path, name: str, data: str, rows: list[tuple[Any, ...]] | str) -> None:
    """Add an experiment with rows of (method, adjustment, mean[, std]), or with any text as its file."""
    if not isinstance(rows, str):
        table = []
        for method, adjustment, mean, *std in rows:
            spread = std[0] if std else 0.0
            figure = {"mean": mean, "std": spread, "values": [mean - spread, mean + spread]}
            table.append({"method": method, "adjustment": adjustment, "all": figure})
        rows = json.dumps({"command": "run", "rows": table})
    (folder / "results" / "accuracy" / f"{name}.json").write_text(rows)
    with open(folder / "experiments.toml", "a") as file:
        file.write(
            f'[experiments.{name}]\nshows = "a test"\ndata = ["{data}"]\ncommands = []\n'
            f'file = "accuracy/{name}.json"\nsha256 = ""\n'
        )


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"command": "run", "rows": [{"method": "ldmlr"}]}'])
def test_a_broken_result_is_named(
    scripts: SimpleNamespace, folder: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    add(folder, "run-cifar10", "cifar10-lt", content)
    assert scripts.summarise.main(["--folder", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "run-cifar10.json: not a result document" in error
    assert error.count("\n") == 1
    assert not (folder / "results" / "summary.csv").exists()


def test_a_summary_that_is_not_current_fails(
    scripts: SimpleNamespace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(folder, "run-cifar10", "cifar10-lt", [("baseline", "none", 72.0)])
    assert scripts.summarise.main(["--check", "--folder", str(folder)]) == 1
    assert "is not current; run python benchmarks/summarise.py" in capsys.readouterr().err
    assert scripts.summarise.main(["--folder", str(folder)]) == 0
    assert scripts.summarise.main(["--check", "--folder", str(folder)]) == 0
    add(folder, "run-cifar100", "cifar100-lt", [("baseline", "none", 41.0)])
    assert scripts.summarise.main(["--check", "--folder", str(folder)]) == 1


# ---------------------------------------------------------------- the tables


def table(scripts: SimpleNamespace, name: str, folder: Path) -> str:
    """Return a table of the experiments in a folder."""
    text = scripts.summarise.summary(folder)
    return str(scripts.tables.render(name, scripts.pivot.Summary(csv.DictReader(io.StringIO(text)))))


def test_all_tables_of_all_pages_are_current(
    scripts: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scripts.render.main(["--check"]) == 0, capsys.readouterr().err


def test_every_table_has_figures_and_is_named_in_the_docstring(
    scripts: SimpleNamespace, summary: Any
) -> None:
    named = {
        line.split()[0] for line in scripts.render.__doc__.split("Names:")[1].splitlines() if line.strip()
    }
    assert named == set(scripts.tables.TABLES)
    for name in scripts.tables.TABLES:
        lines = scripts.tables.render(name, summary).splitlines()
        assert len(lines) > 3, name
        assert len({line.count("|") for line in lines}) == 1, name
        assert not any("not run" in line for line in lines), name


def test_the_table_of_the_committed_results(scripts: SimpleNamespace, summary: Any) -> None:
    found = cells(scripts.tables.render("paper", summary))
    run = json.loads((RESULTS / "accuracy" / "run-cifar10.json").read_text())
    recipe = next(row for row in run["rows"] if (row["method"], row["adjustment"]) == ("ldmlr", "none"))
    shown = f"{recipe['all']['mean']:.2f} ± {recipe['all']['std']:.2f}"
    assert found["CE", "measured, published features"][1] == shown
    assert found["CE", "published"] == ["72.46", "76.26", "41.28", "43.34"]
    assert {place for place, line in found if line == "published"} == {"CE", "label shift", "WCDAS"}
    home = scripts.tables.render("home", summary)
    assert f"| LDMLR | {shown} |" in home


def test_the_table_of_over_samplers(scripts: SimpleNamespace, summary: Any) -> None:
    lines = [line.split(" | ") for line in scripts.tables.render("keel", summary).splitlines()[2:]]
    assert len(lines) == 16
    kept = json.loads((RESULTS / "accuracy" / "keel-development.json").read_text())["rows"]
    rows = {(row["case"], row["what"]): row for row in kept}
    ranks = [float(line[1].split("(")[1].split(")")[0]) for line in lines]
    assert ranks == sorted(ranks)
    (ours,) = [line for line in lines if "LDMLR" in line[0]]
    row = rows["ldmlr, mean of classifiers", "auc"]
    assert ours[1] == f"{row['figure']['mean']:.3f} ({row['rank']:.1f})"
    (smote,) = [line for line in lines if line[0] == "| SMOTE"]
    row = rows["SMOTE, mean of classifiers", "g_mean"]
    assert smote[3].startswith(f"{row['figure']['mean']:.3f} ({row['rank']:.1f}), p .")
    assert float(smote[3].split("p ")[1]) == pytest.approx(row["wilcoxon_p"], abs=6e-4)


def test_published_figures_are_those_of_the_paper(scripts: SimpleNamespace, summary: Any) -> None:
    # Table 1 and 2 of LDMLR (arXiv 2404.04517), top-1 in per cent.
    lines = scripts.tables.render("published", summary).splitlines()[2:]
    assert lines == [
        "| CE | 88.22 | 72.46 | 58.70 | 41.28 | 35.8 |",
        "| label shift | 89.46 | 80.88 | 61.81 | 48.58 | 41.7 |",
        "| WCDAS | 92.48 | 84.67 | 65.92 | 50.95 | 44.6 |",
        "| CE + LDMLR | 89.13 | 76.26 | 60.10 | 43.34 | 37.2 |",
        "| label shift + LDMLR | 89.70 | 82.77 | 62.67 | 49.76 | 42.2 |",
        "| WCDAS + LDMLR | 92.58 | 86.29 | 66.32 | 51.92 | 44.8 |",
    ]


def test_what_was_not_measured_has_no_cell(scripts: SimpleNamespace, folder: Path) -> None:
    with pytest.raises(ValueError, match="table paper: the table has no figures"):
        table(scripts, "paper", folder)
    add(folder, "published", "cifar10-lt", [("baseline", "none", 72.46), ("ldmlr", "none", 76.26)])
    text = table(scripts, "paper", folder)
    assert cells(text) == {("CE", "published"): ["72.46", "76.26"]}
    assert "CIFAR-100-LT" not in text
    assert "GLMC" not in text


def test_each_result_finds_its_row_and_column(scripts: SimpleNamespace, folder: Path) -> None:
    both = [("baseline", "none", 41.0), ("baseline", "label-shift", 48.0), ("ldmlr", "none", 49.0, 0.5)]
    add(folder, "run-cifar100", "cifar100-lt", both)
    # compare repeats what run has, and adds the paper's setting.
    other = [
        ("baseline", "none", 41.0),
        ("ldmlr", "none", 2.0),
        ("ldmlr-paper", "none", 43.0),
        ("smote", "none", 3.0),
    ]
    add(folder, "compare-cifar100", "cifar100-lt", other)
    own = [("baseline", "none", 73.0), ("ldmlr", "none", 82.0), ("ldmlr", "label-shift", 83.0)]
    add(folder, "run-cifar10-ce-mixup", "cifar10-lt", own)
    kinds = ("wcdas-once-restart", "wcdas-taught", "wcdas-retaught", "wcdas-wide", "wcdas-x4")
    for value, kind in enumerate(kinds, start=60):
        add(folder, f"run-cifar10-{kind}", "cifar10-lt", [("ldmlr", "none", float(value))])
        add(folder, f"run-cifar10-{kind}-mirror", "cifar10-lt", [("ldmlr", "none", value + 0.5)])
    add(folder, "run-digits", "digits-lt", both)
    text = table(scripts, "paper", folder)
    found = cells(text)
    assert text.splitlines()[0] == "| top-1 % |  | CIFAR-10-LT | + LDMLR | CIFAR-100-LT | + LDMLR |"
    assert found["CE", "measured, published features"] == ["", "", "41.00", "49.00 ± 0.50"]
    assert found["CE", "the same, the paper's setting"] == ["", "", "41.00", "43.00"]
    assert found["CE", "measured, encoder of `ldmlr baseline`"] == ["73.00", "82.00", "", ""]
    assert found["label shift", "measured, published features"] == ["", "", "48.00", ""]
    assert found["label shift", "measured, encoder of `ldmlr baseline`"] == ["", "83.00", "", ""]
    wcdas = [figures[1] for (place, _), figures in found.items() if place == "WCDAS"]
    assert wcdas == [f"{value + half:.2f}" for value in range(60, 65) for half in (0, 0.5)]


def test_a_figure_that_is_not_unique_is_refused(scripts: SimpleNamespace, folder: Path) -> None:
    add(folder, "run-cifar10", "cifar10-lt", [("baseline", "none", 1.0), ("baseline", "none", 2.0)])
    with pytest.raises(ValueError, match="table paper: 2 figures have"):
        table(scripts, "paper", folder)


def test_check_and_write(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs" / "more").mkdir(parents=True)
    page, other = tmp_path / "README.md", tmp_path / "docs" / "more" / "other.md"
    begin, end = scripts.render.BEGIN.format("home"), scripts.render.END
    page.write_text(f"before\n{begin}\nold\n{end}\nbetween\n{begin}\n{end}\nafter\n")
    other.write_text("no table\n")
    common = ["--root", str(tmp_path)]
    assert scripts.render.main([*common, "--check"]) == 1
    assert "README.md: not current; run python benchmarks/render.py --write" in capsys.readouterr().err
    assert "old" in page.read_text()
    assert scripts.render.main([*common, "--write"]) == 0
    assert page.read_text().startswith(f"before\n{begin}\n| top-1 %")
    assert page.read_text().endswith(f"\n{end}\nafter\n")
    assert page.read_text().count("| top-1 %") == 2
    assert other.read_text() == "no table\n"
    assert scripts.render.main([*common, "--check"]) == 0
    capsys.readouterr()
    assert scripts.render.main(["home"]) == 0
    assert capsys.readouterr().out.strip() in page.read_text()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{begin}\nold\n", "begins or ends without the other mark"),
        ("{end}\n{begin}\n", "begins or ends without the other mark"),
        ("{begin}\n{begin}\n{end}\n", "begins or ends without the other mark"),
        ("<!-- table: nonsense -->\n{end}\n", "no table is called 'nonsense'; there are home"),
    ],
)
def test_a_page_whose_marks_make_no_table_is_refused(
    scripts: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    marks = {"begin": scripts.render.BEGIN.format("home"), "end": scripts.render.END}
    (tmp_path / "README.md").write_text(text.format(**marks))
    assert scripts.render.main(["--root", str(tmp_path), "--write"]) == 1
    said = capsys.readouterr().err
    assert "README.md" in said
    assert error in said
    assert (tmp_path / "README.md").read_text() == text.format(**marks)


def test_a_name_that_is_no_table_is_refused(
    scripts: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scripts.render.main(["nonsense"]) == 1
    assert "no table is called 'nonsense'" in capsys.readouterr().err
