"""Generation into stores: rows that do not depend on shards, interrupts or threads."""

from __future__ import annotations

import errno
import itertools
import os
import shutil

import numpy as np
import pytest
from support.models import three_blobs

from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.generation import parts
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate, parse_shard, shard_range
from ldmlr.generation.prepare import prepare
from ldmlr.sampler import backends as sampling
from ldmlr.store import FeatureStore, SplitData, verify

COUNTS = (200, 60, 9)
NAMES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def model():
    return three_blobs(COUNTS, hidden=16, iterations=20, batch_size=64, fit={"class_names": NAMES})


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "ROW_MULTIPLE", 50)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_store_holds_the_plan(model, tmp_path):
    generation = prepare(model, GenerateConfig(), seed=4)
    figures = generate(generation, tmp_path / "pseudo.h5")
    assert left_in(tmp_path) == ["pseudo.h5"]
    store = FeatureStore.open(tmp_path / "pseudo.h5")
    assert store.train.counts.tolist() == [0, 140, 191] == figures["per_class"].tolist()
    assert (store.train.source == 1).all()
    assert store.train.ids.tolist() == list(range(331))
    assert (np.diff(store.train.labels) >= 0).all()
    assert (store.class_names, store.num_classes, store.dim) == (NAMES, 3, 4)
    expected = model.sample(store.train.labels, seed=4, backend=figures["backend"])
    assert np.array_equal(store.train.float32(), expected)
    assert store.config["generate"]["guidance"] == 1.5
    assert store.config["generate"]["seed"] == 4
    assert store.config["backend"] == figures["backend"]
    assert verify(tmp_path / "pseudo.h5").problems == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rows_are_kept_in_the_type_asked_for(model, tmp_path, dtype):
    generate(prepare(model, GenerateConfig(dtype=dtype)), tmp_path / "pseudo.h5")
    store = FeatureStore.open(tmp_path / "pseudo.h5")
    full = model.sample(store.train.labels)
    assert np.allclose(store.train.float32(), full, rtol=2.0**-8, atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_are_the_same_rows(model, tmp_path, count):
    generation = prepare(model, GenerateConfig())
    generate(generation, tmp_path / "whole.h5")
    whole = FeatureStore.open(tmp_path / "whole.h5")
    order = [*range(1, count), 0]
    for index in order:
        figures = generate(generation, tmp_path / "out.h5", shard=(index, count))
        assert (figures["manifest"] is None) == (index != 0)
    shards = FeatureStore.open(tmp_path / "out.json")
    assert np.array_equal(shards.train.float32(), whole.train.float32())
    assert np.array_equal(shards.train.labels, whole.train.labels)
    assert shards.train.ids.tolist() == whole.train.ids.tolist()


def test_a_shard_of_other_settings_takes_the_manifest_away(model, tmp_path):
    for index in (0, 1):
        generate(prepare(model, GenerateConfig()), tmp_path / "out.h5", shard=(index, 2))
    assert (tmp_path / "out.json").exists()
    other = prepare(model, GenerateConfig(), seed=1)
    figures = generate(other, tmp_path / "out.h5", shard=(0, 2), overwrite=True)
    assert figures["manifest"] is None
    assert not (tmp_path / "out.json").exists()
    assert generate(other, tmp_path / "out.h5", shard=(1, 2), overwrite=True)["manifest"] is not None


def test_more_shards_than_rows(model, tmp_path):
    generation = prepare(model, GenerateConfig(count=("1=2",)))
    for index in range(3):
        generate(generation, tmp_path / "out.h5", shard=(index, 3))
    assert len(FeatureStore.open(tmp_path / "out.json").train) == 2


def test_shard_ranges_are_a_partition():
    edges = [shard_range(331, (i, 7)) for i in range(7)]
    assert edges[0][0] == 0
    assert edges[-1][1] == 331
    assert all(one[1] == two[0] for one, two in itertools.pairwise(edges))
    assert parse_shard("99998/99999") == (99998, 99999)
    for wrong in ("3/3", "1", "-1/2", "a/b", "0/0", "0/100000", f"0/{'9' * 5000}"):
        with pytest.raises(UsageError, match="shard: expected I/N"):
            parse_shard(wrong)


def stop_after(monkeypatch, calls, error):
    """Let the sampler draw a few parts, then fail."""
    original = sampling.Sampler.__call__
    done = []

    def sample(self, labels, first_row, **options):
        if len(done) == calls:
            raise error
        done.append(first_row)
        return original(self, labels, first_row, **options)

    monkeypatch.setattr(sampling.Sampler, "__call__", sample)
    return done


def interrupt(monkeypatch, generation, out):
    """Generate four parts, as if Ctrl-C were pressed then."""
    with monkeypatch.context() as patch:
        stop_after(patch, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            generate(generation, out)


def test_an_interrupted_generation_goes_on_where_it_stopped(model, tmp_path, monkeypatch):
    generation = prepare(model, GenerateConfig())
    generate(generation, tmp_path / "whole.h5")
    (tmp_path / "part").mkdir()
    out = tmp_path / "part" / "out.h5"
    interrupt(monkeypatch, generation, out)
    assert left_in(out.parent) == [".out.h5.parts"]
    with monkeypatch.context() as patch:
        drawn = stop_after(patch, 100, KeyboardInterrupt)
        generate(generation, out, resume=True)
    assert drawn == [200, 250, 300]
    assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert left_in(out.parent) == ["out.h5"]


def test_parts_of_other_settings_are_not_used(model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    interrupt(monkeypatch, prepare(model, GenerateConfig(), seed=1), out)
    other = prepare(model, GenerateConfig(), seed=2)
    with pytest.raises(UsageError, match="holds rows of another model, other settings"):
        generate(other, out, resume=True)
    assert left_in(out.parent) == [".out.h5.parts"]
    figures = generate(other, out, resume=True, overwrite=True)
    assert figures["rows"] == 331
    labels = FeatureStore.open(out).train.labels
    assert np.array_equal(FeatureStore.open(out).train.float32(), model.sample(labels, seed=2))


def test_without_resume_it_starts_afresh_only_if_that_is_asked_for(model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    generation = prepare(model, GenerateConfig())
    interrupt(monkeypatch, generation, out)
    kept = sorted(path.name for path in (tmp_path / ".out.h5.parts").iterdir())
    with pytest.raises(
        UsageError, match=r"an interrupted run left its work here; go on with resume=True, or"
    ):
        generate(generation, out)
    assert sorted(path.name for path in (tmp_path / ".out.h5.parts").iterdir()) == kept
    with monkeypatch.context() as patch:
        drawn = stop_after(patch, 100, KeyboardInterrupt)
        generate(generation, out, overwrite=True)
    assert len(drawn) == 7
    assert left_in(tmp_path) == ["out.h5"]


def test_a_finished_generation_is_not_repeated(model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    generation = prepare(model, GenerateConfig())
    generate(generation, out)
    stop_after(monkeypatch, 0, AssertionError("drew again"))
    figures = generate(generation, out, resume=True)
    assert figures["finished_before"]
    with pytest.raises(UsageError, match="holds the rows of other settings"):
        generate(prepare(model, GenerateConfig(), seed=1), out, resume=True)
    with pytest.raises(UsageError, match="already exists"):
        generate(generation, out)


def test_resume_and_overwrite_replace_what_is_of_other_settings(model, tmp_path):
    out = tmp_path / "out.h5"
    generate(prepare(model, GenerateConfig()), out)
    figures = generate(prepare(model, GenerateConfig(), seed=1), out, resume=True, overwrite=True)
    assert not figures["finished_before"]
    labels = FeatureStore.open(out).train.labels
    assert np.array_equal(FeatureStore.open(out).train.float32(), model.sample(labels, seed=1))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), LdmlrError("broken")])
def test_a_failure_leaves_nothing(model, tmp_path, monkeypatch, error):
    stop_after(monkeypatch, 2, error)
    with pytest.raises((LdmlrError, OSError)):
        generate(prepare(model, GenerateConfig()), tmp_path / "out.h5")
    assert left_in(tmp_path) == []


def test_a_disk_that_is_too_small_is_noticed_before_the_work(model, tmp_path, monkeypatch):
    stop_after(monkeypatch, 0, AssertionError("drew"))
    generation = prepare(model, GenerateConfig(count=(f"0={10**12}",)))
    with pytest.raises(LdmlrError, match=r"needs .* while it is made"):
        generate(generation, tmp_path / "out.h5")
    assert left_in(tmp_path) == []


def test_the_parts_of_an_interrupted_run_need_no_more_space(model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    generation = prepare(model, GenerateConfig())
    interrupt(monkeypatch, generation, out)
    parts = sum(part.stat().st_size for part in (tmp_path / ".out.h5.parts").glob("*.npy"))
    needed = generation.rows * (8 * model.dim + 17)
    for missing in (1, 0):
        free = needed - parts - missing
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(0, 0, free))
        if missing:
            with pytest.raises(LdmlrError, match=r"needs .* while it is made"):
                generate(generation, out, resume=True)
    assert generate(generation, out, resume=True)["rows"] == generation.rows


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), LdmlrError("broken")])
def test_a_failure_of_a_resumed_run_keeps_the_parts(model, tmp_path, monkeypatch, error):
    out = tmp_path / "out.h5"
    generation = prepare(model, GenerateConfig())
    for number, (stop, resume) in enumerate(((KeyboardInterrupt, False), (error, True)), 1):
        with monkeypatch.context() as patch:
            stop_after(patch, 2, stop)
            with pytest.raises(type(stop) if resume else stop):
                generate(generation, out, resume=resume)
        assert len(list((tmp_path / ".out.h5.parts").glob("*.npy"))) == 2 * number
    generate(generation, out, resume=True)
    assert left_in(tmp_path) == ["out.h5"]


