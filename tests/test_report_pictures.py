"""The pictures of a page: on it, as files of their own, and what happens without matplotlib."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ldmlr.report.canvas import Sheet
from ldmlr.report.collect import collect
from ldmlr.report.config import ReportConfig
from ldmlr.report.page import write_report
from ldmlr.report.picture import Picture
from ldmlr.report.quality import quality
from ldmlr.report.sections import plan, rows
from ldmlr.report.theme import DARK, LIGHT
from ldmlr.run.opened import read_run

SPACE = "{http://www.w3.org/2000/svg}"
NAMES = [
    "accuracy", "classes", "classes-label-shift", "plan", "training", "frechet", "scatter-ratio", "rows",
    "calibration",
]  # fmt: skip
FILES = [
    f"{name}-{theme}.{kind}"
    for name in NAMES
    for theme in ("light", "dark")
    for kind in ("svg", "pdf", "png")
]
THEMES = {"light": LIGHT, "dark": DARK}


class Shown(HTMLParser):
    """Notes the pictures of a page: alternative text and the drawings with their media."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[tuple[str, dict[str, bytes]]] = []
        self.drawings: dict[str, bytes] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "picture":
            self.drawings = {}
        if tag in ("source", "img"):
            address = found["srcset" if tag == "source" else "src"]
            self.drawings[found.get("media", "")] = base64.b64decode(address.partition(",")[2])
        if tag == "img":
            self.pictures.append((found["alt"], self.drawings))


