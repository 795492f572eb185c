"""Ranks that train together: the course of one process, for any number, and no hang when one is gone."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest
import torch
from support.blobs import blob_store
from support.ranks import end, start, together
from support.training import killed_before
from torch import nn

from ldmlr import device
from ldmlr.data import open_image_set
from ldmlr.diffusion import course
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fit import choose
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.checkpoint import load_checkpoint, save_checkpoint
from ldmlr.encoders.recipes import baseline_config
from ldmlr.encoders.shared_norm import SharedBatchNorm, share_batch_norm
from ldmlr.errors import UsageError
from ldmlr.generation.diffuse import checkpoint_path, diffuse
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.ranks import ALONE, Ranks, ranks

# Largest relative deviation of a loss from that of one process: sums are rounded in another order, and a
# training carries that on.
TOLERANCE = 1e-4
DIFFUSE = {"hidden": 16, "layers": 1, "iterations": 600, "batch_size": 37, "trainer": "reference"}


def options(values):
    return [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]


def losses_agree(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return blob_store(tmp_path_factory.mktemp("store") / "store.h5")


@pytest.fixture(scope="module")
def course_of_one(store):
    return LatentDiffusion(DiffusionConfig(**DIFFUSE)).fit_store(store).losses


def test_two_ranks_have_the_loss_curve_of_one_process(store, course_of_one, tmp_path):
    out = tmp_path / "model.safetensors"
    values = {name: value for name, value in DIFFUSE.items() if name != "trainer"}
    command = ["-m", "ldmlr", "diffuse", store.path, "--out", out, "--json", *options(values)]
    (status, output, said), (other, silent, quiet) = end(start(2, command))
    assert (status, other, silent, quiet) == (0, 0, "", ""), said + quiet
    assert "note: 2 ranks train with PyTorch, as one process does with the trainer named reference" in said
    document = json.loads(output)
    losses_agree(document["losses"], course_of_one)
    assert document["trained"]["trainer"] == "reference"
    model = LatentDiffusion.load(out)
    assert len(model.sample(np.zeros(5, np.int64))) == 5
    assert not checkpoint_path(out).exists()
    again = end(start(2, [*command, "--resume"]))  # there is nothing to do for either
    assert [status for status, *_ in again] == [0, 0], again


def test_three_ranks_go_on_where_one_process_was_interrupted(store, course_of_one, tmp_path, monkeypatch):
    out, whole = tmp_path / "model.safetensors", course.mean_loss

    def interrupted(total, done, config):
        if done == 550:
            raise KeyboardInterrupt
        return whole(total, done, config)

    monkeypatch.setattr(course, "mean_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        diffuse(store, out, DiffusionConfig(**DIFFUSE))
    assert checkpoint_path(out).exists()
    command = ["-m", "ldmlr", "diffuse", store.path, "--out", out, "--resume", "--json", *options(DIFFUSE)]
    found = end(start(3, command))
    assert [status for status, *_ in found] == [0, 0, 0], found
    losses_agree(json.loads(found[0][1])["losses"], course_of_one)


def test_a_rank_that_dies_ends_the_others_in_one_line(store, tmp_path):
    out = tmp_path / "model.safetensors"
    values = {**DIFFUSE, "iterations": 10**6}
    processes = start(2, ["-m", "ldmlr", "diffuse", store.path, "--out", out, *options(values)])
    deadline = time.monotonic() + 60
    while not checkpoint_path(out).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    (status, _, said), (other, *_) = end(processes, 60)
    assert (status, other) == (1, -signal.SIGKILL)
    line = said.strip().splitlines()[-1]
    assert line.startswith("Error: rank 0: another rank has ended, or hangs, before its work was done (")
    assert "Traceback" not in said
    assert checkpoint_path(out).exists()  # for --resume, with as many ranks as there are then


def test_a_rank_that_hangs_ends_the_others_when_their_patience_does():
    code = (
        "import datetime, time\n"
        "from ldmlr.ranks import ranks\n"
        "with ranks(patience=datetime.timedelta(seconds=3)) as group:\n"
        "    group.meet()\n"
        "    if group.rank: time.sleep(60)\n"
        "    group.meet()\n"
    )
    processes = start(2, ["-c", code])
    said = processes[0].communicate(timeout=50)[1]
    processes[1].kill()
    end(processes[1:])
    assert "LostRank: rank 0: another rank has ended, or hangs" in said


def test_ranks_of_other_settings_do_not_train_together(store, tmp_path):
    command = ["-m", "ldmlr", "diffuse", store.path, "--out", tmp_path / "m.safetensors", *options(DIFFUSE)]
    found = end(start(2, [[*command, "--seed", "0"], [*command, "--seed", "1"]]))
    for status, _, said in found:
        assert status == 2
        assert "rank 1: has other training rows or settings than rank 0; give all ranks the same" in said
    assert not list(tmp_path.iterdir())


def test_more_ranks_than_rows_in_a_batch_are_refused(store, tmp_path):
    values = {**DIFFUSE, "batch_size": 1}
    command = ["-m", "ldmlr", "diffuse", store.path, "--out", tmp_path / "m.safetensors", *options(values)]
    for status, _, said in end(start(2, command)):
        assert (status, said) == (
            2, "Error: --batch-size: a batch of 1 row is too small for 2 ranks; raise it, or start fewer\n",
        )  # fmt: skip


def test_the_native_trainer_is_of_one_process():
    assert choose(DiffusionConfig(iterations=5), "cpu").name == "native"
    assert choose(DiffusionConfig(iterations=5), "cpu", ranks=2).name == "reference"
    with pytest.raises(UsageError, match="it trains in one process, not in 2 ranks; use trainer='reference'"):
        choose(DiffusionConfig(iterations=5, trainer="native"), "cpu", ranks=2)


BASELINE = {
    "network": "small", "epochs": 3, "batch_size": 16, "precision": "float32", "head_epochs": 1,
    "augment": "flip", "ema": 0.9,
}  # fmt: skip
MIXED = {"mixup": 0.5}
TWO_VIEWS = {
    "mixup": 1.0, "cutmix": 1.0, "consistency": 2.0, "loss": "weighted", "cumulative": "true",
    "contrast": 0.5, "uniformity": 0.1,
}  # fmt: skip


def log(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(("size", "changes"), [(2, TWO_VIEWS), (3, MIXED)], ids=["two", "three"])
def test_ranks_train_the_baseline_of_one_process(image_file, tmp_path, run_cli, size, changes):
    values = {**BASELINE, **changes}
    flags = ["--cumulative" for _ in [values.pop("cumulative", None)] if _]
    command = ["baseline", image_file, *options(values), *flags, "--threads", 1]
    done = run_cli(*command, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    together = ["-m", "ldmlr", *command, "--out", tmp_path / "ranks", "--json"]
    if size == 3:  # from where one process was killed
        with killed_before(2):
            config = baseline_config("digits", {**values, "augment": ("flip",)})
            train_baseline(open_image_set(image_file), config, tmp_path / "ranks", device="cpu", threads=1)
        together.append("--resume")
    found = end(start(size, together))
    assert [status for status, *_ in found] == [0] * size, found
    document = json.loads(found[0][1])
    assert [output for _, output, _ in found[1:]] == [""] * (size - 1)
    assert document["rows"][0]["all"]["mean"] > 50
    ours, theirs = log(tmp_path / "ranks"), log(tmp_path / "one")
    losses_agree([entry["loss"] for entry in ours], [entry["loss"] for entry in theirs])
    alone = weights_of(tmp_path / "one")
    for name, value in weights_of(tmp_path / "ranks").items():
        np.testing.assert_allclose(value, alone[name], rtol=1e-2, atol=1e-3, err_msg=name)
    assert sorted(path.name for path in (tmp_path / "ranks").iterdir()) == [
        "model.safetensors", "result.json", "train.jsonl",
    ]  # fmt: skip


def test_a_checkpoint_goes_on_with_other_ranks_and_their_threads(tmp_path):
    path, run = tmp_path / "checkpoint.pt", {"lr": 0.1, "threads": 4}
    save_checkpoint(path, run, {"done": 1})
    assert load_checkpoint(path, {"lr": 0.1, "threads": 1, "ranks": 3}) == {"done": 1}
    with pytest.raises(UsageError, match="was made with threads 4, not 1"):
        load_checkpoint(path, {"lr": 0.1, "threads": 1})
    with pytest.raises(UsageError, match=r"was made with lr 0\.1, not 0\.2"):
        load_checkpoint(path, {"lr": 0.2, "threads": 1, "ranks": 3})


@pytest.mark.parametrize("size", [2, 3])
def test_shared_batch_normalisation_is_that_of_the_whole_batch(size):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.BatchNorm2d(4)).double()
    nn.init.normal_(layer[0].weight)
    rows = 100 + 3 * torch.randn(7, 4, 5, 5, dtype=torch.double)
    slope = torch.randn(7, 4, 5, 5, dtype=torch.double)

    def gradients(network, own):
        mine = rows[own].clone().requires_grad_()
        out = network(mine)
        (out * slope[own]).sum().backward()
        return out.detach(), mine.grad, network[0].weight.grad, network[0].bias.grad, *network.buffers()

    def work(rank: Ranks):
        own = nn.Sequential(nn.BatchNorm2d(4)).double()
        own.load_state_dict(layer.state_dict())
        share_batch_norm(own, rank)
        assert isinstance(own[0], SharedBatchNorm)
        return gradients(own, rank.part(len(rows)))

    found = together(size, work)
    out, inputs, weight, bias, *buffers = gradients(layer, slice(None))
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([one[0] for one in found]), out, **close)
    torch.testing.assert_close(torch.cat([one[1] for one in found]), inputs, **close)
    torch.testing.assert_close(sum(one[2] for one in found), weight, **close)
    torch.testing.assert_close(sum(one[3] for one in found), bias, **close)
    for one in found:
        torch.testing.assert_close(one[4:], tuple(buffers), **close)


def test_shared_batch_normalisation_keeps_names_types_and_evaluation():
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None))
    names = list(layer.state_dict())
    share_batch_norm(layer, ALONE)
    assert list(layer.state_dict()) == names
    rows = torch.randn(6, 3, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(rows).dtype == torch.bfloat16
    layer.eval()
    before = [value.clone() for value in layer.buffers()]
    assert torch.equal(layer(rows[:1]), layer(rows)[:1]) or torch.allclose(layer(rows[:1]), layer(rows)[:1])
    assert all(map(torch.equal, before, layer.buffers()))


def test_a_layer_that_does_more_than_batch_normalisation_is_not_replaced():
    class WithActivation(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).relu()

    with pytest.raises(UsageError, match=r"^network: has a layer WithActivation, and ranks share .*in one"):
        share_batch_norm(nn.Sequential(WithActivation(3)), Ranks(0, 2))


def test_parts_are_all_rows_once():
    for rows, size in ((7, 3), (2, 3), (12, 4)):
        parts = [range(rows)[Ranks(rank, size).part(rows)] for rank in range(size)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_needs_no_others():
    with ranks() as group:
        assert group is ALONE
        values = torch.ones(3)
        group.sum(values)
        group.copy(values)
        group.meet()
        group.check_same("key", "settings")
        assert (group.gather(1), group.tell(2), values.tolist()) == ([1], 2, [1.0] * 3)
        with group.in_turn():
            pass


def test_ranks_of_a_machine_share_its_cores_and_devices(monkeypatch):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(device, "cuda_devices", lambda: 2)
    assert (device.thread_number(None), device.device_name("cuda")) == (8, "cuda")
    for name, value in {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 3, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    assert (device.thread_number(None), device.thread_number(3)) == (2, 3)
    assert [device.device_name(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda:1", "cuda:1", "cuda:0", "cpu",
    ]  # fmt: skip
    monkeypatch.setattr(device, "cuda_devices", lambda: 0)
    assert device.device_name("auto") == "cpu"