def test_a_damaged_part_is_named(model, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    generation = prepare(model, GenerateConfig())
    interrupt(monkeypatch, generation, out)
    part = min((tmp_path / ".out.h5.parts").glob("*.npy"))
    part.write_bytes(part.read_bytes()[:-5])
    with pytest.raises(LdmlrError, match=r"this part was damaged .*; go on with resume=True"):
        generate(generation, out, resume=True)
    assert not part.exists()
    generate(generation, out, resume=True)
    generate(generation, tmp_path / "other.h5")
    rows = [FeatureStore.open(tmp_path / name).train.float32() for name in ("out.h5", "other.h5")]
    assert np.array_equal(*rows)


def test_counts_may_come_from_a_store(model, tmp_path):
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], (10, 4, 6))
    source = np.r_[np.zeros(18), np.ones(2)].astype(np.uint8)
    rows = SplitData(generator.standard_normal((20, 4)), labels, source=source)
    store = FeatureStore.write(tmp_path / "s.h5", train=rows)
    assert prepare(model, GenerateConfig(), store=store).plan.tolist() == [0, 6, 6]
    other = FeatureStore.write(tmp_path / "t.h5", train=SplitData(np.ones((3, 7)), np.arange(3)))
    with pytest.raises(InputError, match="has 3 classes of 7-d rows, but the model was trained on 3 of 4-d"):
        prepare(model, GenerateConfig(), store=other)