@pytest.fixture(scope="module")
def pictures(whole_run, tmp_path_factory) -> Path:
    """Return the folder of a page and of its pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    figures = write_report(whole_run, folder / "page.html", pictures=folder / "files")
    assert figures["pictures"] == [str(folder / "files" / name) for name in FILES]
    return folder


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_stands_alone(pictures, name, theme):
    text = (pictures / "files" / f"{name}-{theme}.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SPACE}svg"
    assert len(str(root.findtext(f"{SPACE}title"))) > 40
    # Nothing is loaded: the addresses are the names of SVG and of its links within the file.
    assert not re.search(r"var\(|@import|<script|nan|\binf\b|<!DOCTYPE", text)
    assert set(re.findall(r"https?://[^\"]+", text)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
    }  # fmt: skip
    assert all(found.startswith("#") for found in re.findall(r"(?:href=\"|url\()([^\")]*)", text))
    size = [float(root.attrib[key].removesuffix("pt")) for key in ("width", "height")]
    assert [float(value) for value in root.attrib["viewBox"].split()] == [0, 0, *size]
    assert all(value > 100 for value in size)
    assert any(element.tag == f"{SPACE}text" for element in root.iter())
    # It is in the colours of its theme, on its paper.
    colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert THEMES[theme].paper in colours
    assert colours <= {colour for key, colour in THEMES[theme].variables().items()} | {"#000000"}


@pytest.mark.parametrize("name", NAMES)
def test_pictures_for_papers_and_slides(pictures, name):
    for theme, colours in THEMES.items():
        stem = pictures / "files" / f"{name}-{theme}"
        assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF-")
        with Image.open(stem.with_suffix(".png")) as image:
            assert image.width == 2 * 888
            assert len(image.text["Description"]) > 40
            assert "Software" not in image.text
            pixels = image.convert("RGB")
        assert pixels.getpixel((0, 0)) == tuple(bytes.fromhex(colours.paper[1:]))
        assert len(pixels.getcolors(1 << 20)) > 20


def test_the_dots_are_in_the_bitmap_too(pictures):
    """Short lines with round ends are dots; a program that snaps them to pixels drops them."""
    made = tuple(bytes.fromhex(LIGHT.made[1:]))
    with Image.open(pictures / "files" / "classes-light.png") as image:
        counts = {colour: many for many, colour in image.convert("RGB").getcolors(1 << 20)}
    # Ten dots and the key, eight points across at 192 to the inch.
    assert counts[made] > 10 * 0.6 * 3.14 * (8 / 72 * 192 / 2) ** 2


def test_the_page_shows_the_same_drawings(pictures):
    shown = Shown((pictures / "page.html").read_text(encoding="utf-8")).pictures
    assert len(shown) == len(NAMES)
    for name, (alt, drawings) in zip(NAMES, shown, strict=True):
        phone = [media for media in drawings if "max-width" in media]
        dark = [media for media in drawings if "prefers-color-scheme: dark" in media]
        assert (len(drawings), len(phone), len(dark), len(set(phone) & set(dark))) == (4, 2, 2, 1)
        (wide_dark,) = set(dark) - set(phone)
        for media, theme in (("", "light"), (wide_dark, "dark")):
            assert drawings[media] == (pictures / "files" / f"{name}-{theme}.svg").read_bytes()
        for media, data in drawings.items():
            root = ElementTree.fromstring(data)
            assert root.findtext(f"{SPACE}title") == alt
            paper = (DARK if media in dark else LIGHT).paper
            assert f"fill: {paper}".encode() in data
            assert float(root.attrib["width"].removesuffix("pt")) == (270 if media in phone else 666)


def test_alternative_texts_say_what_is_shown(pictures, whole_run):
    shown = Shown((pictures / "page.html").read_text(encoding="utf-8")).pictures
    words = dict(zip(NAMES, (alt for alt, _ in shown), strict=True))
    for row in json.loads((whole_run / "result.json").read_text())["rows"]:
        assert f"{row['all']['mean']:.2f} ± {row['all']['std']:.2f}" in words["accuracy"]
    assert "each of 10 classes with 4 to 120 training rows" in words["classes"]
    above, below, equal = map(
        int, re.findall(r"(?:above baseline in|below in|equal in) (\d+)", words["classes"])
    )
    assert above + below + equal == 10
    assert "with label shift" in words["classes-label-shift"]
    assert "from 120 + 0 (0) to 4 + 116 (9)" in words["plan"]
    assert "Stage 2: diffusion model, from " in words["training"]
    assert "at step 60" in words["training"]
    assert "for 6 classes" in words["rows"]
    assert words["calibration"].count("mean confidence") == 4


def test_drawing_again_gives_the_same_bytes(pictures, whole_run):
    figures, _ = collect(read_run(whole_run), ReportConfig())
    drawn = [rows(figures), quality(figures), plan(figures)]
    again = {picture.name: picture for section in drawn for picture in section.pictures}
    assert set(again) == {"rows", "frechet", "scatter-ratio", "plan"}
    for name, picture in again.items():
        for kind, data in picture.render(DARK).items():
            assert data == (pictures / "files" / f"{name}-dark.{kind}").read_bytes(), (name, kind)


@pytest.fixture
def small_run(tmp_path) -> Path:
    """Return a run with one picture, its accuracy."""
    (tmp_path / "run").mkdir()
    entry = {"mean": 70.5, "std": 0.5, "values": [70.0, 71.0]}
    rows = [
        {"method": method, "adjustment": "none", "all": entry, "many": entry, "medium": None, "few": entry}
        for method in ("baseline", "ldmlr")
    ]
    (tmp_path / "run" / "result.json").write_text(json.dumps({"command": "run", "rows": rows}))
    return tmp_path / "run"


def test_the_command_writes_them_and_keeps_what_is_there(run_cli, small_run, tmp_path):
    folder, out = tmp_path / "files", tmp_path / "page.html"
    options = ("report", small_run, "--out", out, "--pictures", folder)
    names = [name for name in FILES if name.startswith("accuracy-")]
    done = run_cli(*options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pictures"] == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert found["config"]["pictures"] == str(folder)
    out.unlink()
    again = run_cli(*options)
    assert again.returncode == 2
    assert "accuracy-light.svg: already exists" in again.stderr
    assert not out.exists(), "a page was written without its pictures"
    done = run_cli(*options, "--overwrite")
    assert done.returncode == 0
    assert f"{folder / 'accuracy-dark.pdf'}\n" in done.stdout
    taken = tmp_path / "file"
    taken.write_text("x")
    refused = run_cli("report", small_run, "--out", tmp_path / "two.html", "--pictures", taken)
    assert refused.returncode in (1, 2)
    assert "Traceback" not in refused.stderr
    assert taken.read_text() == "x"
    assert not (tmp_path / "two.html").exists()
    assert [path.name for path in small_run.iterdir()] == ["result.json"]


def test_without_the_option_there_are_none(run_cli, small_run, tmp_path):
    done = run_cli("report", small_run, "--out", tmp_path / "page.html", "--json")
    assert json.loads(done.stdout)["pictures"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]


def test_without_matplotlib_the_page_has_no_pictures_and_says_how_to_get_them(
    run_cli, whole_run, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run_cli("report", whole_run, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "left out: pictures (matplotlib is not installed)" in done.stdout
    # The page is there by then.
    assert "pip install 'ldmlr[report]', then the same command with --overwrite" in done.stdout
    assert "pip install 'ldmlr[report]'" in done.stdout
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Pictures: matplotlib is not installed. Given by: pip install &#39;ldmlr[report]&#39;" in text
    assert Shown(text).pictures == []
    assert "<figure" not in text
    # Everything else is there.
    for name in ("verdict", "accuracy", "classes", "plan", "quality", "calibration", "confusion", "about"):
        assert f'<section id="{name}"' in text
    refused = run_cli("report", whole_run, "--out", tmp_path / "two.html", "--pictures", tmp_path / "files")
    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: pictures cannot be drawn: matplotlib is not installed; run pip install 'ldmlr[report]'\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html"]


def test_help_and_words_need_no_matplotlib():
    """Importing it takes longer than `ldmlr report --help` may."""
    code = (
        "import sys, ldmlr_cli.report, ldmlr.report.page, ldmlr.report.ablation; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_words_are_escaped_and_the_users_settings_have_no_say(monkeypatch):
    import matplotlib

    def draw(theme, width):
        sheet = Sheet(theme, width, 100)
        (axes,) = sheet.panels()
        sheet.title(axes, "<b>& $x^2$ \x07", 30)
        sheet.legend([("made", "_one <two>"), ("base open", "three")])
        sheet.settle()
        return sheet

    picture = Picture("x", 'A "title" & <more> of more than a word', "a < b", draw)
    plain = picture.render(LIGHT)
    root = ElementTree.fromstring(plain["svg"])
    assert root.findtext(f"{SPACE}title") == picture.alt
    words = [element.text for element in root.iter(f"{SPACE}text")]
    assert {"<b>& $x^2$ \ufffd", "_one <two>", "three"} <= set(words)
    with Image.open(BytesIO(plain["png"])) as image:
        assert image.text["Description"] == picture.alt
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red"}):
        assert picture.render(LIGHT) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_the_pictures_of_the_readme_are_made_by_it():
    files = sorted((Path(__file__).parents[1] / "docs" / "pictures").glob("*.svg"))
    assert [file.stem for file in files] == ["classes", "rows"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert len(str(root.findtext(f"{SPACE}title"))) > 40
        assert root.get("width") == "666pt"
        colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
        assert colours <= {*LIGHT.variables().values(), "#000000"}
        assert {LIGHT.paper, LIGHT.made} <= colours
