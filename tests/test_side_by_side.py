"""Several CUDA devices that draw one generation: who draws what, tested with devices that are made up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from support.models import three_blobs

import ldmlr
from ldmlr import device
from ldmlr.device import Machine, device_names
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.drawing import OnDevice
from ldmlr.generation.generate import generate
from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.prepare import Work
from ldmlr.generation.side_by_side import side_by_side
from ldmlr.sampler.backends import Prepared, Sampler
from ldmlr.store import FeatureStore

RANGES = [(low, low + 10) for low in range(0, 70, 10)]


def worker(name, seen, delay=0.0):
    """Return what draws into one buffer that it writes again and again, as a device does."""
    buffer = np.zeros((10, 1), np.float32)

    def draw(ranges):
        try:
            for low, high in ranges:
                time.sleep(delay)
                buffer[:, 0] = np.arange(low, high)
                seen.append((name, low))
                yield (low, high), buffer
        finally:
            seen.append((name, "closed"))

    return draw


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_ranges_are_dealt_in_turn_and_come_in_order(count):
    seen = []
    workers = [worker(name, seen, delay=0.002 * (count - name)) for name in range(count)]
    found = []
    for rows, values in side_by_side(RANGES, workers):
        time.sleep(0.001)  # nobody writes over what the caller works on
        assert values[:, 0].tolist() == list(range(*rows))
        found.append(rows)
    assert found == RANGES
    for name in range(count):
        assert [low for who, low in seen if who == name] == [
            *(low for low, _ in RANGES[name::count]), "closed",
        ]  # fmt: skip


def test_what_a_worker_raises_is_raised_and_the_others_end():
    seen = []

    def broken(ranges):
        yield from worker("broken", seen)(ranges[:1])
        raise ValueError("the device is gone")

    before = threading.active_count()
    with pytest.raises(ValueError, match="the device is gone"):
        list(side_by_side(RANGES, [worker("whole", seen), broken]))
    assert threading.active_count() == before
    assert ("whole", "closed") in seen


def test_a_caller_that_stops_early_stops_all():
    seen, before = [], threading.active_count()
    drawn = side_by_side(RANGES, [worker(name, seen) for name in range(3)])
    next(drawn)
    drawn.close()
    assert threading.active_count() == before
    assert sum(what == "closed" for _, what in seen) == 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    three_blobs((300, 60, 9), hidden=8, iterations=5).save(path)
    return path


class FakePipeline:
    """What `Pipeline` is to a device: two buffers, written by turns."""

    def __init__(self, sampler, rows, dtype="float32"):
        self.sampler, self.busy, self.elapsed = sampler, 1.0, 2.0
        self.buffers = [torch.empty(rows, sampler.dim) for _ in range(2)]

    def __call__(self, requests):
        for number, (first_row, labels) in enumerate(requests):
            rows = self.buffers[number % 2][: len(labels)]
            rows[:] = torch.from_numpy(self.sampler.draw(labels, first_row, "float32"))
            self.sampler.drawn.append(first_row)
            yield first_row, rows


class FakeDevice:
    def __init__(self, sampler):
        self.draw, self.dim, self.drawn = sampler.prepared.draw, sampler.spec.dim, []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_devices_draw_the_file_of_one_process(model, tmp_path, monkeypatch, count):
    from ldmlr.generation import parts
    from ldmlr.sampler.cuda import overlap

    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "ROW_MULTIPLE", 50)
    work = Work(model, "diffusion", None, GenerateConfig(), DiffusionConfig(), None, 3, Machine("cpu", 1))
    generate(work.prepared(), tmp_path / "one.h5")
    fakes = []

    def samplers(self, seed):
        plain = self.sampler(seed)
        for _ in range(count):
            fakes.append(FakeDevice(plain))
        return [
            Sampler(plain.spec, "cuda", Prepared(plain.prepared.draw, plain.kernels, fake)) for fake in fakes
        ]

    monkeypatch.setattr(overlap, "Pipeline", FakePipeline)
    monkeypatch.setattr(Diffusion, "samplers", samplers)
    figures = generate(work.prepared(), tmp_path / "several.h5")
    assert figures["device_wait"] == 0.5
    assert all(fake.drawn for fake in fakes)
    assert sum(len(fake.drawn) for fake in fakes) == -(-figures["rows"] // 50)
    with FeatureStore.open(tmp_path / "one.h5") as one, FeatureStore.open(tmp_path / "several.h5") as several:
        assert np.array_equal(one.train.float32(), several.train.float32())
        assert np.array_equal(one.train.labels, several.train.labels)


def test_fewer_ranges_than_devices(model, monkeypatch):
    from ldmlr.sampler.cuda import overlap

    monkeypatch.setattr(overlap, "Pipeline", FakePipeline)
    work = Work(model, "diffusion", None, GenerateConfig(), DiffusionConfig(), None, 3, Machine("cpu", 1))
    generation = work.prepared()
    plain = generation.generator.sampler(3)
    fakes = [FakeDevice(plain) for _ in range(3)]
    samplers = [Sampler(plain.spec, "cuda", Prepared(plain.prepared.draw, "", fake)) for fake in fakes]
    found = list(OnDevice(samplers, generation.plan)([(5, 9)]))
    assert [rows for rows, _ in found] == [(5, 9)]
    assert [fake.drawn for fake in fakes] == [[5], [], []]


def test_a_list_of_devices(monkeypatch):
    monkeypatch.setattr(device, "cuda_devices", lambda: 2)
    assert device_names("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert device_names("cuda") == ("cuda",)
    assert device_names("cpu") == ("cpu",)
    for wrong in ("cuda:0,cuda:0", "cuda:0,cpu", "cuda,cuda:1", "cuda:0,"):
        with pytest.raises(UsageError, match=r"^device: expected a list such as cuda:0,cuda:1, each once"):
            device_names(wrong)
    with pytest.raises(UsageError, match=r"'cuda:2' is not there \(2 CUDA devices visible\)"):
        device_names("cuda:0,cuda:2")


def test_several_devices_are_for_the_cuda_kernels(model):
    loaded = ldmlr.LatentDiffusion.load(model)
    with pytest.raises(UsageError, match=r"^device: several devices draw by the CUDA kernels, not by native"):
        Diffusion(loaded, machine=Machine("cpu", 1, "native", others=("cuda:1",)))


def test_devices_of_two_kinds_are_refused(model, monkeypatch):
    from ldmlr.generation.generators import diffusion

    drawing = Diffusion(ldmlr.LatentDiffusion.load(model), machine=Machine("cpu", 1, "native"))
    drawing.machine = Machine("cuda:0", 1, "cuda", others=("cuda:1",))
    kinds = {"cuda:0": "H200 bulk bfloat16", "cuda:1": "A100 layered bfloat16"}

    def prepare(spec, machine, weights):
        return Sampler(spec, "cuda", Prepared(lambda *_: None, kinds[machine.device]))

    monkeypatch.setattr(diffusion, "prepare", prepare)
    with pytest.raises(UsageError, match=r"cuda:1 draws by A100 layered bfloat16, and cuda:0 by H200 bulk"):
        drawing.samplers(0)


def test_a_gate_has_one_device(model, run_cli, tmp_path, monkeypatch):
    from ldmlr.generation import prepare as preparing

    monkeypatch.setattr(preparing, "make_gate", lambda *_: object())
    loaded = ldmlr.LatentDiffusion.load(model)
    with pytest.raises(UsageError, match=r"^device: rows that pass a gate are drawn on one device"):
        preparing.prepare(loaded, GenerateConfig(), machine=Machine("cpu", 1, others=("cuda:1",)))
    done = run_cli("generate", model, "--device", "cuda:0,cuda:0", "--out", tmp_path / "p.h5")
    assert done.returncode == 2
    assert "--device: expected a list such as cuda:0,cuda:1" in done.stderr
