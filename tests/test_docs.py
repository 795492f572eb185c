"""The documentation: commands run or parse, snippets run, keys and links are right."""

from __future__ import annotations

import re
import shlex
import tomllib

import click
import h5py
import numpy as np
import pytest
from ldmlr_cli.config_file import RUN_FILE_KEYS
from support.pages import PAGES, ROOT, anchors, blocks, commands, links, parse, read
from support.photos import write_photos

from ldmlr.run.config import STAGES, RunConfig

# Pages whose commands run, in this order and in one folder: a page may use the files of those before.
HOW_TO = (
    "stages",
    "features",
    "production",
    "encoders",
    "generators",
    "compare",
    "cluster",
    "reproducibility",
)
IN_ORDER = ["docs/tutorial.md", *(f"docs/howto/{name}.md" for name in HOW_TO), "docs/method.md"]
COMMANDS = "docs/howto/stages.md"
# What is added to commands so that they take seconds here; the README's run as they stand.
QUICKER = {
    "augment": "--iterations 60",
    "diffuse": "--iterations 200",
    "baseline": "--epochs 20",
    "compare": "--set diffuse.iterations=60",
    "ablate": "--set diffuse.iterations=60",
    "run": "--set diffuse.iterations=60",
}
NEEDS = {"--format onnx": "onnx"}

PHOTOS = " --set baseline.epochs=2 --image-size 8"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that the pages take for granted."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path_factory.mktemp("commands")
    (path / "experiment.toml").write_text(blocks(COMMANDS, "toml")[0].text)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (60, 20, 8))
    rows = (rng.standard_normal((len(labels), 5)) + labels[:, None]).astype(np.float32)
    for name in ("train", "test"):
        np.savez(path / f"{name}.npz", features=rows, labels=labels)
    np.save(path / "X.npy", rows)
    np.save(path / "y.npy", labels)
    columns = {f"f{i}": rows[:, i] for i in range(5)} | {"species": np.array(["a", "b", "c"])[labels]}
    parquet.write_table(pyarrow.table(columns), path / "table.parquet")
    counts = (24, 12, 8)
    write_photos(path / "photos", {"train": counts, "test": counts}, 8, "jpg", rng)
    return path


def quicker(words):
    """Return what is added to a command that runs here."""
    added = "" if {"--generator", "--refit", "--dry-run"} & set(words) else QUICKER.get(words[0], "")
    if words[:2] in (["run", "photos"], ["run", "digits-lt"]):
        added += " --set baseline.epochs=20" if words[1] == "digits-lt" else PHOTOS
    if "--auto" in words:
        added += ' --set select.methods=\'["balanced-softmax", "ldmlr"]\''
    return shlex.split(added)


RUNNING = [(page, line) for page in IN_ORDER for line, runs in commands(page) if runs]


@pytest.mark.parametrize(("page", "line"), RUNNING, ids=[f"{p[5:-3]}: {line[6:50]}" for p, line in RUNNING])
def test_every_command_of_a_page_runs(page, line, folder, monkeypatch, run_cli):
    for words, package in NEEDS.items():
        if words in line:
            pytest.importorskip(package)
    monkeypatch.chdir(folder)
    words = shlex.split(line)[1:]
    done = run_cli(*words, *quicker(words))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_every_page_with_commands_runs_them_here_or_says_why_not():
    others = {"README.md", "CONTRIBUTING.md", "benchmarks/README.md"}  # the README has a test of its own
    left = [
        page
        for page in PAGES
        if page not in others | set(IN_ORDER) and any(runs for _, runs in commands(page))
    ]
    assert left == []


def test_shards_are_the_rows_of_one_process(folder, monkeypatch, run_cli):
    monkeypatch.chdir(folder)
    assert run_cli("store", "merge", "parts.json", "--out", "merged.h5").returncode == 0
    with h5py.File("merged.h5") as parts, h5py.File("pseudo.h5") as whole:
        assert np.array_equal(parts["train/features"], whole["train/features"])


def test_the_files_that_are_said_to_be_the_same_are(folder):
    assert (folder / "once.h5").read_bytes() == (folder / "twice.h5").read_bytes()


def run_snippets(page, names):
    for code in blocks(page, "python"):
        if code.runs:
            exec(compile(code.text, page, "exec"), names)
    return names


