"""Damaged files of every format, a few hundred each: an error of one line, or the right contents.

The long run, with 10,000 files a format, is ``python tests/fuzz/run.py``; see there.
"""

from __future__ import annotations

from random import Random

import pytest
from fuzz.formats import FORMATS
from fuzz.harness import FINE, OTHER, REFUSED, SAME, case_of, run
from fuzz.mutate import mutated

CASES = 200


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_or_read_right(name):
    report = run(FORMATS[name], CASES)
    assert not report.failures, report.failures
    assert sum(report.counts.values()) == CASES
    # A mutator that did nothing, or a reader that refuses everything, would prove nothing.
    assert report.counts[REFUSED] > CASES // 20
    assert report.counts[SAME] + report.counts[OTHER] > 0
    assert set(report.counts) <= set(FINE)


def test_a_case_is_a_function_of_its_number(tmp_path):
    form = FORMATS["npy import"]
    data = (tmp_path / form.write(tmp_path)).read_bytes()
    cases = [case_of(form, data, 0, number) for number in range(20)]
    assert cases == [case_of(form, data, 0, number) for number in range(20)]
    assert cases != [case_of(form, data, 1, number) for number in range(20)]
    assert sum(case != data for case in cases) > 15


def test_nothing_is_mutated_to_something():
    assert all(isinstance(mutated(Random(seed), b""), bytes) for seed in range(50))
