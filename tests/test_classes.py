"""ldmlr.classes: classes by name or number, and tables of what is wanted of them."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.classes import class_number, class_word, row_table
from ldmlr.errors import UsageError
from ldmlr.generation.config import PlanConfig


def test_counts_in_words():
    assert row_table(("a=b=3", " 7 = 5")) == {"a=b": 3, "7": 5}
    for wrong in ("7", "=3", "x=", "x=-1", "x=1.5"):
        with pytest.raises(UsageError, match="expected CLASS=ROWS"):
            row_table((wrong,))
    for wrong in ({"x": -1}, {"x": 1.5}, {"x": "many"}, {"x": True}):
        with pytest.raises(UsageError, match=r"expected a whole number of rows, not .* for class 'x'"):
            row_table(wrong)
    with pytest.raises(UsageError, match=r"expected a table from class to rows, such as \{7: 500\}, not 3"):
        PlanConfig(count=3)


@pytest.mark.parametrize(
    ("key", "number"),
    [("b", 1), (2, 2), (np.int32(2), 2), (0.0, 0), ("3", 3), ("name:2", 0), ("number:2", 2), ("number:0", 0)],
)
def test_a_class_by_name_or_number(key, number):
    assert class_number(key, 4, ["2", "b", "c", "3"], "--count") == number


def test_digits_that_name_another_class_are_not_guessed_at():
    names = ["2", "b", "c", "3"]
    with pytest.raises(UsageError, match="'2', which may be class 0 or class 2; write number:0 or number:2"):
        class_number("2", 4, names, "--count")
    with pytest.raises(UsageError, match="'b', which may be class 0 or class 1"):
        class_number("b", 3, ["b", "b", "c"], "--count")
    for missing in ("x", "4", 4, -1, True, None, 1.5, "name:c2", "number:b", "number:4"):
        with pytest.raises(UsageError, match=r"count names the class .*, which is not there"):
            class_number(missing, 4, names, "--count")


@pytest.mark.parametrize("names", [None, ["a", "b", "c"], ["1", "2", "0"], ["0", "1", "2"], ["a", "a", "b"]])
def test_a_class_is_written_so_that_it_is_found(names):
    words = [class_word(number, 3, names) for number in range(3)]
    assert [class_number(word, 3, names, "") for word in words] == [0, 1, 2]
    assert words[2] in ("2", "c", "b", "number:2")


def test_a_class_is_counted_once():
    with pytest.raises(UsageError, match="count: 5000 digits are more rows than there can be"):
        row_table([f"0={'9' * 5000}"])
    with pytest.raises(UsageError, match=r"count names the class .*, which is not there"):
        class_number("9" * 5000, 4, None, "--count")
    with pytest.raises(UsageError, match="count: names the class 'a' twice"):
        row_table(("a=1", "a=2"))