def test_the_snippets_about_python_run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = run_snippets("docs/howto/python.md", {})
    assert names["rows"].shape == (100, names["store"].dim)
    rows, again = names["rows"], names["again"].sample(np.full(100, 9), steps=10, guidance=1.5, seed=0)
    assert np.array_equal(rows, again)
    assert names["logits"].shape == (540, 10)
    features, labels = next(iter(names["loader"]))[:2]
    assert len(features) == len(labels) == 256
    assert np.bincount(names["data"].labels).tolist() == [120] * 10


def test_the_snippets_about_tables_run():
    pytest.importorskip("imblearn")
    names = run_snippets("docs/howto/tables.md", {})
    assert (names["kinds"] == "rare").sum() == (names["kinds"] == "common").sum() == 180
    assert list(names["more"].columns) == ["length", "count", "site"]
    assert len(names["drawn"]) == 160
    assert set(names["drawn"]["site"]) <= {"north", "south"}
    assert names["score"] > 0.5


def test_the_snippet_about_object_storage_runs(folder, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.chdir(folder)
    names = run_snippets("docs/howto/cluster.md", {})
    assert np.array_equal(names["few"], names["here"].train.float32([3, 14, 159]))
    assert str(names["there"].path) == "memory://bucket/features.h5"


def test_the_snippet_about_the_hub_runs(folder, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(folder)
    names = run_snippets("docs/howto/production.md", {})
    assert names["again"].fingerprint() == names["model"].fingerprint()


def test_the_snippet_with_a_denoiser_runs():
    names = run_snippets("docs/howto/denoiser.md", {})
    # With a prediction of zero every step only scales the noise.
    assert names["x"].isfinite().all()
    assert not names["x"].equal(names["initial_noise"](0, 0, 100, 64))


def complaint(line):
    """Return what is wrong with a command, or nothing."""
    try:
        parse(line)
    except click.ClickException as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("name", PAGES)
def test_every_command_of_a_page_exists_with_its_options(name):
    lines = [line for line, _ in commands(name)]
    # In the text, too: an option in a command between backticks.
    for line in re.findall(r"`(ldmlr [^`\n]+)`", read(name)):
        words = shlex.split(line)
        if words[1:] and re.fullmatch(r"[a-z]+", words[1]):
            lines.append(re.sub(r"\s(\[.*|\.\.\.)$", "", line))
    assert [f"{line}: {wrong}" for line in lines if (wrong := complaint(line))] == []


@pytest.mark.parametrize("name", PAGES)
def test_every_snippet_of_a_page_is_valid(name):
    for code in blocks(name, "python"):
        assert compile(code.text, name, "exec").co_code
    for code in blocks(name, "toml"):
        assert tomllib.loads(code.text)


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name):
    page = ROOT / name
    for link in links(name):
        target, _, anchor = link.partition("#")
        place = (page.parent / target) if target else page
        assert place.exists(), f"{name}: {link}"
        if anchor:
            assert place.suffix == ".md", f"{name}: {link}"
            assert anchor in anchors(place.read_text(encoding="utf-8")), f"{name}: {link}"


@pytest.mark.parametrize("name", PAGES)
def test_every_file_of_the_project_that_a_page_names_is_there(name):
    named = re.findall(r"`((?:csrc|ldmlr|cli|tests|benchmarks|docs|presets|examples)/[\w./]+)`", read(name))
    known = (ROOT, ROOT / "csrc")  # csrc has tests of its own
    assert [path for path in named if not any((root / path).exists() for root in known)] == []


@pytest.mark.parametrize("name", [page for page in PAGES if page.startswith("docs/")])
def test_every_page_of_the_documentation_is_in_the_contents_of_the_site(name):
    contents = read("mkdocs.yml").split("\nnav:\n")[1]
    assert f": {name.removeprefix('docs/')}\n" in contents


def test_the_keys_of_a_toml_file_are_all_there():
    page = read(COMMANDS)
    top = page.split("<!-- keys: top level -->\n")[1].split("<!-- keys: tables -->\n")[0]
    tables = page.split("<!-- keys: tables -->\n")[1].split("<!-- end of keys -->")[0]
    assert sorted(re.findall(r"`(\w+)`", top)) == sorted({*RunConfig.names(), *RUN_FILE_KEYS})
    assert re.findall(r"`\[(\w+)\]`", tables)[: len(STAGES)] == list(STAGES)


def test_an_unknown_option_in_a_page_would_be_seen():
    assert "no-such-option" in complaint("ldmlr run x --no-such-option")
    assert "unknown value 'none'" in complaint("ldmlr generate m --solver none")
    assert "no such command 'nothing'" in complaint("ldmlr nothing")
