"""`ldmlr.store.shards` and `merging`: stores in shards, and several into one."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError, UsageError
from ldmlr.store import (
    FeatureStore,
    SplitData,
    StoredHead,
    find_shards,
    manifest_name,
    shard_name,
    verify,
    write_manifest,
)
from ldmlr.store.convert.importing import import_store
from ldmlr.store.merging import merge_stores

RNG = np.random.default_rng(0)
ENTRY = {"file": "gone.h5", "bytes": 1, "rows": {}, "fingerprint": ""}


def data(rows, dim=3, **more):
    return SplitData(RNG.random((rows, dim)).astype("f4"), np.arange(rows) % 4, **more)


def write_shards(base, sizes, **more):
    parts = []
    for index, rows in enumerate(sizes):
        part = data(
            rows, source=np.ones(rows), ids=np.arange(rows) + 100 * index, views=RNG.random((2, rows, 3)),
            view_kinds=("weak", "strong"),
        )  # fmt: skip
        FeatureStore.write(shard_name(base, index, len(sizes)), train=part, num_classes=4, **more)
        parts.append(part)
    return parts


@pytest.fixture
def base(tmp_path):
    return tmp_path / "pseudo"


def fails(manifest, pattern):
    """Opening raises one line that matches, and verifying lists it."""
    with pytest.raises(InputError) as caught:
        FeatureStore.open(manifest)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert any(re.search(pattern, line) for line in verify(manifest).problems)


def test_names_of_shards_and_manifest():
    assert shard_name("out/pseudo.h5", 0, 8).as_posix() == "out/pseudo-00000-of-00008.h5"
    assert shard_name("out/v1.2-pseudo", 7, 8).name == "v1.2-pseudo-00007-of-00008.h5"
    assert (
        manifest_name("out/pseudo").as_posix()
        == manifest_name("out/pseudo.h5").as_posix()
        == "out/pseudo.json"
    )
    with pytest.raises(UsageError, match=r"shard: shard 8 of 8 does not exist; number them 0 \.\. 7"):
        shard_name("pseudo", 8, 8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shards_open_as_one_store_and_stream(base, dtype):
    parts = write_shards(base, [5, 0, 7, 1], dtype=dtype)
    store = FeatureStore.open(write_manifest(base))
    whole = store.train.float32()
    singles = [FeatureStore.open(path).train.float32() for path in find_shards(base)]
    assert np.array_equal(whole, np.concatenate(singles))
    assert np.array_equal(store.train.labels, np.concatenate([part.labels for part in parts]))
    assert store.train.ids.tolist() == [*range(5), *range(200, 207), 300]
    assert store.train.source.sum() == 13
    assert store.train.view_kinds == ("weak", "strong")
    assert np.array_equal(store.train.features[3:9], whole[3:9])
    assert np.array_equal(store.train.float32([12, 0, 5, 5, -1]), whole[[12, 0, 5, 5, -1]])
    views = np.concatenate([FeatureStore.open(path).train.float32(view=1) for path in find_shards(base)])
    assert np.array_equal(store.train.views[1][4:10], views[4:10])
    assert np.array_equal(np.concatenate([x for x, _ in store.train.batches(4)]), whole)
    assert store.fingerprint() == FeatureStore.open(manifest_name(base)).fingerprint()
    assert verify(manifest_name(base)).problems == []


def test_shards_of_different_types_read_as_float32(base):
    FeatureStore.write(shard_name(base, 0, 2), train=data(3), num_classes=4, dtype="float16")
    FeatureStore.write(shard_name(base, 1, 2), train=data(3), num_classes=4, dtype="bfloat16")
    train = FeatureStore.open(write_manifest(base)).train
    assert train.features[2:4].dtype == np.float32
    assert train.float32([5, 0]).shape == (2, 3)


def test_a_missing_shard_is_named(base):
    write_shards(base, [3, 3, 3])
    manifest = write_manifest(base)
    shard_name(base, 1, 3).unlink()
    fails(
        manifest, r"pseudo-00001-of-00003\.h5: this shard of pseudo\.json is missing; copy or write it again"
    )
    with pytest.raises(InputError, match=r"pseudo-00001-of-00003\.h5: this shard of 3 is missing"):
        write_manifest(base, overwrite=True)
    for index in (0, 2):
        shard_name(base, index, 3).unlink()
    with pytest.raises(InputError, match="no shards such as pseudo-00000-of-00001"):
        find_shards(base)


def test_a_damaged_shard_is_named(base):
    write_shards(base, [3, 3])
    manifest = write_manifest(base)
    shard = shard_name(base, 1, 2)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    fails(manifest, r"pseudo-00001-of-00002\.h5: is (truncated|a damaged HDF5 file)")
    with h5py.File(shard_name(base, 0, 2)) as file:
        place = file["train/features"].id.get_offset()
    damaged = bytearray(shard_name(base, 0, 2).read_bytes())
    damaged[place] ^= 1
    shard.write_bytes(whole)
    shard_name(base, 0, 2).write_bytes(damaged)
    problems = verify(manifest).problems
    assert len(problems) == 1
    assert "pseudo-00000-of-00002.h5: /train/features: its contents differ from its sha256" in problems[0]


def test_another_file_in_the_place_of_a_shard_is_noticed(base):
    write_shards(base, [3, 3])
    manifest = write_manifest(base)
    FeatureStore.write(shard_name(base, 1, 2), train=data(3), num_classes=4, overwrite=True)
    fails(manifest, r"pseudo-00001-of-00002\.h5: is not the shard that pseudo\.json lists; write it")


def test_shards_must_agree(base):
    write_shards(base, [3])
    shard_name(base, 0, 1).rename(shard_name(base, 0, 2))
    FeatureStore.write(shard_name(base, 1, 2), train=data(3, dim=5), num_classes=4)
    with pytest.raises(InputError, match=r"pseudo-00001-of-00002\.h5: dim is 5, but 3 in pseudo-00000"):
        write_manifest(base)
    FeatureStore.write(shard_name(base, 0, 4), train=data(3))
    with pytest.raises(InputError, match="shards of 2 and of 4 lie side by side; remove the old ones"):
        write_manifest(base)


def test_a_plain_file_is_no_shard_and_a_manifest_is_not_overwritten(base):
    with h5py.File(shard_name(base, 0, 1), "w") as file:
        file["train/features"], file["train/labels"] = np.ones((2, 2)), [0, 1]
    with pytest.raises(InputError, match="is a plain file; `ldmlr store import`"):
        write_manifest(base)
    FeatureStore.write(shard_name(base, 0, 1), train=data(3), overwrite=True)
    write_manifest(base)
    with pytest.raises(UsageError, match="already exists"):
        write_manifest(base)
    with pytest.raises(UsageError, match="leave out features_key"):
        FeatureStore.open(manifest_name(base), features_key="x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": "else"}, "is not a manifest of shards"),
        ({"schema_version": 9}, "has schema_version 9, this version reads 1"),
        ({"shards": []}, "shards: expected a list"),
        ({"shards": [{**ENTRY, "file": "../store.h5"}]}, "shards: expected a list"),
        ({"shards": [ENTRY]}, r"gone\.h5: this shard"),
        ({"shards": "all"}, "shards: expected a list"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_is_explained(base, change, expected):
    write_shards(base, [3])
    manifest = write_manifest(base)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    fails(manifest, expected)


def test_merging_joins_training_rows_and_keeps_a_shared_test_set_once(tmp_path):
    test, head = data(6), StoredHead("linear", RNG.random((4, 3)).astype("f4"))
    first = FeatureStore.write(tmp_path / "a.h5", train=data(5), test=test, head=head, encoder="net")
    second = FeatureStore.write(
        tmp_path / "b.h5", train=data(7, source=np.ones(7)), test=test, num_classes=4, encoder="net"
    )
    merged = merge_stores([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    store = merged.store
    assert np.array_equal(store.train.features, np.concatenate([first.train.features, second.train.features]))
    assert store.train.source.tolist() == [0] * 5 + [1] * 7
    assert len(store.test) == 6
    assert merged.notes == ["/test is the same in 2 stores and is kept once"]
    assert store.encoder == "net"
    assert np.array_equal(store.head.weight, head.weight)
    assert [entry["fingerprint"] for entry in store.config["merged_from"]] == [
        first.fingerprint(), second.fingerprint(),
    ]  # fmt: skip
    assert verify(store.path).problems == []


def test_merging_shards_and_what_is_left_out(base, tmp_path):
    write_shards(base, [3, 4], dtype="bfloat16")
    manifest = write_manifest(base)
    joined = merge_stores([manifest], tmp_path / "one.h5")
    assert joined.notes == []
    assert joined.store.train.rows.storage == "bfloat16"
    assert joined.store.train.ids.tolist() == [0, 1, 2, 100, 101, 102, 103]
    assert joined.store.train.view_kinds == ("weak", "strong")
    FeatureStore.write(tmp_path / "plain.h5", train=data(2), num_classes=4)
    mixed = merge_stores([manifest, tmp_path / "plain.h5"], tmp_path / "two.h5")
    assert mixed.store.train.rows.storage == "float32"
    assert mixed.store.train.ids is None
    assert mixed.store.train.views is None
    assert [note.split(" is left out")[0] for note in mixed.notes] == ["/train/ids", "/train/views"]
    texts = FeatureStore.write(
        tmp_path / "t.h5", train=data(2, ids=["x", "y"], views=RNG.random((2, 2, 3)),
                                      view_kinds=("weak", "strong")), num_classes=4,
    )  # fmt: skip
    both = merge_stores([manifest, texts.path], tmp_path / "three.h5").store.train
    assert both.ids.tolist() == ["0", "1", "2", "100", "101", "102", "103", "x", "y"]


def test_stores_that_do_not_belong_together_are_not_merged(tmp_path):
    head = StoredHead("linear", np.ones((4, 3), np.float32))
    FeatureStore.write(tmp_path / "a.h5", train=data(5), head=head, class_names=list("abcd"))
    for name, expected, arguments in [
        ("dim", r"b-dim\.h5: dim is 2, but 3 in", {"train": data(5, dim=2)}),
        ("classes", "num_classes is 7, but 4", {"train": data(5), "num_classes": 7}),
        ("names", "class_names differ", {"train": data(5), "class_names": list("abdc")}),
        ("head", "pass keep_head=False", {"train": data(5), "head": StoredHead("linear", head.weight * 2)}),
    ]:
        other = FeatureStore.write(tmp_path / f"b-{name}.h5", **arguments)
        with pytest.raises(InputError, match=expected):
            merge_stores([tmp_path / "a.h5", other.path], tmp_path / "c.h5")
        assert not (tmp_path / "c.h5").exists()
    merged = merge_stores([tmp_path / "a.h5", tmp_path / "b-head.h5"], tmp_path / "c.h5", keep_head=False)
    assert merged.store.head is None
    assert merged.store.class_names == tuple("abcd")


def test_a_store_may_be_merged_onto_itself(tmp_path):
    store = FeatureStore.write(tmp_path / "a.h5", train=data(5))
    merged = merge_stores([store.path, store.path], store.path, overwrite=True).store
    assert len(merged.train) == 10
    assert verify(store.path).problems == []


def test_merging_manifests_that_share_a_test_set(tmp_path):
    tests = [data(4), data(5)]
    for name in ("a", "b"):
        for shard in range(2):
            FeatureStore.write(
                shard_name(tmp_path / name, shard, 2), train=data(3), test=tests[shard], num_classes=4
            )
        write_manifest(tmp_path / name)
    sources = [tmp_path / "a.json", tmp_path / "b.json"]
    fingerprint = FeatureStore.open(sources[0]).fingerprint()
    merged = merge_stores(sources, tmp_path / "c.h5").store
    assert (len(merged.train), len(merged.test)) == (12, 9)
    assert merged.config["merged_from"][0]["fingerprint"] == fingerprint
    other = FeatureStore.write(tmp_path / "d.h5", test=data(6), num_classes=4)
    assert len(merge_stores([sources[0], other.path], tmp_path / "e.h5").store.test) == 15
    imported = import_store(sources[0], tmp_path / "f.h5").store
    assert np.array_equal(imported.train.float32(), FeatureStore.open(sources[0]).train.float32())


def test_shards_lie_beside_their_manifest(tmp_path, base):
    (tmp_path / "elsewhere").mkdir()
    other = FeatureStore.write(tmp_path / "elsewhere" / "x.h5", train=data(3))
    with pytest.raises(UsageError, match="must lie in the folder of its manifest"):
        write_manifest(base, [other.path])
    inside = FeatureStore.write(tmp_path / "inside.h5", train=data(3))
    with pytest.raises(UsageError, match=r"inside\.h5: is named twice; name every shard once"):
        write_manifest(base, [inside.path, tmp_path / "elsewhere" / ".." / "inside.h5"])
    assert not manifest_name(base).exists()
    with pytest.raises(UsageError, match="no shards to list"):
        write_manifest(base, [])
    with pytest.raises(UsageError, match="no store to merge"):
        merge_stores([], tmp_path / "x.h5")
