"""Errors name options once; the command line and Python each spell them their own way."""

from __future__ import annotations

import re
from pathlib import Path

import ldmlr_cli
import numpy as np
import pytest

import ldmlr
from ldmlr.errors import InputError, LdmlrError, UsageError, counted, listed, opt, with_article


def test_one_message_two_spellings():
    error = UsageError(f"{opt('first_row')}: must be at least 0; leave {opt('gate', 'head')} out")
    assert str(error) == "first_row: must be at least 0; leave gate='head' out"
    assert error.on_command_line() == "--first-row: must be at least 0; leave --gate head out"


def test_a_switch_is_written_without_its_value_on_the_command_line():
    error = InputError(f"rows.h5: exists; pass {opt('overwrite', True)}")
    assert str(error) == "rows.h5: exists; pass overwrite=True"
    assert error.on_command_line() == "rows.h5: exists; pass --overwrite"
    error = InputError(f"other.h5: has another head; pass {opt('head', False)}")
    assert str(error) == "other.h5: has another head; pass head=False"
    assert error.on_command_line() == "other.h5: has another head; pass --no-head"


def test_the_option_that_is_wrong_is_a_field():
    assert UsageError(f"{opt('first_row')}: must be at least 0").option == "first_row"
    assert UsageError(f"rows.h5: exists; pass {opt('overwrite')}").option is None
    assert LdmlrError("the disk is full").option is None


def test_a_message_inside_another_keeps_its_options():
    inner = UsageError(f"{opt('first_row')}: must be at least 0")
    outer = InputError(f"run.toml: {inner}")
    assert str(outer) == "run.toml: first_row: must be at least 0"
    assert outer.on_command_line() == "run.toml: --first-row: must be at least 0"


def test_parameters_of_another_name():
    error = UsageError(f"{opt('strategy')}: unknown value; use {opt('seed', 3)}").renamed(
        {"strategy": "sampling_strategy", "seed": "random_state"}
    )
    assert isinstance(error, UsageError)
    assert error.option == "sampling_strategy"
    assert str(error) == "sampling_strategy: unknown value; use random_state=3"


@pytest.mark.parametrize("text", ["", "plain", "a: b; c", "{braces} and 100 %"])
def test_messages_without_options_stay_as_they_are(text):
    assert str(LdmlrError(text)) == text == LdmlrError(text).on_command_line()


def test_of_many_names_the_first_and_the_last_are_listed():
    assert listed(f"f{i}" for i in range(8)) == "f0, f1, f2, f3, f4, f5, f6, f7"
    assert listed([*(f"f{i}" for i in range(1999)), "species"]) == (
        "f0, f1, f2, f3, ..., f1996, f1997, f1998, species (2,000 in all)"
    )
    assert listed([]) == ""


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [
        (0, "row", "0 rows"), (1, "row", "1 row"), (1_200, "generated row", "1,200 generated rows"),
        (1, "class", "1 class"), (10, "class name", "10 class names"), (3, "axis", "3 axes"),
        (np.int64(2), "class", "2 classes"),
    ],
)  # fmt: skip
def test_a_count_agrees_with_what_it_counts(number, thing, said):
    assert counted(number, thing) == said


# A number in braces before a noun in the plural: "1 rows" the first time that it is one.
BARE = re.compile(
    r"\{(?:len\([^{}]*\)|[a-z_.]*(?:count|num_classes|rows|total|classes)(?:\[[^]]*\])?)(?::,)?\} "
    r"(?:rows|classes|images|labels|columns|files)\b(?!/)"
)


def test_no_message_writes_a_count_by_itself():
    """The names of measurements aside: by these, one ``ldmlr bench`` is set beside another."""
    folders = [Path(ldmlr.__file__).parent, Path(ldmlr_cli.__file__).parent]
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for folder in folders
        for path in folder.rglob("*.py")
        if path.parent.name != "bench"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BARE.search(line)
    ]
    assert not found, "write counted(number, 'row'):\n" + "\n".join(found)


def test_things_have_their_article():
    assert [with_article(thing) for thing in ("model file", "image set")] == ["a model file", "an image set"]
