"""`ldmlr.store`, property tests: what is written comes back, whatever its shape, type and order of
writing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldmlr.floats import encode
from ldmlr.store import FeatureStore, SplitData, StoredHead, StoreWriter, verify

DTYPES = st.sampled_from(["float32", "float16", "bfloat16"])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
FLOATS = st.floats(-60000, 60000, width=32)


@st.composite
def stores(draw):
    """Draw the keyword arguments of `FeatureStore.write`."""
    dim = draw(st.sampled_from([1, 2, 3, 17]))
    classes = draw(st.integers(1, 5))

    def split():
        rows = draw(st.sampled_from([0, 1, 2, 7, 33]))
        views = draw(st.integers(0, 3))
        ids = draw(st.sampled_from(["none", "int", "text"]))
        data = SplitData(
            draw(hnp.arrays(np.float32, (rows, dim), elements=FLOATS)),
            draw(hnp.arrays(np.int64, rows, elements=st.integers(0, classes - 1))),
        )
        if draw(st.booleans()):
            data.source = draw(hnp.arrays(np.uint8, rows, elements=st.integers(0, 1)))
        if ids == "int":
            data.ids = draw(hnp.arrays(np.int64, rows))
        elif ids == "text":
            data.ids = draw(st.lists(TEXT, min_size=rows, max_size=rows))
        if views:
            data.views = draw(hnp.arrays(np.float32, (views, rows, dim), elements=FLOATS, fill=st.just(1.0)))
            data.view_kinds = tuple(draw(st.sampled_from(["weak", "strong"])) for _ in range(views))
        return data

    arguments = {"train": split(), "num_classes": classes, "dtype": draw(DTYPES)}
    if draw(st.booleans()):
        arguments["test"] = split()
    if draw(st.booleans()):
        weight = draw(hnp.arrays(np.float32, (classes, dim), elements=FLOATS))
        arguments["head"] = StoredHead("linear", weight, np.arange(classes, dtype=np.float32))
    if draw(st.booleans()):
        arguments["class_names"] = draw(st.lists(TEXT, min_size=classes, max_size=classes))
    return arguments


def as_stored(values, dtype):
    with np.errstate(over="ignore"):
        stored = encode(np.asarray(values), dtype)
    if dtype == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def same_split(found, data, dtype):
    assert np.array_equal(found.float32(), as_stored(data.features, dtype))
    assert np.array_equal(np.asarray(found.features, np.float32), found.float32())
    assert np.array_equal(found.labels, data.labels)
    assert found.labels.dtype == np.int64
    assert (found.source is None) == (data.source is None)
    if data.source is not None:
        assert np.array_equal(found.source, data.source)
    assert (found.ids is None) == (data.ids is None)
    if data.ids is not None:
        assert found.ids.tolist() == list(data.ids)
    assert found.view_kinds == data.view_kinds
    if data.views is not None:
        assert np.array_equal(np.asarray(found.views, np.float32), as_stored(data.views, dtype))


@given(stores())
def test_what_is_written_comes_back_and_verifies(arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.h5"
        store = FeatureStore.write(path, **arguments)
        assert verify(path).problems == []
        for name in ("train", "test"):
            if name in arguments:
                same_split(store.split(name), arguments[name], arguments["dtype"])
        names = arguments.get("class_names")
        assert store.class_names == (None if names is None else tuple(names))
        if "head" in arguments:
            assert np.array_equal(store.head.weight, arguments["head"].weight)
        copied = FeatureStore.write(
            Path(folder) / "copy.h5", **store.splits, head=store.head, class_names=store.class_names,
            num_classes=store.num_classes, dtype=arguments["dtype"],
        )  # fmt: skip
        assert copied.fingerprint() == store.fingerprint()
        assert sorted(p.name for p in Path(folder).iterdir()) == ["copy.h5", "store.h5"]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms(use_true_random=False), st.booleans())
def test_pieces_may_be_written_in_any_order(sizes, random, text):
    starts = np.cumsum([0, *sizes])
    rows = int(starts[-1])
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    ids = [f"row {i}" for i in range(rows)] if text else list(range(rows))
    order = list(range(len(sizes)))
    random.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pieces.h5"
        with StoreWriter(path, dim=2, num_classes=3) as writer:
            split = writer.split("train", rows, source=True, ids="text" if text else "int")
            for piece in order:
                part = slice(starts[piece], starts[piece + 1])
                split.write(starts[piece], values[part], np.arange(rows)[part] % 3, 1, ids[part])
        whole = FeatureStore.write(
            Path(folder) / "whole.h5",
            train=SplitData(values, np.arange(rows) % 3, np.ones(rows), ids),
            num_classes=3,
        )
        assert FeatureStore.open(path).fingerprint() == whole.fingerprint()
        assert verify(path).problems == []
