"""`ldmlr.heads.headfile`: a head comes back from its file as it was (what is refused: test_modelfile.py)."""

from __future__ import annotations

import numpy as np
import pytest
from support.axes import COUNTS, draw

import ldmlr
from ldmlr.errors import UsageError
from ldmlr.heads.headfile import FinetunedHead


@pytest.fixture(scope="module")
def natural():
    return draw(COUNTS)


@pytest.fixture(scope="module")
def generated():
    return draw((0, 180, 228), seed=7)


def test_head_files_are_whole_and_reproducible(tmp_path, natural, generated):
    tuned = ldmlr.finetune(natural, generated, epochs=2, average=0.3, seed=4)
    for name in ("a", "b"):
        tuned.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    back = FinetunedHead.load(tmp_path / "a.safetensors")
    assert back.config == tuned.config
    assert (back.seed, back.origin, back.generated) == (4, "fitted", 408)
    assert back.history == tuned.history
    np.testing.assert_array_equal(back.logits(natural[0]), tuned.logits(natural[0]))
    with pytest.raises(UsageError, match="already exists"):
        tuned.save(tmp_path / "a.safetensors")
    tuned.save(tmp_path / "a.safetensors", overwrite=True)
