"""Result documents and accuracy tables."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest

from ldmlr import results
from ldmlr.errors import UsageError
from ldmlr.report.generic import command_line
from ldmlr.results import accuracy_row, accuracy_rows, check_result, document, restore_result, write_result
from ldmlr.text import accuracy_table, table

RUNS = [
    {"all": 80.0, "many": 90.0, "medium": None, "few": 60.0},
    {"all": 82.0, "many": 91.0, "medium": None, "few": 64.0},
]


def test_a_row_has_mean_sample_deviation_and_values():
    row = accuracy_row("ldmlr", "label-shift", RUNS)
    assert row["all"] == {
        "mean": 81.0,
        "std": pytest.approx(np.std([80, 82], ddof=1)),
        "values": [80.0, 82.0],
    }
    assert row["medium"] is None
    assert (row["method"], row["adjustment"]) == ("ldmlr", "label-shift")


def test_a_table_has_a_row_per_entry_over_the_seeds():
    def seed(number):
        figures = {**RUNS[number], "ece": 0.1 + number}
        names = (("baseline", "none", 0.0), ("ldmlr", "label-shift", 0.75))
        return [
            {"method": method, "adjustment": adjustment, "tau": tau, "figures": figures, "per_class": []}
            for method, adjustment, tau in names
        ]

    found = accuracy_rows([seed(0), seed(1)])
    assert [(row["method"], row["adjustment"], row["tau"]) for row in found] == [
        ("baseline", "none", 0.0), ("ldmlr", "label-shift", 0.75),
    ]  # fmt: skip
    assert found[0]["all"]["values"] == [80.0, 82.0]
    assert found[1]["ece"]["values"] == [0.1, 1.1]
    assert found[0]["medium"] is None
    assert "per_class" not in found[0]
    with pytest.raises(ValueError, match="zip"):
        accuracy_rows([seed(0), seed(1)[:1]])


def test_one_seed_has_no_spread():
    assert accuracy_row("baseline", "none", RUNS[:1])["all"]["std"] == 0.0
    # The mean of equal numbers is that number, whatever a running sum would round to.
    same = dict.fromkeys(("all", "many", "medium", "few"), 51.300000000000004)
    assert accuracy_row("baseline", "none", [same] * 5)["all"]["std"] == 0.0
    assert accuracy_row("baseline", "none", [same] * 5)["all"]["mean"] == 51.300000000000004


def test_the_table_is_aligned_and_marks_empty_groups():
    text = accuracy_table(
        [accuracy_row("baseline", "none", RUNS), accuracy_row("ldmlr", "label-shift", RUNS[:1])]
    )
    lines = text.splitlines()
    assert lines[0].split() == ["top-1", "%", "all", "many", "medium", "few"]
    assert lines[2].split() == [
        "baseline",
        "81.00",
        "±",
        "1.41",
        "90.50",
        "±",
        "0.71",
        "-",
        "62.00",
        "±",
        "2.83",
    ]
    assert lines[3].startswith("ldmlr + label-shift  ")
    assert len({len(line) for line in table(["a", "b"], [["x", "10"], ["yy", "2"]]).splitlines()}) == 1


def test_the_result_lies_beside_a_file_and_inside_a_folder(tmp_path):
    result = document("finetune", {"epochs": 12}, rows=[accuracy_row("baseline", "none", RUNS)], seeds=[0, 1])
    output = tmp_path / "head.safetensors"
    output.write_text("")
    assert write_result(output, result) == tmp_path / "result.json"
    assert write_result(tmp_path, result) == tmp_path / "result.json"
    saved = json.loads((tmp_path / "head.safetensors.result.json").read_text())
    assert saved["config"] == {"epochs": 12}
    assert saved["rows"][0]["all"]["mean"] == 81.0
    assert {"versions", "hardware", "command", "created", "seeds"} <= set(saved)


def test_a_file_leaves_the_result_of_its_folder_alone(tmp_path):
    write_result(tmp_path, document("run", {}))
    of_the_run = (tmp_path / "result.json").read_text()
    output = tmp_path / "pseudo.h5"
    for seed in (1, 2):
        own = write_result(output, document("generate", {"seed": seed}))
        assert own == tmp_path / "pseudo.h5.result.json"
        assert json.loads(own.read_text())["config"] == {"seed": seed}
    assert (tmp_path / "result.json").read_text() == of_the_run


def test_files_of_one_folder_take_turns_with_its_result(tmp_path):
    for name, command in (("model", "diffuse"), ("pseudo", "generate"), ("model", "diffuse")):
        assert write_result(tmp_path / name, document(command, {"name": name})) == tmp_path / "result.json"
        assert json.loads((tmp_path / "result.json").read_text())["command"] == command
    assert json.loads((tmp_path / "pseudo.result.json").read_text())["command"] == "generate"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_the_only_copy_of_another_result_is_refused(tmp_path, overwrite):
    folder = tmp_path / "out"
    check_result(folder, "finetune", overwrite)  # not there yet
    folder.mkdir()
    write_result(folder, document("run", {}))
    check_result(folder, "run", overwrite)
    if overwrite:
        check_result(folder, "finetune", overwrite)
    else:
        with pytest.raises(
            UsageError, match=r"result\.json: is the result of ldmlr run, of which there is no"
        ):
            check_result(folder, "finetune")
    # A file beside it has a copy of its own: nothing is lost.
    (folder / "result.json").unlink()
    (folder / "pseudo.h5").write_text("x")
    write_result(folder / "pseudo.h5", document("generate", {}))
    check_result(folder, "finetune", overwrite)
    (folder / "pseudo.h5.result.json").unlink()
    (folder / "result.json").write_text("{")
    check_result(folder, "finetune", overwrite)


def test_commands_leave_the_result_of_another_command_alone(run_cli, whole_run, tmp_path):
    store = next(whole_run.glob("seed-0/encode-*/features.h5"))
    folder = tmp_path / "run"
    folder.mkdir()
    before = (whole_run / "result.json").read_bytes()
    (folder / "result.json").write_bytes(before)
    for command in (
        ("finetune", store, "--seeds", 1),
        ("evaluate", store),
        ("augment", store),
        ("baseline", "digits-lt"),
        ("bench", "sample"),
        ("compare", store, "--methods", "ncm"),
        ("ablate", "ratio", store),
    ):
        option = "--out-dir" if command[0] == "augment" else "--out"
        done = run_cli(*command, option, folder)
        assert done.returncode == 2, (command, done.stderr)
        assert "result.json: " in done.stderr, command
        assert len(done.stderr.strip().splitlines()) == 1
        assert [path.name for path in folder.iterdir()] == ["result.json"], command
    assert (folder / "result.json").read_bytes() == before
    # The other way round: a run in the folder of heads.
    (folder / "result.json").write_text(json.dumps(document("finetune", {})))
    done = run_cli("run", store, "--seeds", 1, "--out", folder)
    assert done.returncode == 2
    assert "is the result of ldmlr finetune" in done.stderr


def test_what_a_kill_kept_from_being_written_is_written_later(tmp_path):
    output = tmp_path / "a.h5"
    restore_result(output, {"command": "late"})
    own, common = tmp_path / "a.h5.result.json", tmp_path / "result.json"
    assert json.loads(own.read_text()) == json.loads(common.read_text()) == {"command": "late"}
    write_result(output, {"command": "first"})
    common.unlink()
    restore_result(output, {"command": "late"})
    assert json.loads(own.read_text()) == json.loads(common.read_text()) == {"command": "first"}


def test_a_document_of_the_command_line_says_what_reproduces_it(run_cli, tmp_path):
    out = tmp_path / "a run"
    words = [
        "run", "digits-lt", "--seeds", 1, "--out", out, "--threads", 1, "--set", "baseline.epochs=1",
        "--set", "diffuse.iterations=5", "--set", "finetune.epochs=1",
    ]  # fmt: skip
    done = run_cli(*words, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    document = json.loads((out / "result.json").read_text())
    assert document["command_line"] == shlex.join(["ldmlr", *map(str, words)])
    assert command_line(document) == document["command_line"]
    again = run_cli(*shlex.split(document["command_line"])[1:], "--json")
    assert json.loads(again.stdout)["rows"] == document["rows"]
    assert "command_line" not in results.document("run", {})
