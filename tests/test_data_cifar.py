"""`ldmlr.data.cifar`: the public CIFAR archives, and what a harmful one can do (nothing)."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ldmlr.data import open_image_set
from ldmlr.data.unpickle import load_pickle
from ldmlr.errors import InputError, LdmlrError

TRAIN10 = [f"data_batch_{i}" for i in range(1, 6)]


def planes(n: int, seed: int) -> np.ndarray:
    """Images as CIFAR stores them: ``[n, 3072]``, plane by plane."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), np.uint8)


def python2_pickle(value: Any) -> bytes:
    """Pickle as the authors of CIFAR did: Python 2, protocol 2, NumPy 1."""

    def encode(item: Any) -> bytes:
        if isinstance(item, bytes):
            return (
                b"U" + bytes([len(item)]) + item
                if len(item) < 256
                else b"T" + struct.pack("<i", len(item)) + item
            )
        if isinstance(item, int):
            return b"J" + struct.pack("<i", item)
        if isinstance(item, list):
            return b"](" + b"".join(map(encode, item)) + b"e"
        if isinstance(item, dict):
            return b"}(" + b"".join(encode(key) + encode(entry) for key, entry in item.items()) + b"u"
        shape = b"".join(map(encode, item.shape))
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        dtype = (
            b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        return empty + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + encode(item.tobytes()) + b"tb"

    return b"\x80\x02" + encode(value) + b"."


def python3_pickle(value: Any) -> bytes:
    """Pickle as a user who saved the batches again would."""
    return pickle.dumps(value, protocol=3)


def cifar10(dump: Callable[[Any], bytes] | None = None) -> dict[str, bytes]:
    """Return the files of a tiny CIFAR-10: four images of two classes in each batch."""
    files = {}
    for i, name in enumerate([*TRAIN10, "test_batch"]):
        labels, pixels = [2 * i % 10, (2 * i + 1) % 10] * 2, planes(4, i)
        if dump is None:
            files[f"{name}.bin"] = b"".join(
                bytes([label]) + row.tobytes() for label, row in zip(labels, pixels, strict=True)
            )
        else:
            files[name] = dump({b"batch_label": b"one of them", b"labels": labels, b"data": pixels})
    names = [f"name{c}".encode() for c in range(10)]
    if dump is None:
        files["batches.meta.txt"] = b"\n".join(names) + b"\n\n"
    else:
        files["batches.meta"] = dump({b"num_cases_per_batch": 4, b"label_names": names, b"num_vis": 3072})
    return files


def cifar100(dump: Callable[[Any], bytes] | None = None) -> dict[str, bytes]:
    files = {}
    fine = [(7 * i) % 100 for i in range(100)]
    for name, seed in (("train", 0), ("test", 1)):
        pixels = planes(100, seed)
        if dump is None:
            files[f"{name}.bin"] = b"".join(
                bytes([label // 5, label]) + row.tobytes() for label, row in zip(fine, pixels, strict=True)
            )
        else:
            coarse = [label // 5 for label in fine]
            files[name] = dump({b"coarse_labels": coarse, b"fine_labels": fine, b"data": pixels})
    names = [f"fine{c}".encode() for c in range(100)]
    if dump is None:
        files["fine_label_names.txt"] = b"\n".join(names) + b"\n"
        files["coarse_label_names.txt"] = b"coarse\n"
    else:
        files["meta"] = dump({b"fine_label_names": names, b"coarse_label_names": []})
    return files


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, files: dict[str, bytes], inside: str = "cifar-batches/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(inside + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


DUMPS = pytest.mark.parametrize("dump", [None, python2_pickle, python3_pickle])
PACKS = pytest.mark.parametrize("pack", [folder, archive])


@DUMPS
@PACKS
def test_cifar10_is_read_in_every_form(tmp_path, dump, pack):
    image_set = open_image_set(pack(tmp_path / "cifar-10.tar.gz", cifar10(dump)))
    assert image_set.name == "cifar-10"
    assert image_set.class_names == tuple(f"name{c}" for c in range(10))
    assert image_set.train.counts.tolist() == [2] * 10
    assert image_set.train.labels.tolist() == [label for i in range(5) for label in [2 * i, 2 * i + 1] * 2]
    assert image_set.train.shape == (32, 32, 3)
    for batch in range(5):
        expected = planes(4, batch).reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
        assert np.array_equal(image_set.train.load(slice(4 * batch, 4 * batch + 4)), expected)
    assert image_set.split("test").labels.tolist() == [0, 1, 0, 1]


@DUMPS
@PACKS
def test_cifar100_has_its_fine_classes(tmp_path, dump, pack):
    image_set = open_image_set(pack(tmp_path / "cifar-100.tgz", cifar100(dump)))
    assert image_set.class_names == tuple(f"fine{c}" for c in range(100))
    for split in (image_set.train, image_set.split("test")):
        assert split.labels.tolist() == [(7 * i) % 100 for i in range(100)]
    pixels = planes(100, 1).reshape(100, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(image_set.split("test").load(slice(None)), pixels)


def test_all_forms_hold_the_same_set(tmp_path):
    forms = [cifar10(), cifar10(python2_pickle), cifar10(python3_pickle)]
    prints = {
        open_image_set(archive(tmp_path / f"{i}.tar.gz", files)).fingerprint()
        for i, files in enumerate(forms)
    }
    assert len(prints) == 1


def test_a_fortran_array_is_read_in_its_order():
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert np.array_equal(load_pickle(pickle.dumps({b"a": array}, 3), "x")[b"a"], array)


def test_an_archive_is_not_extracted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = cifar10()
    path = archive(tmp_path / "cifar.tar.gz", files, inside="../../outside/")
    assert open_image_set(path).num_classes == 10
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cifar.tar.gz"]
    assert not (tmp_path.parent.parent / "outside").exists()


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(cifar10()["test_batch.bin"])
    files = cifar10()
    del files["test_batch.bin"]
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    with pytest.raises(InputError, match=r"test_batch\.bin is missing"):
        open_image_set(path)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", ["system", "exec", "open", "frombuffer", "scalar"])
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, protocol, function):
    trace = tmp_path / "trace"
    call = {
        "system": Call(os.system, f"touch {trace}"),
        "exec": Call(builtins.exec, f"open({str(trace)!r}, 'w')"),
        "open": Call(builtins.open, str(trace), "w"),
        "frombuffer": Call(np.frombuffer, b"\0" * 3072, "u1"),
        "scalar": np.float64(1.0),
    }[function]
    files = cifar10(python2_pickle)
    files["data_batch_2"] = pickle.dumps({b"labels": [0], b"data": call}, protocol)
    with pytest.raises(
        InputError, match=r"data_batch_2: not a CIFAR pickle, not read \(.*asks for"
    ) as caught:
        open_image_set(folder(tmp_path / "cifar", files))
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch trace'\ntR.",
        b"(S'touch trace'\nios\nsystem\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__subclasses__\x93)R.",
        b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.load\x93.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cnumpy\nload\n.",
        b"c__builtin__\neval\n.",
        b"c_codecs\nencode\n.",
        b"\x80\x02\x82\x01.",
        b"Pname\n.",
        b"S'name'\nQ.",
        # Attributes set on the stand-ins themselves.
        b"cnumpy\nndarray\n}(U\x05valueK\x01ub.",
        b"cnumpy.core.multiarray\n_reconstruct\n(N}(U\x08__call__K\x01utb.",
        # Damage.
        b"",
        b".",
        b"\x80\x02}",
        b"\x80\x02]" + b"(" * 10,
        b"\x8e" + struct.pack("<Q", 2**62),
        b"no pickle",
    ],
)
def test_hand_made_pickles_are_refused(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^batch: not a CIFAR pickle, not read \(.+\); download"):
        load_pickle(code, "batch")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "array", [np.zeros(3, np.float32), np.zeros(3, np.int8), np.array([os], object), np.array(["a"])]
)
def test_other_arrays_are_refused(array):
    if array.dtype == object:
        array = np.array([[1], "x"], object)
    with pytest.raises(InputError, match="an array that is not uint8"):
        load_pickle(pickle.dumps({b"data": array}, 3), "batch")


def test_an_array_whose_bytes_do_not_fit_is_refused():
    code = python2_pickle({b"data": planes(4, 0)})
    wrong = code.replace(b"J" + struct.pack("<i", 4), b"J" + struct.pack("<i", 5))
    assert wrong != code
    with pytest.raises(InputError, match="shape does not match its bytes"):
        load_pickle(wrong, "batch")


def test_nested_references_do_not_multiply():
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    assert set(load_pickle(pickle.dumps({b"labels": value}, 3), "batch")) == {b"labels"}


BATCH = {b"labels": [0, 1], b"data": planes(2, 0)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not the dictionary"),
        ({b"labels": [0, 1]}, r"no data \[N, 3072\] uint8"),
        ({**BATCH, b"data": planes(2, 0)[:, :100]}, r"no data \[N, 3072\] uint8"),
        ({**BATCH, b"data": planes(0, 0)}, r"no data \[N, 3072\] uint8"),
        ({**BATCH, b"data": b"bytes"}, r"no data \[N, 3072\] uint8"),
        ({b"data": planes(2, 0)}, "no list labels of whole numbers"),
        ({**BATCH, b"labels": [0, b"1"]}, "no list labels of whole numbers"),
        ({**BATCH, b"labels": [0]}, "1 label for 2 images"),
        ({**BATCH, b"labels": [0, 10]}, r"label 10 in row 1 is out of range; labels must be 0 \.\. 9"),
        ({**BATCH, b"labels": [0, -1]}, "label -1 in row 1 is out of range"),
    ],
)
def test_wrong_contents_are_named(tmp_path, content, message):
    files = cifar10(python2_pickle) | {"data_batch_3": python2_pickle(content)}
    with pytest.raises(InputError, match=f"data_batch_3: .*{message}"):
        open_image_set(folder(tmp_path / "cifar", files))


@pytest.mark.parametrize("value", [2**70, 1.5, True])
def test_labels_of_other_kinds_are_named(tmp_path, value):
    files = cifar10(python3_pickle) | {"data_batch_3": python3_pickle({**BATCH, b"labels": [0, value]})}
    with pytest.raises(InputError, match=r"data_batch_3: .*(whole numbers|out of range)"):
        open_image_set(folder(tmp_path / "cifar", files))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "data_batch_1.bin",
            cifar10()["data_batch_1.bin"][:-1],
            "12,291 bytes, not a whole number of 3073-byte",
        ),
        ("data_batch_1.bin", b"", "0 bytes, not a whole number"),
        ("test_batch.bin", b"\x0b" + bytes(3072), "label 11 in row 0 is out of range"),
        ("batches.meta.txt", b"cat\ndog\n", "2 class names, expected 10"),
        (
            "data_batch_5.bin",
            b"\x00" + bytes(3072),
            r"class 8 \(name8\) \(and 1 more\) has no training image",
        ),
    ],
)
def test_wrong_binary_files_are_named(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as caught:
        open_image_set(folder(tmp_path / "cifar", cifar10() | {name: content}))
    assert str(tmp_path / "cifar") in str(caught.value)


@pytest.mark.parametrize(
    "missing", ["data_batch_1.bin", "data_batch_4.bin", "test_batch.bin", "batches.meta.txt"]
)
@PACKS
def test_a_missing_file_is_named(tmp_path, missing, pack):
    files = cifar10()
    del files[missing]
    with pytest.raises(InputError, match=rf"cifar\.tar: {missing} is missing; download or extract"):
        open_image_set(pack(tmp_path / "cifar.tar", files))


@pytest.mark.parametrize("length", [0, 10, 500, -20])
def test_a_damaged_archive_is_named(tmp_path, length):
    path = archive(tmp_path / "cifar.tar.gz", cifar10())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"cifar\.tar\.gz: not a tar archive, or damaged .*download"):
        open_image_set(path)


