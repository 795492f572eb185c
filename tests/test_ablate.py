"""``ldmlr ablate``: what is varied, the table, the plot, and bad input."""

from __future__ import annotations

import csv
import io
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.experiments.ablate import ablate
from ldmlr.experiments.settings import KINDS, AblateConfig, make_settings
from ldmlr.experiments.text import ablation_csv, dot_plot
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import plan_from_config
from ldmlr.report.ablation import ablation_plot
from ldmlr.report.theme import LIGHT
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.store import FeatureStore, SplitData

QUICK = ("--set", "diffuse.iterations=10", "--set", "diffuse.hidden=8", "--set", "finetune.epochs=1")
COUNTS = (130, 40, 12, 3)


def write_store(path: Path, counts: tuple[int, ...] = COUNTS, test: bool = True) -> Path:
    rng = np.random.default_rng(0)
    centre = 1.5 * rng.normal(size=(len(counts), 5))

    def rows(labels):
        return (centre[labels] + rng.normal(size=(len(labels), 5))).astype(np.float32)

    labels, held = np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(counts)), 20)
    split = SplitData(rows(held), held) if test else None
    FeatureStore.write(path, train=SplitData(rows(labels), labels), test=split)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_store(tmp_path_factory.mktemp("ablate") / "features.h5")


def settings(kind, *values, model=None, drawing=None):
    return make_settings(kind, values, model or DiffusionConfig(), drawing or GenerateConfig())


def test_an_ablation_as_a_user_calls_it(run_cli, store, tmp_path):
    out, table, plot = tmp_path / "out", tmp_path / "table.csv", tmp_path / "ratio.svg"
    done = run_cli(
        "ablate", "ratio", store, "--values", "0,0.5", "--values", "balance", "--seeds", 2, *QUICK,
        "--out", out, "--csv", table, "--plot", plot, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "result.json").read_text()) == result
    assert (result["command"], result["ablation"], result["values"]) == (
        "ablate", "ratio", ["0", "0.5", "balance"],
    )  # fmt: skip
    assert [(row["method"], row["setting"], row["adjustment"]) for row in result["rows"]] == [
        (method, setting, adjustment)
        for method, setting in (("baseline", None), ("ldmlr", "0"), ("ldmlr", "0.5"), ("ldmlr", "balance"))
        for adjustment in ("none", "label-shift")
    ]
    for row in result["rows"]:
        for column in ("all", "many", "medium", "few"):
            assert row[column]["mean"] == pytest.approx(np.mean(row[column]["values"]))
            assert row[column]["std"] == pytest.approx(np.std(row[column]["values"], ddof=1))
    generated = {row["setting"]: row["generated"] for row in result["rows"][2:]}
    # Half of 130, 40, 12 and 3 rows, half a row rounded up; balance fills each class up to 130.
    assert generated == {"0": 0, "0.5": 65 + 20 + 6 + 2, "balance": 4 * 130 - sum(COUNTS)}
    assert all(len(row["seconds"]["values"]) == 2 for row in result["rows"][2:])
    assert result["rows"][2]["drawing_seconds"]["mean"] == 0
    assert result["rows"][6]["drawing_seconds"]["mean"] > 0
    assert result["selection"].startswith("last epoch")
    assert result["seeds"] == [0, 1]
    assert result["backend"] in ("native", "reference", "cuda")
    assert result["config"]["diffuse"]["hidden"] == 8

    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [line["setting"] for line in lines] == ["", "", "0", "0", "0.5", "0.5", "balance", "balance"]
    for line, row in zip(lines, result["rows"], strict=True):
        assert float(line["few_mean"]) == pytest.approx(row["few"]["mean"], abs=1e-4)
    assert [line["generated"] for line in lines[:3]] == ["", "", "0"]
    assert plot.read_text() == (out / "plot.svg").read_text()
    assert done.stderr.count("3 settings") == 2


