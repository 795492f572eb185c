"""`ldmlr` itself: which names it shows, and what it says of others."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ldmlr


def test_the_public_names_are_shown():
    assert set(ldmlr.__all__) <= set(dir(ldmlr))
    assert len(dir(ldmlr)) == len(set(dir(ldmlr)))


def test_showing_them_loads_nothing():
    code = "import sys, ldmlr; assert 'finetune' in dir(ldmlr); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(AttributeError, match="has no attribute 'FeaturStore'; did you mean 'FeatureStore'"):
        getattr(ldmlr, "FeaturStore")  # noqa: B009
    assert not hasattr(ldmlr, "__path_hooks__")