def test_an_altered_byte_in_an_archive_is_noticed(tmp_path):
    path = archive(tmp_path / "cifar.tar.gz", cifar10())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cifar\.tar\.gz: not a tar archive, or damaged"):
        open_image_set(path)


def test_another_archive_is_told_what_to_do(tmp_path):
    path = archive(tmp_path / "photos.tar.gz", {"cat.jpg": b"x"})
    with pytest.raises(InputError, match=r"no CIFAR files in this archive .*; extract other archives"):
        open_image_set(path)


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    files = cifar10()
    path = tmp_path / "cifar.tar"
    with tarfile.open(path, "w") as tar:
        for inside in ("a/", "b/"):
            for name, content in files.items():
                member = tarfile.TarInfo(inside + name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    with pytest.raises(InputError, match="is there twice"):
        open_image_set(path)


def test_long_tailed_draw_from_an_archive(tmp_path):
    image_set = open_image_set(archive(tmp_path / "c.tar.gz", cifar10(python2_pickle)), imbalance_factor=2)
    assert image_set.train.counts.tolist() == [2] + [1] * 9
    assert image_set.provenance["kind"] == "cifar"


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(name, *_):
        raise PermissionError(13, "Permission denied", str(name))

    path = archive(tmp_path / "cifar.tar.gz", cifar10())
    # Not by the file's mode: for root there is nothing that may not be read.
    monkeypatch.setattr("ldmlr.data.cifar.tarfile.open", refuse)
    with pytest.raises(LdmlrError, match=r"cifar.tar.gz: permission denied"):
        open_image_set(path)
