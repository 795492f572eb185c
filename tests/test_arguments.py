"""ldmlr.arguments and ldmlr.device: rows, seeds, types and devices as a caller may have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ldmlr
from ldmlr.arguments import as_array, check_first_row, check_seed, type_name
from ldmlr.device import resolve_device, thread_number
from ldmlr.errors import InputError, UsageError
from ldmlr.store import SplitData

COUNTS = (40, 12)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], COUNTS)
    X = (rng.standard_normal((len(y), 4)) + 3 * y[:, None]).astype(np.float32)
    # Values that bfloat16 holds exactly.
    return torch.from_numpy(X).bfloat16().float().numpy(), y


def fit(X, y, **options):
    return ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=3, **options).fit(X, y)


@pytest.mark.parametrize("seed", [7, np.int64(7), np.uint8(7), torch.tensor(7), np.array(7)])
def test_a_seed_is_any_whole_number(rows, seed):
    assert check_seed(seed) == 7
    assert type(check_seed(seed)) is int
    model = fit(*rows, seed=seed)
    assert model.fingerprint() == fit(*rows, seed=7).fingerprint()
    drawn = model.sample([1, 0], seed=seed, first_row=np.int64(3))
    assert np.array_equal(drawn, model.sample([1, 0], seed=7, first_row=3))
    head = ldmlr.finetune(rows, epochs=1, seed=seed)
    assert head.seed == 7
    assert torch.equal(head.head.weight, ldmlr.finetune(rows, epochs=1, seed=7).head.weight)


@pytest.mark.parametrize("seed", [-1, 1.0, None, True, "7", 2**64])
def test_another_seed_is_refused(rows, seed):
    for use in (
        lambda: ldmlr.LatentDiffusion(seed=seed),
        lambda: ldmlr.finetune(rows, epochs=1, seed=seed),
        lambda: fit(*rows).sample([0], seed=seed),
    ):
        with pytest.raises(UsageError, match="seed: must be a whole number, at least 0 and below 2"):
            use()


def test_a_row_has_a_number():
    assert check_first_row(2**64 - 5, 5) == 2**64 - 5
    for first_row in (-1, 2**64 - 4, 1.5, True):
        with pytest.raises(UsageError, match="first_row: must be a whole number"):
            check_first_row(first_row, 5)


def test_tensors_of_any_kind_are_rows(rows):
    X, y = rows
    tensors = torch.from_numpy(X).bfloat16().requires_grad_(), torch.from_numpy(y)
    assert as_array(tensors[0]).dtype == np.float32
    assert np.array_equal(as_array(tensors[0]), X)
    assert fit(*tensors).fingerprint() == fit(X, y).fingerprint()
    one, two = ldmlr.finetune(tensors, tensors, epochs=1), ldmlr.finetune(rows, rows, epochs=1)
    assert torch.equal(one.head.weight, two.head.weight)
    assert np.array_equal(one.logits(tensors[0]), two.logits(X))


def test_finetune_opens_a_path_and_refuses_other_things(rows, tmp_path):
    X, y = rows
    ldmlr.FeatureStore.write(tmp_path / "rows.h5", train=SplitData(X, y))
    of_path = ldmlr.finetune(str(tmp_path / "rows.h5"), epochs=1)
    of_store = ldmlr.finetune(ldmlr.FeatureStore.open(tmp_path / "rows.h5"), epochs=1)
    assert torch.equal(of_path.head.weight, of_store.head.weight)
    with pytest.raises(InputError, match=r"missing\.h5"):
        ldmlr.finetune(tmp_path / "missing.h5")
    with pytest.raises(UsageError, match=r"expected a store, its path or .features, labels., not ndarray"):
        ldmlr.finetune(X)
    with pytest.raises(InputError, match="store: expected features and labels, not 3 arrays"):
        ldmlr.finetune((X, y, y))
    with pytest.raises(InputError, match="store: features are <U1, expected numbers"):
        ldmlr.finetune((np.full(X.shape, "a"), y))


def test_types_and_devices_may_be_objects(rows):
    for dtype in (np.float16, np.dtype("float16"), torch.float16, "float16"):
        assert type_name(dtype) == "float16"
    assert type_name(torch.bfloat16) == "bfloat16"
    model = fit(*rows, seed=1)
    half = model.sample([0, 1], dtype=np.float16, device=torch.device("cpu"))
    assert half.dtype == np.float16
    assert np.array_equal(half, model.sample([0, 1], dtype="float16"))
    with pytest.raises(UsageError, match="dtype: unknown value 'float64'"):
        model.sample([0], dtype=np.float64)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two"])
def test_threads_are_at_least_one(rows, threads):
    with pytest.raises(UsageError, match="threads: must be a whole number from 1 to 4096"):
        thread_number(threads)
    with pytest.raises(UsageError, match="threads"):
        fit(*rows).sample([0], threads=threads)


def test_a_number_is_no_configuration():
    with pytest.raises(UsageError, match=r"expected a DiffusionConfig or named options .*, not 128"):
        ldmlr.LatentDiffusion(128)
