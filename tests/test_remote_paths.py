"""URLs as paths: what a caller names is what is meant, and looking around works as in folders."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ldmlr import objects
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.files import check_output
from ldmlr.remote import RemotePath, as_path, is_remote
from ldmlr.store import FeatureStore

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _clean():
    fsspec.filesystem("memory").store.clear()


def test_a_url_is_a_path():
    path = as_path("s3://bucket/a/b.h5")
    assert isinstance(path, RemotePath)
    assert str(path) == "s3://bucket/a/b.h5"
    assert str(path.parent / "c.json") == "s3://bucket/a/c.json"
    assert str(path.with_name("x")) == "s3://bucket/a/x"
    assert str(path.with_suffix(".json")) == "s3://bucket/a/b.json"
    assert (path.name, path.stem, path.suffix) == ("b.h5", "b", ".h5")
    assert path.absolute() == path.resolve() == path == pickle.loads(pickle.dumps(path))
    assert hash(path) == hash(as_path("s3://bucket/a/b.h5"))
    assert path / "/etc/hosts" == Path("/etc/hosts")
    assert path.parent / "gs://other/x" == as_path("gs://other/x")
    assert len({path, as_path("s3://bucket/a/b.h5"), Path("s3:/bucket/a/b.h5")}) == 2


@pytest.mark.parametrize("url", ["s3://bucket/a.h5", "gs://bucket/a.h5", "memory://a/b", "file:///a/b.h5"])
def test_a_url_that_lost_a_slash_is_found_again(url, tmp_path, monkeypatch):
    assert as_path(Path(url)) == as_path(url)
    assert is_remote(as_path(url)) == (not url.startswith("file"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:").mkdir()
    assert as_path(Path("s3://bucket/a.h5")) == Path("s3:/bucket/a.h5")  # such a folder is there


@pytest.mark.parametrize("path", ["a.h5", "/a/b.h5", "s3:/bucket/a", "x:y", "../a", "timm:resnet18", "~/a"])
def test_other_paths_stay_as_they_are(path):
    assert as_path(path) == Path(path)
    assert type(as_path(path)) is type(Path())
    assert as_path(Path("a:/b")) == Path("a:/b")


def test_what_needs_a_local_file_says_so_in_one_line():
    path = as_path("memory://bucket/x")
    for use in (open, lambda path: path.open("w"), np.load, lambda path: path.rename("y")):
        with pytest.raises(LdmlrError, match=r"^memory://bucket/x: a file of this machine is needed here"):
            use(path)


def test_looking_around():
    for name in ("a/x.h5", "a/y.h5", "a/b/z.h5"):
        objects.write(f"memory://bucket/{name}", b"12345")
    folder = as_path("memory://bucket/a")
    assert (folder.is_dir(), folder.is_file(), folder.exists()) == (True, False, True)
    assert sorted(path.name for path in folder.iterdir()) == ["b", "x.h5", "y.h5"]
    assert [str(path) for path in folder.glob("*.h5")] == ["memory://bucket/a/x.h5", "memory://bucket/a/y.h5"]
    assert [str(path) for path in folder.glob("*/*.h5")] == ["memory://bucket/a/b/z.h5"]
    assert (folder / "x.h5").stat().st_size == 5
    (folder / "x.h5").unlink()
    (folder / "x.h5").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (folder / "x.h5").unlink()
    assert not (folder / "none").exists()
    assert list((folder / "none").iterdir()) == []
    with pytest.raises(UsageError, match="is a folder where a file is expected"):
        check_output(folder, overwrite=True)


def test_an_unknown_protocol_is_one_line():
    with pytest.raises(UsageError, match=r"^nonsense://bucket/x.h5: .*nonsense"):
        FeatureStore.open("nonsense://bucket/x.h5")


def test_every_path_of_a_caller_passes_as_path():
    """`pathlib.Path` of a URL is a local file of another name: no caller's path may become one."""
    allowed = {
        "ldmlr/remote.py", "ldmlr/spool.py",  # where paths are made
        "ldmlr/__init__.py", "ldmlr/report/canvas.py", "ldmlr/encoders/networks/custom.py",
        "ldmlr/results.py: '/proc/cpuinfo'", "ldmlr/ownership.py: os.path.realpath(path)",
        "ldmlr/files.py: os.path.realpath(path)", "ldmlr/data/cifar.py: error.filename or folder",
        "ldmlr/boundary.py: path", "ldmlr/boundary.py: error.filename",
        "ldmlr/hub.py: model_id", "ldmlr/report/words.py: head",
        "ldmlr/report/page.py: str(source)", "ldmlr/data/featuresets.py: name",
        "ldmlr/bench/peers.py: folder", "ldmlr/bench/augment.py: folder", "ldmlr/bench/folder.py: path",
        "ldmlr/inference/images.py: name", "ldmlr/inference/images.py: folder, name",
        "ldmlr/store/shards.py: entry['file']",
        "ldmlr/store/convert/saved_dataset.py: name", "ldmlr/run/opened.py: copy",
        "ldmlr/encoders/baseline.py: ",         "cli/run.py: 'runs'", "cli/run.py: copies",
    }  # fmt: skip
    # Temporary folders, and files of this package.
    kinds = ("tempfile.", "__file__")
    found = set()
    for file in sorted([*(ROOT / "ldmlr").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]):
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path":
                place = f"{name}: {', '.join(map(ast.unparse, node.args))}"
                if name not in allowed and place not in allowed and not any(k in place for k in kinds):
                    found.add(place)
    assert not found, "use ldmlr.remote.as_path"
