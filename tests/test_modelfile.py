"""`ldmlr.modelfile`: files of diffusion models, heads and baselines.

Files of the first version open and give what they gave; what is changed, cut, of another kind or newer
is named.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import ldmlr
from ldmlr import modelfile
from ldmlr.diffusion.config import BEFORE_AXES, BEFORE_TRAINERS
from ldmlr.encoders.model import HEADER as BASELINE_HEADER
from ldmlr.encoders.model import Baseline
from ldmlr.errors import InputError
from ldmlr.generation.latentfile import HEADER as DIFFUSION_HEADER
from ldmlr.heads.headfile import HEADER as HEAD_HEADER
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import SplitData

FIXTURES = Path(__file__).parent / "fixtures"
# Name of the fixture: what opens it, the kind, and the rules of its header.
KINDS = {
    "diffusion": (ldmlr.LatentDiffusion.load, modelfile.DIFFUSION, DIFFUSION_HEADER),
    "adaln": (ldmlr.LatentDiffusion.load, modelfile.DIFFUSION, DIFFUSION_HEADER),
    "head": (FinetunedHead.load, modelfile.HEAD, HEAD_HEADER),
    "baseline": (Baseline.load, modelfile.BASELINE, BASELINE_HEADER),
}
each_kind = pytest.mark.parametrize("name", KINDS)


def first_version(name):
    return FIXTURES / f"{name}-v1.safetensors"


@pytest.fixture
def new(tmp_path):
    """Return a function that writes a model in today's version."""

    def written(name, path="new.safetensors"):
        KINDS[name][0](first_version(name)).save(tmp_path / path, overwrite=True)
        return tmp_path / path

    return written


def contents(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["ldmlr"]), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118


def put(path, header, tensors):
    """Write a file as it stands: no checksum is made."""
    save_file(tensors, path, metadata={"ldmlr": header if isinstance(header, str) else json.dumps(header)})


def refused(name, path, *words):
    """Return the one line that a file is refused with."""
    with pytest.raises(InputError) as caught:
        KINDS[name][0](path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    for word in words:
        assert word in line
    return line


# --- files of the first version ----------------------------------------------------------------


@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "files-v1.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("name", "fingerprint"), [("diffusion", "4537378d38e775cd"), ("adaln", "a08c0feceacada46")]
)
def test_a_diffusion_model_of_the_first_version_draws_the_same(name, fingerprint, expected):
    model = ldmlr.LatentDiffusion.load(first_version(name))
    rows = model.sample(np.arange(12) % 3, seed=5, first_row=100, backend="reference")
    np.testing.assert_allclose(rows, expected[name], atol=1e-5)
    # It names generations: those that were interrupted can go on.
    assert model.fingerprint() == fingerprint


def test_a_head_of_the_first_version_gives_the_same_logits(expected):
    head = FinetunedHead.load(first_version("head"))
    np.testing.assert_allclose(head.logits(expected["features"]), expected["head"], atol=1e-5)
    assert (head.head.kind, head.origin, head.config.epochs, len(head.history)) == ("cosine", "fitted", 2, 2)


def test_a_baseline_of_the_first_version_gives_the_same_features(expected):
    baseline = Baseline.load(first_version("baseline"))
    pixels = torch.from_numpy(expected["images"]).permute(0, 3, 1, 2)
    features = baseline.features(pixels, torch.device("cpu")).numpy()
    np.testing.assert_allclose(features, expected["baseline"], atol=1e-5)
    assert baseline.class_names == ("red", "green", "blue")


@pytest.mark.parametrize("name", ["diffusion", "adaln"])
def test_a_changed_weight_of_the_first_version_is_noticed(name, tmp_path):
    header, tensors = contents(first_version(name))
    tensors["network.input.bias"][0] += 1e-3
    put(tmp_path / "old.safetensors", header, tensors)
    refused(name, tmp_path / "old.safetensors", "damaged model file (the checksum does not match)")


@each_kind
def test_what_is_no_model_is_called_what_it_is(name, tmp_path):
    store = tmp_path / "features.h5"
    ldmlr.FeatureStore.write(store, train=SplitData(np.zeros((4, 3), np.float32), np.arange(4) % 2))
    refused(name, store, "is a feature store (HDF5), not a", f"made by {KINDS[name][1].maker}")
    np.savez(tmp_path / "rows.npz", x=np.zeros(3))
    refused(name, tmp_path / "rows.npz", "is a .npz file, not a")
    (tmp_path / "shards.json").write_text("{}")
    refused(name, tmp_path / "shards.json", "is a JSON file")


@each_kind
def test_a_model_is_no_store(name, new):
    path = new(name)
    with pytest.raises(InputError) as caught:
        ldmlr.FeatureStore.open(path)
    assert f"{path}: is a {KINDS[name][1].noun} (safetensors), not a feature store; give" in str(caught.value)