def test_the_table_and_the_plot_of_the_terminal(run_cli, store):
    done = run_cli("ablate", "guidance", store, "--values", "1.5,1", "--seeds", 1, *QUICK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["guidance", "all", "many", "medium", "few", "rows", "s/seed"]
    names = [line.split()[0] for line in lines[2:8]]
    assert names == ["baseline", "baseline", "1.5", "1.5", "1", "1"]
    assert sum("o" in line and ".." in line for line in lines) == 6
    said = "Selection: last epoch; measured on the test split: shows what a setting does, and chooses none."
    assert said in done.stdout
    assert "label shift of every fine-tuned head: 0.5 x baseline head + 0.5 x new head" in done.stdout


def test_the_same_seeds_give_the_same_figures_whatever_else_is_tried(run_cli, store):
    def rows(*values):
        done = run_cli("ablate", "ratio", store, "--values", ",".join(values), "--seeds", 1, *QUICK, "--json")
        return {
            (row["setting"], row["adjustment"]): row["all"]["values"]
            for row in json.loads(done.stdout)["rows"]
        }

    some, alone = rows("balance", "0.2", "1"), rows("1")
    assert {key: some[key] for key in alone} == alone


def test_a_setting_has_the_figures_of_a_run(run_cli, store, tmp_path):
    ran = run_cli("run", store, "--seeds", 1, "--out", tmp_path / "run", *QUICK, "--json")
    found = run_cli("ablate", "guidance", store, "--values", "1.5", "--seeds", 1, *QUICK, "--json")
    keep = ("method", "adjustment", "all", "many", "medium", "few")
    expected, rows = (
        [{k: row[k] for k in keep} for row in json.loads(done.stdout)["rows"]] for done in (ran, found)
    )
    assert rows == expected


@pytest.mark.parametrize(("kind", "values", "trained"), [
    ("ratio", ("0.2", "1", "balance"), 1), ("steps", ("ddim:2", "2"), 1), ("width", ("4", "8"), 2),
    ("ratio", ("0",), 0),
])  # fmt: skip
def test_a_model_is_trained_once_per_seed_and_configuration(store, monkeypatch, kind, values, trained):
    fitted = []
    fit = LatentDiffusion.fit

    def counted(self, *args, **more):
        fitted.append(self)
        return fit(self, *args, **more)

    monkeypatch.setattr(LatentDiffusion, "fit", counted)
    quick = {"diffuse": {"iterations": 3, "hidden": 4}, "finetune": {"epochs": 1}}
    with FeatureStore.open(store) as opened:
        figures = ablate(opened, kind, AblateConfig(values=values), stage_tables(quick, RunConfig()), seeds=2)
    assert len(fitted) == 2 * trained
    assert len(figures["rows"]) == 2 + 2 * len(figures["values"])


def test_ratio_sets_the_plan_and_nothing_else():
    counts = np.array(COUNTS)
    drawing = GenerateConfig(strategy="minority", target=500, only=("few",), guidance=2.0)
    found = settings("ratio", "0.1", "balance", "0", drawing=drawing)
    assert [setting.name for setting in found] == ["0.1", "balance", "0"]
    plans = [plan_from_config(counts, setting.drawing).tolist() for setting in found]
    # The groups of --only stay; the paper's minimum is one row.
    assert plans == [[0, 0, 1, 1], [0, 0, 118, 127], [0, 0, 0, 0]]
    assert {setting.drawing.guidance for setting in found} == {2.0}
    given = GenerateConfig(count=("1=7",))
    assert plan_from_config(counts, settings("ratio", "1", drawing=given)[0].drawing).tolist() == list(COUNTS)


def test_groups_are_unions_of_the_classes_that_are_filled():
    counts = np.array(COUNTS)
    found = {
        setting.name: plan_from_config(counts, setting.drawing).tolist() for setting in settings("groups")
    }
    assert list(found) == ["many", "medium", "few", "many+medium", "many+few", "medium+few", "all"]
    assert found["medium"] == [0, 90, 0, 0]
    assert found["medium+few"] == [0, 90, 118, 127]
    assert found["all"] == plan_from_config(counts, GenerateConfig()).tolist()
    assert [s.name for s in settings("groups", "few + medium,medium+few", "few+few", "all")] == [
        "medium+few", "few", "all",
    ]  # fmt: skip


def test_steps_widths_and_guidance_change_what_they_say():
    steps = settings("steps", "7", "heun:3", "ddim:7", drawing=GenerateConfig(solver="ddim", eta=0.5))
    assert [(s.drawing.solver, s.drawing.steps, s.drawing.eta) for s in steps] == [
        ("ddim", 7, 0.5), ("dpmpp2m", 7, 0.0), ("heun", 3, 0.0),
    ]  # fmt: skip
    assert [s.model.hidden for s in settings("width", "32, 64", "32")] == [32, 64]
    assert [s.drawing.guidance for s in settings("guidance", "1", "1.0,0.5")] == [1.0, 0.5]
    for name, kind in KINDS.items():
        assert [setting.name for setting in settings(name)] == list(kind.values)


def test_a_group_without_classes_is_left_out_and_refused_by_name(run_cli, tmp_path):
    path = write_store(tmp_path / "two.h5", (130, 40))
    done = run_cli("ablate", "groups", path, "--seeds", 1, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["values"] == ["many", "medium", "many+medium"]
    assert result["left_out"] == ["few", "many+few", "medium+few", "all"]
    assert result["rows"][0]["few"] is None
    assert "few_mean" in ablation_csv(result["rows"]).splitlines()[0]
    named = run_cli("ablate", "groups", path, "--values", "few", "--seeds", 1)
    assert named.returncode == 2
    assert "--values: this store has no few classes to fill" in named.stderr


def test_options_come_from_a_toml_file(run_cli, store, tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(
        "seeds = 3\n[ablate]\nvalues = [0.5, 'balance']\n[diffuse]\nhidden = 4\niterations = 3\n"
        "[generate]\nguidance = 2.0\n[finetune]\nepochs = 5\n"
    )
    done = run_cli(
        "ablate", "ratio", store, "--config", path, "--seeds", 1, "--set", "finetune.epochs=1", "--json"
    )
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert config["values"] == ["0.5", "balance"]
    assert (config["seeds"], config["diffuse"]["hidden"], config["finetune"]["epochs"]) == (1, 4, 1)
    assert config["generate"]["guidance"] == 2.0
    # What the ablation varies is its own, whatever a file for whole runs says.
    again = run_cli("ablate", "guidance", store, "--config", path, "--values", "1", "--seeds", 1, "--json")
    assert json.loads(again.stdout)["values"] == ["1"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("ratios",), "KIND: unknown value 'ratios'; did you mean 'ratio'?"),
        (("ratio", "--values", "half"), "--values: expected a ratio from 0 or balance, not 'half'"),
        (("ratio", "--values", "-1"), "--values: expected a ratio from 0 or balance, not '-1'"),
        (("ratio", "--values", "inf"), "--values: expected a ratio from 0"),
        (("ratio", "--values", "0.1,"), "--values: expected a ratio from 0 or balance, not ''"),
        (("groups", "--values", "many+fw"), "--values: unknown group 'fw'; did you mean 'few'?"),
        (("steps", "--values", "dim:5"), "--values: unknown solver 'dim'; did you mean 'ddim'?"),
        (("steps", "--values", "ddim:0"), "--values: expected SOLVER:STEPS such as ddim:10"),
        (("steps", "--values", "2.5"), "--values: expected SOLVER:STEPS"),
        (("guidance", "--values", "nan"), "--values: expected a guidance from 0, not 'nan'"),
        (("guidance", "--set", "diffuse.label_dropout=0"), "diffuse.label_dropout: must be above 0"),
        (("width", "--values", "0"), "--values: expected a width from 1, not '0'"),
        (("ratio", "--set", "generate.ratio=0.5"), "ablate ratio varies generate.ratio itself; use --values"),
        (("width", "--set", "diffuse.hidden=9"), "ablate width varies diffuse.hidden itself"),
        (("ratio", "--set", "baseline.epochs=2"), "an ablation has no stage 'baseline'"),
        (("ratio", "--set", "diffuse.hiden=2"), "did you mean 'hidden'?"),
        (
            ("ratio", "--set", "generate.gate=head"),
            "gate head: ldmlr ablate draws rows without a gate",
        ),
        (("ratio", "--groups", "many"), "--groups: expected two thresholds"),
        (("ratio", "--seeds", "0"), "--seeds"),
        (("ratio", "--plot", "there.svg"), "there.svg: already exists"),
        (("ratio", "--plot", "x.gif"), "--plot x.gif: name a file that ends in .svg, .pdf or .png"),
        (("ratio", "--plot", "plot"), "--plot plot: name a file that ends in .svg"),
    ],
)
def test_a_wrong_option_is_one_clear_line(run_cli, store, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    Path("there.svg").write_text("kept")
    done = run_cli("ablate", args[0], store, *args[1:], "--out", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.svg"]
    assert Path("there.svg").read_text() == "kept"


def test_a_store_that_cannot_be_used_is_refused(run_cli, tmp_path):
    assert run_cli("ablate", "ratio", tmp_path / "absent.h5").returncode == 1
    gap = write_store(tmp_path / "gap.h5", (10, 0, 5))
    done = run_cli("ablate", "ratio", gap)
    assert done.returncode == 1
    assert "1 of 3 classes have no encoded row (class 1 first)" in done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["gap.h5"]


def row(setting, mean, std=0.0, adjustment="none"):
    figure = {"mean": mean, "std": std, "values": [mean, mean]}
    return {"method": "ldmlr" if setting else "baseline", "setting": setting, "adjustment": adjustment,
            "all": figure}  # fmt: skip


def test_the_plot_of_characters_puts_each_mean_where_it_is():
    text = dot_plot(
        [row(None, 70.0), row("0.1", 80.0, 10.0), row("x", 50.0, adjustment="label-shift")], "none"
    )
    head, first, second = text.splitlines()
    assert head.split() == ["70.00", "90.00"]
    assert first.split()[1] == "o" + "." * 47
    dots = second.split()[1]
    assert (dots.index("o"), dots.count("-")) == (24, 47)
    # All the same: no room to spread over, and no error.
    assert dot_plot([row("a", 50.0), row("b", 50.0)], "none").count("o") == 2


def test_the_svg_holds_each_figure_and_escapes_names():
    rows = [row(None, 72.5), row(None, 80.0, adjustment="label-shift")]
    for at, name in enumerate(["a<b", "balance"]):
        rows += [row(name, 75.0 + at, 0.5), row(name, 81.0 + at, 0.1, "label-shift")]
    root = ElementTree.fromstring(ablation_plot(rows, 'ratio & "co"'))
    space = "{http://www.w3.org/2000/svg}"
    title = str(root.findtext(f"{space}title"))
    assert title.startswith('ratio & "co". ')
    for told in (
        "baseline, as it is: 72.50 ± 0.00", "a<b, as it is: 75.00 ± 0.50", "balance, as it is: 76.00 ± 0.50",
        "a<b, with label shift: 81.00 ± 0.10", "balance, with label shift: 82.00 ± 0.10",
    ):  # fmt: skip
        assert told in title
    words = [entry.text for entry in root.iter(f"{space}text")]
    assert {'ratio & "co"', "a<b", "balance", "as it is", "with label shift"} <= set(words)
    marks = [(entry.get("style"), float(entry.get("y"))) for entry in root.iter(f"{space}use")]
    first, second = (
        [y for style, y in marks if f"fill: {colour}" in style] for colour in (LIGHT.made, LIGHT.base_shift)
    )
    # The settings in their order, then the key: a higher accuracy stands higher.
    assert len(first) == len(second) == 3
    assert second[1] < second[0] < first[1] < first[0]
    dashed = [entry for entry in root.iter(f"{space}path") if "stroke-dasharray" in entry.get("style", "")]
    assert len(dashed) == 3, "the baseline's two lines, and their key"
    width, height = (float(root.get(key).removesuffix("pt")) for key in ("width", "height"))
    for entry in root.iter():
        assert 0 <= float(entry.get("x", 0)) <= width
        assert 0 <= float(entry.get("y", 0)) <= height
    assert ElementTree.fromstring(ablation_plot([row("a", 50.0)], "one")) is not None


def test_the_plot_in_other_formats_and_without_matplotlib(run_cli, store, tmp_path, monkeypatch):
    rows = [row(None, 72.5), row("a", 75.0)]
    assert ablation_plot(rows, "one", "pdf").startswith(b"%PDF-")
    assert ablation_plot(rows, "one", "png").startswith(b"\x89PNG")
    assert ablation_plot(rows, "one", "svg") == ablation_plot(rows, "one")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ("ablate", "guidance", store, "--values", "1", "--seeds", 1, *QUICK)
    refused = run_cli(*options, "--plot", tmp_path / "plot.pdf")
    assert refused.returncode == 1
    assert "run pip install 'ldmlr[report]'" in refused.stderr
    done = run_cli(*options, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "plot.svg is left out: matplotlib is not installed; run pip install 'ldmlr[report]'" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.json"]


def test_values_are_checked_in_python_too():
    assert AblateConfig(values=0.5).values == ("0.5",)
    assert AblateConfig.from_mapping({"values": [1, "balance"]}).values == ("1", "balance")
    with pytest.raises(UsageError, match="expected a width"):
        settings("width", "wide")
