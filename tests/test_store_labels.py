"""`ldmlr.store.convert.labels`: labels of any kind become classes, or one line says why not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.errors import InputError
from ldmlr.store.convert.labels import map_labels


@pytest.mark.parametrize(
    ("found", "names", "labels"),
    [
        ({"train": [2, 0, 1]}, None, {"train": [2, 0, 1]}),
        ({"train": [0, 2], "test": [1]}, None, {"train": [0, 2], "test": [1]}),
        ({"train": [1, 2, 3]}, ("1", "2", "3"), {"train": [0, 1, 2]}),
        ({"train": [-1, 1], "test": [7]}, ("-1", "1", "7"), {"train": [0, 1], "test": [2]}),
        ({"train": [1.0, 0.0]}, None, {"train": [1, 0]}),
        ({"train": [True, False]}, None, {"train": [1, 0]}),
        ({"train": ["b", "a"], "test": ["c"]}, ("a", "b", "c"), {"train": [1, 0], "test": [2]}),
        ({"train": np.array([b"b", b"a"])}, ("a", "b"), {"train": [1, 0]}),
        ({"train": [[1], [0]]}, None, {"train": [1, 0]}),
    ],
)
def test_labels_of_any_kind_become_classes(found, names, labels):
    mapped = map_labels("file", {name: np.asarray(values) for name, values in found.items()})
    assert mapped.class_names == names
    assert {name: values.tolist() for name, values in mapped.labels.items()} == labels
    assert bool(mapped.note) == (names is not None)


def test_labels_that_cannot_be_classes(tmp_path):
    for values, expected in [
        ({"a": [0.5]}, r"row 0 holds 0\.5, expected whole numbers"),
        ({"a": [np.nan]}, "row 0 holds nan"),
        ({"a": [1.0, 1e19]}, r"row 1 holds 1e\+19"),
        ({"a": []}, "has no rows"),
        ({"a": [1], "b": ["x"]}, "numbers in one split and texts in another"),
        ({"a": np.array([1 + 2j])}, "are complex128"),
        ({"a": np.array(["x", 3], dtype=object)}, "row 1 holds 3"),
    ]:
        with pytest.raises(InputError, match=expected):
            map_labels("file", {name: np.asarray(entry) for name, entry in values.items()})
    with pytest.raises(InputError, match="label 'z' is not among the 2 class names"):
        map_labels("file", {"a": np.array(["z"])}, ("x", "y"))
    with pytest.raises(
        InputError, match=r"^file: class names: classes 0 and 2 are both named 'x'; rename one$"
    ):
        map_labels("file", {"a": np.array(["x", "y"])}, ("x", "y", "x"))
    assert map_labels("file", {"a": np.array([0, 2])}, ("x", "y", "x")).labels["a"].tolist() == [0, 2]
    assert map_labels("file", {"a": np.array([2, 5])}, num_classes=9).labels["a"].tolist() == [2, 5]


@given(st.lists(st.integers(-5, 50), min_size=1, max_size=30))
def test_mapped_numbers_keep_their_order_and_names(values):
    mapped = map_labels("file", {"train": np.array(values)})
    names = mapped.class_names or tuple(map(str, range(mapped.num_classes)))
    assert [int(names[label]) for label in mapped.labels["train"]] == values
    assert [int(name) for name in names] == sorted({int(name) for name in names})
