"""Head files: whole, reproducible, and refused when they are something else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.axes import COUNTS, draw

import ldmlr
from ldmlr.errors import InputError, UsageError
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


def test_files_that_are_no_heads(tmp_path, natural):
    from safetensors.numpy import save_file

    path = tmp_path / "head.safetensors"
    with pytest.raises(InputError, match="no such head file"):
        FinetunedHead.load(path)
    path.write_bytes(b"not a head")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        FinetunedHead.load(path)
    save_file({"weight": np.zeros((3, 4))}, path)
    with pytest.raises(InputError, match="is not a head file"):
        FinetunedHead.load(path)
    save_file({"weight": np.zeros((3, 4))}, path, metadata={"ldmlr": "[" * 100_000})
    with pytest.raises(InputError, match="is not a head file"):
        FinetunedHead.load(path)
    about = {"format": "ldmlr-head", "version": 1, "kinds": {"head": "linear", "baseline": "linear"}}
    save_file({"counts": np.ones(3)}, path, metadata={"ldmlr": json.dumps(about)})
    with pytest.raises(InputError, match="damaged head file"):
        FinetunedHead.load(path)
    save_file({"counts": np.ones(3)}, path, metadata={"ldmlr": json.dumps(about | {"version": 9})})
    with pytest.raises(InputError, match="version 9"):
        FinetunedHead.load(path)
    ldmlr.finetune(natural, epochs=1).save(path, overwrite=True)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        FinetunedHead.load(path)
