"""The CUDA backend on a device; skipped where there is none."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support.latent_axes import latent_spec
from support.solvers import SOLVERS

from ldmlr import cuda_device as devices
from ldmlr import ops
from ldmlr.bench import cuda as bench
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.device import Machine
from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.prepare import prepare
from ldmlr.sampler import backends as sampling
from ldmlr.sampler import reference
from ldmlr.sampler.cuda import elementwise, tiers
from ldmlr.sampler.cuda.overlap import Pipeline
from ldmlr.sampler.cuda.sampler import CudaSampler
from ldmlr.sampler.noise import standard_normal_reference
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.store import FeatureStore

EPSILON, ALLOWED = 2.0**-9, (16, 3)  # deviation allowed, in unit roundoffs: (maximum, RMS)


@pytest.fixture(scope="module")
def device() -> torch.device:
    """Return the CUDA device, or skip."""
    reason = devices.unavailable(torch.device("cuda"))
    if reason:
        pytest.skip(reason)
    return torch.device("cuda", torch.cuda.current_device())


def check(spec: SamplerSpec, device: torch.device, rows: int, tier: str | None = None) -> None:
    labels = random_labels(spec, rows)
    # On the device as well: the library's float64 is another program, and a core would take minutes.
    exact = reference.sample(spec, labels, 11, device=device, precision=torch.float64).numpy()
    sampler = CudaSampler(spec, device, tier=tier)
    out = torch.full((rows, spec.dim), torch.nan, device=device)
    deviation = sampler(labels, 11, out=out).cpu().numpy() - exact
    amplified = EPSILON * max(1.0, np.abs(spec.rows.q).max())
    assert np.abs(deviation).max() < ALLOWED[0] * amplified * np.abs(exact).max()
    assert np.sqrt(np.mean(deviation**2) / np.mean(exact**2)) < ALLOWED[1] * amplified


def forced(spec: SamplerSpec, device: torch.device) -> list[str]:
    """Return the tiers that can run a model on this device; of them the one that is asked for, if one is."""
    found, wanted = bench.runnable(spec, device), os.environ.get(tiers.VARIABLE)
    return [tier for tier in found if wanted in (None, "", tier)]


def small(tier: str) -> SamplerSpec:
    """Return a model that a tier can run; in layers wide enough for blocks in pairs and a ring that turns."""
    return random_spec(16, 500 if tier in tiers.IN_LAYERS else 64)


@pytest.mark.cuda
@pytest.mark.parametrize("rows", [1, 7, 63, 65, 1000, 40000])
def test_numbers_of_rows(device: torch.device, rows: int) -> None:
    spec = random_spec(64, 128, steps=4)
    for tier in forced(spec, device):
        check(spec, device, rows, tier)


@pytest.mark.cuda
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(
    ("dim", "hidden", "layers"),
    [
        (1, 1, 1), (10, 32, 1), (17, 33, 3), (64, 64, 2), (64, 128, 3), (64, 200, 2), (64, 256, 4),
        (100, 80, 2), (65, 200, 3), (128, 256, 2), (64, 512, 2), (512, 128, 2), (512, 1024, 2), (2048, 32, 2),
        (10, 2048, 2), (2048, 2048, 1),
    ],
)  # fmt: skip
def test_widths(device: torch.device, dim: int, hidden: int, layers: int, guidance: float) -> None:
    spec = random_spec(dim, hidden, layers, steps=3, guidance=guidance, diagonal=dim == 2048)
    for tier in forced(spec, device):
        check(spec, device, 133, tier)


@pytest.mark.cuda
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(
    ("dim", "latent", "hidden"),
    [(7, 5, 32), (65, 16, 64), (300, 64, 128), (1280, 128, 256), (4096, 200, 512)],
)
def test_latent_axes(device: torch.device, dim: int, latent: int, hidden: int, guidance: float) -> None:
    spec = latent_spec(dim, latent, hidden, 2, guidance=guidance, solver="ddpm")
    for tier in forced(spec, device):
        check(spec, device, 133, tier)


@pytest.mark.cuda
@pytest.mark.parametrize("classes", [1, 2, 8142])
def test_numbers_of_classes(device: torch.device, classes: int) -> None:
    spec = random_spec(24, 96, classes=classes, steps=4)
    for tier in forced(spec, device):
        check(spec, device, 300, tier)


@pytest.mark.cuda
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("solver", "eta", "prediction"), SOLVERS)
def test_solvers_and_guidance(
    device: torch.device, solver: str, eta: float, prediction: str, guidance: float
) -> None:
    spec = random_spec(18, 40, steps=6, solver=solver, eta=eta, prediction=prediction, guidance=guidance)
    for tier in forced(spec, device):
        check(spec, device, 70, tier)


@pytest.mark.cuda
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("floor", [0.0, -np.inf])
@pytest.mark.parametrize("dim", [37, 40])
def test_transforms_and_types(device: torch.device, dim: int, diagonal: bool, floor: float) -> None:
    spec = random_spec(dim, 40, diagonal=diagonal, floor=floor)
    labels = random_labels(spec, 200)
    for tier in forced(spec, device):
        sampler = CudaSampler(spec, device, tier=tier)
        single = sampler(labels)
        assert float(single.min()) >= floor
        for name in ("float16", "bfloat16"):
            assert torch.equal(sampler(labels, dtype=name), single.to(getattr(torch, name)))


@pytest.mark.cuda
@pytest.mark.parametrize(
    ("dim", "hidden", "solver"), [(10, 48, "ddpm"), (64, 128, "dpmpp2m"), (70, 300, "ddim")]
)
def test_same_bits_however_it_is_split(device: torch.device, dim: int, hidden: int, solver: str) -> None:
    spec = random_spec(dim, hidden, solver=solver)
    labels, first = random_labels(spec, 9001), 2**32 - 50
    for tier in forced(spec, device):
        sampler = CudaSampler(spec, device, tier=tier, slab=256)
        whole = sampler(labels, first)
        assert torch.equal(CudaSampler(spec, device, tier=tier)(labels, first), whole)
        for start, stop in ((0, 1), (1, 8), (8, 71), (71, 4136), (4136, 9001), (9000, 9001)):
            assert torch.equal(sampler(labels[start:stop], first + start), whole[start:stop])
        assert torch.equal(sampler(labels, first), whole)


@pytest.mark.cuda
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(("dim", "hidden"), [(64, 128), (100, 300), (500, 512), (512, 1024)])
def test_bulk_has_the_bits_of_warpgroup(device: torch.device, dim: int, hidden: int, guidance: float) -> None:
    """Both do the same arithmetic: a difference, or two runs that differ, is a race in the copies."""
    spec = random_spec(dim, hidden, guidance=guidance)
    if not devices.has_wgmma(device):
        pytest.skip("this device or build has no wgmma")
    if "bulk" not in forced(spec, device):
        pytest.skip("another tier is asked for, and a fault of this one must not end its process")
    labels = random_labels(spec, 20000)
    expected = CudaSampler(spec, device, tier="warpgroup")(labels)
    sampler = CudaSampler(spec, device, tier="bulk")
    for _ in range(5):
        assert torch.equal(sampler(labels), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("dim", [1, 6, 64, 2048])
def test_normals_have_the_bits_of_the_cpu(device: torch.device, dim: int) -> None:
    for seed, first in ((0, 0), (2**63 + 5, 2**32 - 3)):
        found = elementwise.standard_normal(seed, first, 777, dim, 1, 7, device=device)
        assert np.array_equal(found.cpu().numpy(), standard_normal_reference(seed, first, 777, dim, 1, 7))
    assert torch.equal(ops.initial_noise(3, 0, 9, dim, device=device).cpu(), ops.initial_noise(3, 0, 9, dim))


@pytest.mark.cuda
@pytest.mark.parametrize("dim", [5, 64])
def test_denoise_step(device: torch.device, dim: int) -> None:
    spec = random_spec(dim, 16, solver="ddpm", steps=4)
    rows = torch.from_numpy(spec.rows.table())
    x, x0, output = (torch.randn(70, dim) for _ in range(3))
    on_device = [tensor.to(device) for tensor in (x, x0, output)]
    ops.denoise_step(x, x0, output, rows, 2, 5, 100)
    ops.denoise_step(*on_device, rows, 2, 5, 100)
    assert torch.allclose(on_device[0].cpu(), x, rtol=1e-6, atol=1e-6)
    assert torch.allclose(on_device[1].cpu(), x0, rtol=1e-6, atol=1e-6)
    # A view that does not start at a multiple of 16 bytes.
    odd = [torch.randn(70 * dim + 1, device=device)[1:].view(70, dim) for _ in range(3)]
    even = [tensor.clone() for tensor in odd]
    ops.denoise_step(*odd, rows, 2, 5, 100)
    ops.denoise_step(*even, rows, 2, 5, 100)
    assert torch.equal(odd[0], even[0])
    torch.library.opcheck(ops.denoise_step, (*on_device, rows, 1, 7, 3))
    with pytest.raises(UsageError, match="x0: is on cpu"):
        ops.denoise_step(on_device[0], x0, on_device[2], rows, 2, 5, 100)


@pytest.mark.cuda
@pytest.mark.parametrize("tier", list(tiers.TIERS))
def test_inside_a_graph_of_the_caller(device: torch.device, tier: str) -> None:
    spec = small(tier)
    if tier not in forced(spec, device):
        pytest.skip(f"{tier} does not fit this device")
    sampler = CudaSampler(spec, device, tier=tier, slab=256)
    labels = torch.from_numpy(random_labels(spec, 300)).to(device)
    expected = sampler(labels, 7)
    static = labels.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows = sampler(static, 7)
    for _ in range(2):
        rows.zero_()
        graph.replay()
        assert torch.equal(rows, expected)
    static.copy_(static.flip(0))
    graph.replay()
    assert torch.equal(rows, sampler(static, 7))


@pytest.mark.cuda
@pytest.mark.parametrize("tier", list(tiers.TIERS))
def test_inside_a_graph_before_any_kernel_is_loaded(device: torch.device, tier: str) -> None:
    if tier not in forced(small(tier), device):
        pytest.skip(f"{tier} does not fit this device")
    program = """
