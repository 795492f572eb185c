"""``ldmlr report --pictures``: every picture of the page as an SVG file that any program can draw."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ldmlr.report.html import Picture, style_sheet
from ldmlr.report.pictures import plain_style, standalone
from ldmlr.report.svg import Drawing

SPACE = "{http://www.w3.org/2000/svg}"
NAMES = [
    "accuracy", "classes", "classes-label-shift", "plan", "training", "frechet", "scatter-ratio", "rows",
    "calibration",
]  # fmt: skip


@pytest.fixture(scope="module")
def pictures(whole_run, tmp_path_factory) -> Path:
    """Return the folder of the pictures of a run."""
    from ldmlr.report.page import write_report

    folder = tmp_path_factory.mktemp("pictures")
    figures = write_report(whole_run, folder / "page.html", pictures=folder / "svg")
    assert figures["pictures"] == [str(folder / "svg" / f"{name}.svg") for name in NAMES]
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_stands_alone(pictures, name):
    text = (pictures / "svg" / f"{name}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SPACE}svg"
    assert root.findtext(f"{SPACE}title")
    assert len(str(root.findtext(f"{SPACE}desc"))) > 20
    # Nothing is loaded, and nothing is left for a style sheet elsewhere.
    assert not re.search(r"var\(|url\(|@import|href|<script|nan|inf\b", text)
    assert text.count("http") == 1
    size = [float(root.attrib[key]) for key in ("width", "height")]
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    assert all(value > 100 for value in size)
    # Every mark with a colour of its kind finds it.
    rules = re.findall(r"^([^{]+) {", str(root.findtext(f"{SPACE}style")), re.MULTILINE)
    known = {frozenset(rule.strip().split(".")[1:]) for group in rules for rule in group.split(",")}
    coloured = {"mark", "bar", "fill", "curve", "dot"}
    for element in root.iter():
        names = set(element.attrib.get("class", "").split())
        if part := names & coloured:
            kinds = names - coloured - {"open", "faint", "small"}
            assert any(frozenset(part | {kind}) in known for kind in kinds), names
    assert any(element.tag == f"{SPACE}text" for element in root.iter())


def test_the_page_shows_the_same_drawings(pictures):
    page = (pictures / "page.html").read_text(encoding="utf-8")
    assert page.count('class="drawing"') == len(NAMES)
    for name in NAMES:
        body = (pictures / "svg" / f"{name}.svg").read_text(encoding="utf-8").rsplit(')">', 1)[1]
        assert body.removesuffix("</g>\n</svg>\n") in page


def test_colours_are_those_of_the_light_theme(pictures):
    style = plain_style(style_sheet(), '<circle class="mark made"/><text class="tick">x</text>')
    light = dict(re.findall(r"--([\w-]+): (#\w+)", style_sheet().split("}")[0]))
    assert f".mark.made {{ fill: {light['made']}; stroke: {light['made']} }}" in style
    assert f".paper {{ fill: {light['paper']} }}" in style
    assert ".tick {" in style
    # Rules that no mark needs are left out.
    assert ".bar" not in style
    assert ".base" not in style


def test_words_are_escaped_and_the_legend_has_room():
    drawing = Drawing(200, 50, 'A "title" & <more>')
    drawing.text((0, 10), "<b>&")
    legend = [("made", "one <two>"), ("base open", "three")]
    bare, keyed = (
        ElementTree.fromstring(standalone(Picture("x", drawing, "a < b", entries)))
        for entries in ((), legend)
    )
    assert bare.findtext(f"{SPACE}title") == 'A "title" & <more>'
    assert bare.findtext(f"{SPACE}desc") == "a < b"
    words = [element.text for element in keyed.iter(f"{SPACE}text")]
    assert words == ["one <two>", "three", "<b>&"]
    assert float(keyed.attrib["height"]) > float(bare.attrib["height"])


def test_the_command_writes_them_and_keeps_what_is_there(run_cli, whole_run, tmp_path):
    store, out = whole_run / "seed-0", tmp_path / "page.html"
    options = ("report", whole_run, "--out", out, "--pictures", tmp_path / "svg")
    done = run_cli(*options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pictures"] == [str(tmp_path / "svg" / f"{name}.svg") for name in NAMES]
    assert found["config"]["pictures"] == str(tmp_path / "svg")
    assert store.exists()
    out.unlink()
    again = run_cli(*options)
    assert again.returncode == 2
    assert "accuracy.svg: already exists" in again.stderr
    assert not out.exists(), "a page was written without its pictures"
    assert run_cli(*options, "--overwrite").returncode == 0
    assert f"{tmp_path / 'svg' / 'plan.svg'}\n" in run_cli(*options, "--overwrite").stdout
    taken = tmp_path / "file"
    taken.write_text("x")
    refused = run_cli("report", whole_run, "--out", tmp_path / "two.html", "--pictures", taken)
    assert refused.returncode in (1, 2)
    assert "Traceback" not in refused.stderr
    assert taken.read_text() == "x"
    assert not (tmp_path / "two.html").exists()


def test_without_the_option_there_are_none(run_cli, whole_run, tmp_path):
    done = run_cli("report", whole_run, "--out", tmp_path / "page.html", "--json")
    assert json.loads(done.stdout)["pictures"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_pictures_of_the_readme_are_made_by_it():
    files = sorted((Path(__file__).parents[1] / "docs" / "pictures").glob("*.svg"))
    assert [file.stem for file in files] == ["classes", "rows"]
    for file in files:
        root = ElementTree.parse(file).getroot()
        drawn = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
        style = str(root.findtext(f"{SPACE}style"))
        assert style.strip() == plain_style(style_sheet(), drawn.replace("ns0:", "")).strip()
