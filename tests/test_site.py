"""The site: it builds without a warning, from what is here alone, and links out of it are names of files."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from support.pages import ROOT
from support.scripts import script


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("index.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]*src=\"?https?:", text)
        assert not re.findall(r"<link[^>]*rel=\"?stylesheet[^>]*href=\"?https?:", text)
    api = (tmp_path / "site" / "reference" / "api" / "index.html").read_text(encoding="utf-8")
    assert "fit_resample" in api
    assert "denoise_step" in api
    commands = (tmp_path / "site" / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    assert "--encoder-trained-on-rows" in commands


def test_links_out_of_the_documentation_become_names_of_files():
    hook = script(ROOT / "docs" / "site.py")
    page = SimpleNamespace(file=SimpleNamespace(src_uri="howto/x.md"))
    text = (
        "[a](../method.md#noise) [presets/i.toml](../../presets/i.toml) [here](../../csrc) [w](https://a.b/c)"
    )
    assert hook.on_page_markdown(text, page=page) == (
        "[a](../method.md#noise) `presets/i.toml` here (`csrc`) [w](https://a.b/c)"
    )