import sys, torch
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.sampler.cuda.sampler import CudaSampler
spec = random_spec(16, int(sys.argv[2]))
sampler = CudaSampler(spec, "cuda", tier=sys.argv[1], slab=256)
labels = torch.from_numpy(random_labels(spec, 300)).cuda()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    rows = sampler(labels, 7)
graph.replay()
assert torch.equal(rows, sampler(labels, 7))
"""
    command = [sys.executable, "-c", program, tier, str(len(small(tier).tables.b_in))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.cuda
@pytest.mark.parametrize("tier", list(tiers.TIERS))
def test_several_streams_and_threads(device: torch.device, tier: str) -> None:
    spec = small(tier)
    if tier not in forced(spec, device):
        pytest.skip(f"{tier} does not fit this device")
    sampler = CudaSampler(spec, device, tier=tier)
    labels = torch.from_numpy(random_labels(spec, 5000)).to(device)
    expected = [sampler(labels, 1000 * i) for i in range(4)]
    torch.cuda.synchronize(device)
    found: list[torch.Tensor | None] = [None] * 4

    def work(number: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            for _ in range(5):
                found[number] = sampler(labels, 1000 * number)
            torch.cuda.current_stream().synchronize()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows, wanted in zip(found, expected, strict=True):
        assert rows is not None
        assert torch.equal(rows, wanted)


@pytest.mark.cuda
def test_a_sampler_may_go_while_its_rows_are_drawn(device: torch.device) -> None:
    spec = random_spec(64, 300)
    if not forced(spec, device):
        pytest.skip("the tier that is asked for cannot run this model")
    labels = torch.from_numpy(random_labels(spec, 20000)).to(device)
    expected = CudaSampler(spec, device)(labels)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream())
    sampler = CudaSampler(spec, device)
    with torch.cuda.stream(stream):
        rows = sampler(labels)
    del sampler
    gc.collect()
    filler = torch.zeros(1 << 28, dtype=torch.uint8, device=device)
    stream.synchronize()
    assert torch.equal(rows, expected)
    assert not filler.any()


@pytest.mark.cuda
def test_every_device_of_the_machine(device: torch.device) -> None:
    spec = random_spec(16, 64)
    labels = random_labels(spec, 500)
    expected = CudaSampler(spec, device)(labels).cpu()
    for index in range(torch.cuda.device_count()):
        for tier in forced(spec, torch.device("cuda", index)):
            rows = CudaSampler(spec, f"cuda:{index}", tier=tier)(labels)
            assert rows.device.index == index
            assert torch.allclose(rows.cpu(), expected, atol=0.1)
        # More shared memory has to be asked for on each device anew.
        CudaSampler(random_spec(64, 128), f"cuda:{index}")(labels)
    assert torch.cuda.current_device() == device.index


@pytest.mark.cuda
def test_a_broken_network_shows(device: torch.device) -> None:
    spec = random_spec(10, 32)
    spec.tables.b_out[:] = np.nan
    for tier in forced(spec, device):
        assert CudaSampler(spec, device, tier=tier)(random_labels(spec, 50)).isnan().all()


@pytest.mark.cuda
def test_wrong_arguments_are_named(device: torch.device) -> None:
    spec = random_spec(10, 32)
    sampler = CudaSampler(spec, device)
    labels = torch.zeros(5, dtype=torch.int64, device=device)
    for arguments, options, word in (
        ((labels + 10,), {}, "labels"),
        ((labels.int(),), {}, "int64"),
        ((labels.cpu(),), {}, "are on cpu"),
        ((np.array([-1]),), {}, "labels"),
        ((labels,), {"dtype": "float8"}, "dtype"),
        ((labels,), {"out": torch.zeros(5, 9, device=device)}, "out"),
        ((labels,), {"out": torch.zeros(51, device=device)[1:].view(5, 10)}, "16 bytes"),
        ((labels, -1), {}, "first_row"),
    ):
        with pytest.raises(UsageError, match=word):
            sampler(*arguments, **options)
    with pytest.raises(UsageError, match="slab"):
        CudaSampler(spec, device, slab=100)
    assert sampler(labels[:0]).shape == (0, 10)


@pytest.mark.cuda
def test_backend_of_sampling(device: torch.device) -> None:
    spec = random_spec(64, 128)
    labels = random_labels(spec, 700)
    sampler = sampling.prepare(spec, Machine("cuda"))
    assert sampler.backend == "cuda"
    assert sampler.on_cuda is not None
    rows = sampler(labels, 5)
    assert np.array_equal(rows, CudaSampler(spec, device)(labels, 5).cpu().numpy())
    half = sampling.prepare(spec, Machine("cuda", backend="cuda"))(labels, dtype="bfloat16")
    expected = CudaSampler(spec, device)(labels, dtype="bfloat16").cpu()
    assert torch.equal(torch.from_numpy(half).view(torch.bfloat16), expected)


@pytest.mark.cuda
def test_pipeline_has_the_rows_of_the_sampler(device: torch.device) -> None:
    spec = random_spec(64, 128)
    sampler = CudaSampler(spec, device)
    labels = random_labels(spec, 10000)
    ranges = [(0, 4096), (4096, 8192), (8192, 9000), (9000, 10000)]
    pipeline = Pipeline(sampler, 4096)
    parts = [rows.clone() for _, rows in pipeline((low, labels[low:high]) for low, high in ranges)]
    assert torch.equal(torch.cat(parts), sampler(labels).cpu())
    assert 0 < pipeline.busy <= pipeline.elapsed


@pytest.mark.cuda
def test_generation_to_disk(device: torch.device, tmp_path: Path) -> None:
    from ldmlr import LatentDiffusion

    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 30])
    model = LatentDiffusion(hidden=64, layers=2, iterations=20).fit(
        rng.standard_normal((330, 8)) + y[:, None], y
    )
    config = GenerateConfig(count=("0=100000", "1=100000"))
    generation = prepare(model, config, machine=Machine("cuda", backend="cuda"))
    figures = generate(generation, tmp_path / "rows.h5")
    assert 0 <= figures["device_wait"] <= 1
    store = FeatureStore.open(tmp_path / "rows.h5")
    labels = np.repeat([0, 1], 100000)
    expected = CudaSampler(model.spec(generation.config, 0), device)(labels).cpu().numpy()
    assert np.array_equal(np.asarray(store.train.features), expected)
