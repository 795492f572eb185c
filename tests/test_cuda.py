"""The CUDA backend without a device: which kernels are chosen, what is built and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ldmlr import _native, ops
from ldmlr import cuda_device as devices
from ldmlr.bench import cuda as bench
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.device import Machine
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.sampler import backends as sampling
from ldmlr.sampler import cuda
from ldmlr.sampler.cuda import tiers
from ldmlr.sampler.cuda.sampler import CudaSampler, refuses

H200, A100, SMALL = 232448, 166912, 101376  # bytes of shared memory of a block: sm_90, sm_80, sm_86

# The choice of kernels


@pytest.mark.parametrize(
    ("dim", "hidden", "layers", "limit", "expected"),
    [
        (64, 128, 2, H200, ("resident", 64, 128)),
        (64, 64, 2, H200, ("resident", 64, 64)),
        (10, 32, 2, A100, ("resident", 64, 64)),
        (64, 128, 3, H200, ("streamed", 64, 128)),
        (64, 128, 2, A100, ("streamed", 64, 128)),
        (50, 200, 2, H200, ("streamed", 64, 256)),
        (64, 256, 2, A100, ("streamed", 64, 256)),
        (64, 512, 2, H200, ("layered", 64, 512)),
        (65, 100, 2, H200, ("streamed", 128, 128)),
        (65, 100, 2, A100, ("streamed", 128, 128)),
        (128, 256, 2, H200, ("streamed", 128, 256)),
        (128, 256, 2, A100, ("layered", 128, 256)),
        (129, 100, 2, H200, ("layered", 192, 128)),
        (2048, 2048, 4, H200, ("layered", 2048, 2048)),
        (10, 32, 2, SMALL, ("streamed", 64, 128)),
        (64, 129, 2, SMALL, ("layered", 64, 192)),
    ],
)
def test_tier_of_a_size(
    monkeypatch: pytest.MonkeyPatch, dim: int, hidden: int, layers: int, limit: int, expected: tuple
) -> None:
    monkeypatch.delenv(tiers.VARIABLE, raising=False)
    assert tiers.choose(dim, hidden, layers, True, limit) == tiers.Tier(*expected)


def test_every_chosen_tier_fits() -> None:
    for dim in (1, 10, 64, 65, 100, 512, 2048):
        for hidden in (1, 32, 64, 65, 128, 129, 256, 257, 2048):
            for layers in (1, 2, 8):
                for guided in (False, True):
                    for limit in (48 << 10, SMALL, A100, H200):
                        tier = tiers.choose(dim, hidden, layers, guided, limit)
                        assert tier.latent >= dim
                        assert tier.hidden >= hidden
                        if tier.fused:
                            assert (
                                tiers.shared_bytes(tier.name, tier.latent, tier.hidden, layers, guided)
                                <= limit
                            )
                        else:
                            assert tier.latent % 64 == tier.hidden % 64 == 0


def test_a_tier_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiers.choose(64, 128, 2, True, H200, "layered").name == "layered"
    assert tiers.choose(10, 10, 2, True, H200, "streamed") == tiers.Tier("streamed", 64, 128)
    monkeypatch.setenv(tiers.VARIABLE, "layered")
    assert tiers.choose(64, 128, 2, True, H200).name == "layered"
    monkeypatch.setenv(tiers.VARIABLE, "residant")
    with pytest.raises(
        UsageError, match="LDMLR_CUDA_TIER: unknown value 'residant'; did you mean 'resident'"
    ):
        tiers.choose(64, 128, 2, True, H200)
    with pytest.raises(UsageError, match="resident kernels cannot run D 64, H 512"):
        tiers.choose(64, 512, 2, True, H200, "resident")


def test_the_kernels_of_sm_90a_need_sm_90a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tiers.VARIABLE, raising=False)
    for name in tiers.BY_WGMMA:
        with pytest.raises(UsageError, match=f"the {name} kernels need a device and a build of sm_90a"):
            tiers.choose(64, 512, 2, True, H200, name)
        assert tiers.choose(65, 129, 2, True, H200, name, wgmma=True) == tiers.Tier(name, 128, 256)
    assert tiers.choose(64, 512, 2, True, H200, wgmma=True).name == "warpgroup"
    assert tiers.choose(64, 512, 2, True, H200).name == "layered"


@pytest.mark.parametrize("rows", [1, 128, 129, 5000, 33000, 10**7])
def test_slabs(rows: int) -> None:
    for hidden in (64, 512, 2048, 8192):
        largest = tiers.largest_slab(tiers.Tier("layered", 2048, hidden), True)
        assert tiers.SLAB_SMALLEST <= largest <= tiers.SLAB_LARGEST
        slab = tiers.slab_for(rows, largest)
        assert slab % tiers.ROWS_MULTIPLE == 0
        assert slab <= largest
        # What is computed is a quarter more than what is asked for, or no smaller slab would compute less.
        computed = -(-rows // slab) * slab
        assert computed < 2 * max(rows, tiers.ROWS_MULTIPLE)
        fewest = -(-rows // tiers.SLAB_SMALLEST) * tiers.SLAB_SMALLEST
        assert computed <= max(1.25 * rows, min(fewest, 2 * max(rows, tiers.ROWS_MULTIPLE)))


def test_a_slab_that_was_asked_for_is_cut_into_whole_blocks() -> None:
    for largest in (256, 768, 25600):
        for rows in (1, 300, 5000, 26000, 60000):
            slab = tiers.slab_for(rows, largest)
            assert slab % tiers.ROWS_MULTIPLE == 0
            assert slab <= largest


def test_where_memory_is_short_slabs_are_smaller() -> None:
    sampler = object.__new__(CudaSampler)
    sampler._slab = tiers.SLAB_LARGEST
    limit = 8192

    def plan(stream: int, slab: int, capturing: bool) -> int:
        if slab > limit:
            raise torch.OutOfMemoryError
        return slab

    sampler._plan = plan
    assert sampler._room(0, 10**6, False) == (8192, 8192)
    assert sampler._room(0, 300, False) == (512, 512)
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        sampler._room(0, 10**6, False)


# Without a device


def test_the_processor_is_refused() -> None:
    spec = random_spec(10, 32)
    assert "computes on a CUDA device, not on cpu" in str(refuses(type(spec.tables), torch.device("cpu")))
    assert sampling.choose_backend("auto", type(spec.tables), torch.device("cpu")) == "native"
    with pytest.raises(UsageError, match="backend: cuda cannot run this"):
        sampling.choose_backend("cuda", type(spec.tables), torch.device("cpu"))
    with pytest.raises(UsageError, match="the CUDA sampler cannot run this"):
        CudaSampler(spec, "cpu")


def test_a_machine_without_a_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(_native, "cuda_architectures", "80 90a")
    assert devices.unavailable(torch.device("cuda")) == "no CUDA device is visible"
    with pytest.raises(UsageError, match="no CUDA device is visible"):
        ops.initial_noise(0, 0, 3, 4, device="cuda")


def test_a_build_without_kernels_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cuda_architectures", "")
    assert cuda.architectures() == ()
    assert "LDMLR_CUDA=1" in str(devices.unavailable(torch.device("cuda")))


def test_an_old_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "cuda_architectures", "80 90a")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    assert devices.unavailable(torch.device("cuda")) == "Tesla T4 is sm_75; the kernels need sm_80"


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        ("80 90a", (8, 0), True),
        ("80 90a", (8, 9), True),
        ("80 90a", (9, 0), True),
        ("90a 80", (12, 0), True),
        ("90a", (9, 0), True),
        ("90a", (10, 0), False),
        ("100f", (10, 3), True),
        ("100f", (12, 0), False),
        ("89", (8, 0), False),
        ("80 100", (9, 0), True),
        ("100", (9, 0), False),
    ],
)
def test_a_build_covers_the_devices_that_its_code_runs_on(
    monkeypatch: pytest.MonkeyPatch, built: str, capability: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(_native, "cuda_architectures", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tester")
    reason = devices.unavailable(torch.device("cuda"))
    number = "".join(map(str, capability))
    expected = f"Tester is sm_{number}, and this build has kernels for {', '.join(cuda.architectures())}; "
    assert reason == (None if runs else f"{expected}install with LDMLR_CUDA_ARCHS={number}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_runtime_without_a_driver_is_one_clear_line() -> None:
    params = _native.StepParams(rows=1, dim=1)
    with pytest.raises(LdmlrError, match=r"the CUDA kernels failed: .*CUDA"):
        devices.checked(_native.cuda_denoise_step, params, 0, 0)


def test_info_says_what_was_built(run_cli) -> None:
    done = run_cli("info", "--json")
    built = json.loads(done.stdout)["extension"]["cuda"]
    assert built == (" ".join(cuda.architectures()) or "not built")


def test_the_pytorch_baseline_draws_from_the_same_model() -> None:
    spec = random_spec(12, 32, classes=2)
    labels = random_labels(spec, 3000)
    torch.manual_seed(0)
    rows = bench.Baseline(spec, torch.device("cpu"), compiled=False).draw(torch.from_numpy(labels)).numpy()
    native = sampling.prepare(spec, Machine("cpu", 1))(labels)
    for label in (0, 1):
        mine, other = native[labels == label], rows[labels == label]
        assert np.abs(mine.mean(0) - other.mean(0)).max() < 0.2
        assert np.abs(mine.std(0) / other.std(0) - 1).max() < 0.2