def test_parts_of_another_seed_beside_ours_are_never_joined(model, tmp_path):
    """As two processes at once would leave them, where the file system has no locks."""
    drawn = {}
    for seed in (1, 2):
        generation = prepare(model, GenerateConfig(), seed=seed)
        key = f"{generation.key} {generation.kernels}"
        drawn[seed] = parts.Parts(tmp_path, generation, 0, generation.rows, key)
        assert drawn[seed].draw() == generation.rows
    joined = {seed: np.concatenate([rows for _, rows, _ in part]) for seed, part in drawn.items()}
    assert not np.array_equal(joined[1], joined[2])
    alone = parts.Parts(tmp_path / "alone", drawn[1].generation, 0, drawn[1].rows, "any key")
    alone.folder.mkdir()
    alone.draw()
    assert np.array_equal(joined[1], np.concatenate([rows for _, rows, _ in alone]))


def test_a_second_start_on_one_output_is_refused(model, tmp_path, monkeypatch):
    first, second = (prepare(model, GenerateConfig(), seed=seed) for seed in (1, 2))
    refusals = []

    def start_again(self):
        child = os.fork()
        if not child:
            try:
                generate(second, tmp_path / "out.h5", overwrite=True)
            except LdmlrError as error:
                os._exit(7 if f"process {os.getppid()} " in str(error) else 8)
            os._exit(9)
        refusals.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return draw(self)

    draw = parts.Parts.draw
    monkeypatch.setattr(parts.Parts, "draw", start_again)
    generate(first, tmp_path / "out.h5")
    assert refusals == [7]
    assert left_in(tmp_path) == ["out.h5"]
    assert FeatureStore.open(tmp_path / "out.h5").config["key"] == first.key


def test_parts_that_outlived_the_finished_store_are_removed(model, tmp_path):
    generation = prepare(model, GenerateConfig(), seed=4)
    generate(generation, tmp_path / "out.h5")
    with parts.parts_folder(tmp_path / "other.h5", "key", resume=False) as folder:
        shutil.copytree(folder, tmp_path / ".out.h5.parts")
    assert generate(generation, tmp_path / "out.h5", resume=True)["finished_before"]
    assert left_in(tmp_path) == ["out.h5"]