# --- files of today ----------------------------------------------------------------------------


@each_kind
def test_equal_models_are_equal_files(name, new):
    one, two = new(name, "one.safetensors"), new(name, "two.safetensors")
    assert one.read_bytes() == two.read_bytes()
    KINDS[name][0](one).save(two, overwrite=True)
    assert one.read_bytes() == two.read_bytes()
    header, old = contents(one)[0], contents(first_version(name))[0]
    numbers = {"schema_version", "version", "sha256"}
    assert header["schema_version"] == 2
    if name in ("diffusion", "adaln"):  # what options that came later stand for in such a model
        old["config"] |= {**BEFORE_AXES, **BEFORE_TRAINERS}
        old["trained"] = {}
        old["held_out"] = {"loss_over_gaussian": None, "bands": [], "groups": {}, "rows": 0}
    if name == "head":
        old["config"] |= {"fit": "auto", "width": None, "dropout": None}
        old["config"] |= {"monotone_norms": False, "precision": "auto"}
        old["config"]["batch_size"] = old["config"].pop("batch")
    assert {k: header[k] for k in header.keys() - numbers} == {k: old[k] for k in old.keys() - numbers}


def places(value, path=()):
    """Yield the path of everything in a header: objects, lists and what is in them."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


def otherwise(value, generator):
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + int(generator.integers(1, 9))
    if isinstance(value, str):
        return value + "x" if not value else chr(ord(value[0]) ^ 1) + value[1:]
    if value is None:
        return 0.0
    return [*value, 1] if isinstance(value, list) else {**value, "more": 1}


@each_kind
def test_every_changed_field_of_a_header_is_noticed(name, new, tmp_path):
    header, tensors = contents(new(name))
    path, generator = tmp_path / "changed.safetensors", np.random.default_rng(7)
    for place in places(header):
        changed = copy.deepcopy(header)
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        for change in ("other", "gone"):
            if change == "other":
                inside[place[-1]] = otherwise(inside[place[-1]], generator)
            else:
                del inside[place[-1]]
            put(path, changed, tensors)
            refused(name, path)
    put(path, {**header, "more": 1}, tensors)
    refused(name, path, "the checksum does not match")


@each_kind
def test_every_changed_tensor_is_noticed(name, new, tmp_path):
    header, tensors = contents(new(name))
    path = tmp_path / "changed.safetensors"
    for which in tensors:
        put(path, header, {k: v + 1 if k == which else v for k, v in tensors.items()})
        refused(name, path, "the checksum does not match")
        put(path, header, {k: v for k, v in tensors.items() if k != which})
        refused(name, path, "the checksum does not match")


@each_kind
def test_a_cut_or_damaged_file_is_one_clear_line(name, new):
    path = new(name)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(name, path, "not a safetensors file, or damaged", "make or copy it again")
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(damaged))
        refused(name, path)


# --- values that do not fit, with a right checksum ---------------------------------------------

WRONG = (None, True, -1, 0, 1.5, 10**400, float("nan"), "x", [], [1], ["x"], {}, {"x": 1})


def write_first(path, kind, fields, tensors):
    """Write a file as the first version did."""
    if kind is modelfile.DIFFUSION:
        version = {"schema_version": 1, "sha256": modelfile.checksum(tensors)}
    else:
        version = {"version": 1}
    put(path, {"format": kind.format, **version, **fields}, tensors)


def write_new(path, kind, fields, tensors):
    """Write a file as today."""
    modelfile.write(path, kind, fields, tensors, overwrite=True)


@each_kind
@pytest.mark.parametrize("write", [write_first, write_new])
def test_a_field_of_a_wrong_type_or_range_is_named(name, write, tmp_path):
    header, tensors = contents(first_version(name))
    load, kind, rules = KINDS[name]
    path = tmp_path / "wrong.safetensors"
    fields = {key: value for key, value in header.items() if key in rules}
    write(path, kind, fields, tensors)
    load(path)
    for key, value in ((key, value) for key in rules for value in WRONG):
        write(path, kind, {**fields, key: value}, tensors)
        if not rules[key].holds(value):
            refused(name, path, f"damaged {kind.file} (", key)
            continue
        try:  # such as another seed; what does not fit the weights is refused all the same
            load(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    for key in rules:
        write(path, kind, {other: value for other, value in fields.items() if other != key}, tensors)
        refused(name, path, f"its header has no {key}")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("diffusion", {"num_classes": 7}, "the statistics do not fit the configuration"),
        ("diffusion", {"dim": 9}, "the statistics do not fit the configuration"),
        ("diffusion", {"class_names": ["ant", "bee"]}, "it has 2 class names for 3 classes"),
        ("diffusion", {"config": {"hidden": 1 << 30}}, "the weights do not fit the configuration"),
        ("diffusion", {"config": {"hidden": 8, "layers": 1 << 30}}, "the weights do not fit"),
        (
            "diffusion",
            {"config": {"hidden": 8, "colour": "red"}},
            "written by a newer version (unknown key 'colour')",
        ),
        ("diffusion", {"config": {"hidden": "wide"}}, "hidden: expected a whole number"),
        ("head", {"kinds": {"head": "wcdas", "baseline": "linear"}}, "its arrays do not fit"),
        ("head", {"config": {"epochs": 0}}, "epochs: must be at least 1"),
        (
            "baseline",
            {"config": {"epochs": 1, "colour": "red"}},
            "written by a newer version (unknown key 'colour'); upgrade ldmlr",
        ),
        ("baseline", {"dim": 1 << 30}, "the head's weights do not fit the classes and dimensions"),
        ("baseline", {"class_names": ["red"]}, "the head's weights do not fit the classes and dimensions"),
        ("baseline", {"mean": [0.5]}, "3 channels, but 1 means and 3 deviations"),
        ("baseline", {"shape": [8, 8, 1], "mean": [0.5], "std": [0.5]}, "the network's weights do not fit"),
        ("baseline", {"network": "medium"}, "its network: unknown network 'medium'"),
    ],
)
def test_a_header_that_does_not_fit_its_tensors_is_refused(name, change, message, new, tmp_path):
    header, tensors = contents(new(name))
    path = tmp_path / "wrong.safetensors"
    modelfile.write(path, KINDS[name][1], {**header, **change}, tensors, overwrite=True)
    refused(name, path, message)


@pytest.mark.parametrize(
    ("name", "which", "change"),
    [
        ("diffusion", "counts", lambda counts: counts.double()),
        ("diffusion", "counts", lambda counts: counts[:2]),
        ("diffusion", "transform.mean", lambda mean: mean.float()),
        ("head", "counts", lambda counts: counts[:2]),
        ("head", "counts", lambda counts: counts.double()),
        ("head", "head.weight", lambda weight: weight[0]),
        ("head", "baseline.weight", lambda weight: weight[:, :2]),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(name, which, change, new, tmp_path):
    header, tensors = contents(new(name))
    path = tmp_path / "wrong.safetensors"
    tensors[which] = change(tensors[which])
    modelfile.write(path, KINDS[name][1], header, tensors, overwrite=True)
    refused(name, path, f"damaged {KINDS[name][1].file} (")


# --- other kinds and other versions ------------------------------------------------------------


@each_kind
def test_a_file_of_another_kind_is_named_as_such(name, new):
    kind = KINDS[name][1]
    for other, (_, found, _) in KINDS.items():
        if found is not kind:
            for path in (first_version(other), new(other)):
                refused(
                    name, path, f"is a {found.noun}, expected a {kind.noun}; give one made by {kind.maker}"
                )


@each_kind
def test_files_of_other_programs_are_named(name, tmp_path):
    kind, path, tensors = KINDS[name][1], tmp_path / "other.safetensors", {"x": torch.zeros(3)}
    with pytest.raises(InputError, match=f"no such (model|{kind.file})"):
        KINDS[name][0](path)
    path.mkdir()
    with pytest.raises(InputError):
        KINDS[name][0](path)
    path.rmdir()
    save_file(tensors, path)
    refused(name, path, f"a safetensors file, but no {kind.noun}; give one made by {kind.maker}")
    put(path, {"format": "other"}, tensors)
    refused(name, path, f"holds 'other', expected a {kind.noun}")
    put(path, {"format": ["ldmlr-head"]}, tensors)
    refused(name, path, f"holds ['ldmlr-head'], expected a {kind.noun}")
    for text in ("", "[" * 100_000, "nonsense", "[]", "1"):
        put(path, text, tensors)
        refused(name, path, f"damaged {kind.file}")


@each_kind
def test_a_newer_version_is_named_as_such(name, new, tmp_path):
    for source in (first_version(name), new(name)):
        header, tensors = contents(source)
        field = "schema_version" if "schema_version" in header else "version"
        put(tmp_path / "newer.safetensors", {**header, field: 9}, tensors)
        refused(
            name, tmp_path / "newer.safetensors",
            "written by a newer version (schema 9, this one reads up to 2); upgrade ldmlr",
        )  # fmt: skip
        for version in (0, -1, "1", None, 1.0, True):
            put(tmp_path / "newer.safetensors", {**header, field: version}, tensors)
            refused(name, tmp_path / "newer.safetensors", f"(its version is {version!r})")


def test_a_file_is_not_replaced_unless_asked(new, tmp_path):
    path = tmp_path / "kept.safetensors"
    shutil.copy(first_version("head"), path)
    before = path.read_bytes()
    with pytest.raises(ldmlr.errors.UsageError, match="already exists"):
        FinetunedHead.load(path).save(path)
    assert path.read_bytes() == before
