"""Every command and snippet of the README runs, in order, as a newcomer would run it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.split("&& ")[-1] for line in lines if "ldmlr " in line and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme")
    (path / "experiment.toml").write_text(blocks("toml")[0])
    return path


@pytest.mark.parametrize("line", commands(), ids=lambda line: " ".join(line.split()[:3]))
def test_every_command_runs(line, folder, monkeypatch, run_cli):
    monkeypatch.chdir(folder)
    done = run_cli(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if line == "ldmlr run digits-lt":
        shown = [row.split()[0] for row in done.stdout.splitlines()[2:]]
        assert shown == ["baseline", "baseline", "ldmlr", "ldmlr"]


def test_the_python_snippet_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    assert names["rows"].shape == (100, names["store"].dim)
    assert names["logits"].shape == (540, 10)
    counts = [int((names["y2"] == label).sum()) for label in range(10)]
    assert counts == [120] * 10


def test_the_test_command_is_the_one_that_ci_runs():
    after = README.split("<!-- test command -->\n", 1)[1]
    assert re.match(r"```sh\npip install -c constraints\.txt -e '\.\[test\]' && pytest\n```\n", after)
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


def test_every_link_to_a_file_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        assert (ROOT / name).exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / name).read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, link
