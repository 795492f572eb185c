"""The preset file of ImageNet-LT, on a small folder in the layout of the public lists."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldmlr.encoders.model import Baseline
from ldmlr.encoders.recipes import baseline_config
from ldmlr.store import FeatureStore

PRESET = Path(__file__).resolve().parent.parent / "presets" / "imagenet-lt.toml"
WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")
COUNTS = {"train": (24, 10, 5, 2), "val": (3, 3, 3, 3), "test": (4, 4, 4, 4)}
# Small images, few steps: what is tested is the way through, not the figures.
QUICK = (
    "--image-size", 32, "--seeds", 1,
    "--set", "baseline.epochs=2", "--set", "baseline.head_epochs=1", "--set", "baseline.batch_size=16",
    "--set", "baseline.lr=0.05", "--set", "diffuse.iterations=20", "--set", "diffuse.hidden=16",
    "--set", "finetune.epochs=1",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Write JPEG files of several sizes and the three lists as they are published."""
    rng = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        lines = []
        for label, count in enumerate(counts):
            for number in range(count):
                # The public test list takes the images of the validation folder, like the val list.
                name = f"{split}/{WNIDS[label]}/{WNIDS[label]}_{number}.JPEG"
                if split != "train":
                    index = 100 * label + number + (50 if split == "test" else 0)
                    name = f"val/{WNIDS[label]}/ILSVRC2012_val_{index:08d}.JPEG"
                path = tmp_path / "images" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                height, width = rng.integers(36, 60, 2)
                pixels = rng.integers(0, 90, (height, width, 3), np.uint8)
                pixels[:, :, label % 3] += 40 * (1 + label // 3 * 2)
                Image.fromarray(pixels).save(path, "JPEG")
                lines.append(f"{name} {label}\n")
        (tmp_path / f"ImageNet_LT_{split}.txt").write_text("".join(lines))
    text = PRESET.read_text(encoding="utf-8").replace('image_root = "."', 'image_root = "images"')
    (tmp_path / "imagenet-lt.toml").write_text(text)
    return tmp_path


def test_the_file_names_the_published_setting():
    document = tomllib.loads(PRESET.read_text(encoding="utf-8"))
    config = baseline_config(document["preset"], document["baseline"])
    assert (config.network, config.head, config.concentration) == ("resnet10", "wcdas", -1.0)
    assert (config.epochs, config.batch_size, config.lr, config.weight_decay) == (90, 256, 0.4, 1e-4)
    assert (config.head_epochs, config.head_lr) == (30, 0.2)
    assert document["finetune"]["head"] == "wcdas"


def test_everything_runs_from_the_lists_to_the_table(run_cli, folder, tmp_path_factory, monkeypatch):
    # From another folder: the paths of the file start where it lies.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    done = run_cli("run", folder / "imagenet-lt.toml", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [(row["method"], row["adjustment"]) for row in result["rows"]] == [
        ("baseline", "none"), ("baseline", "label-shift"), ("ldmlr", "none"), ("ldmlr", "label-shift"),
    ]  # fmt: skip
    assert result["config"]["baseline"]["network"] == "resnet10"
    assert result["groups"] == {"many": 0, "medium": 1, "few": 3}
    root = folder / "runs" / "imagenet-lt"
    store = next(root.glob("seed-0/encode-*/features.h5"))
    with FeatureStore.open(store) as opened:
        assert (opened.dim, opened.num_classes) == (512, 4)
        assert opened.head is not None
        assert opened.head.kind == "wcdas"
        assert {name: len(opened.split(name).labels) for name in ("train", "val", "test")} == {
            "train": 41, "val": 12, "test": 16,
        }  # fmt: skip
    model = Baseline.load(next(root.glob("seed-0/baseline-*")))
    assert model.provenance["counts"] == [24, 10, 5, 2]
    # The concentrations start at -1 and move little in so few steps.
    assert model.head.get_parameter("concentration").mean().item() == pytest.approx(-1, abs=0.3)


def test_a_dry_run_lists_the_steps(run_cli, folder):
    done = run_cli("run", folder / "imagenet-lt.toml", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [step["stage"] for step in plan["steps"]][:2] == ["baseline", "encode"]
    assert [step["stage"] for step in plan["steps"]].count("finetune") == 5
    assert plan["config"]["image_size"] == 224
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("case", ["no lists", "no images", "cut image"])
def test_what_is_missing_is_named_in_one_line(run_cli, folder, monkeypatch, case):
    monkeypatch.chdir(folder)
    if case == "no lists":
        (folder / "ImageNet_LT_train.txt").unlink()
        expected = "ImageNet_LT_train.txt: no such file"
    elif case == "no images":
        shutil.rmtree(folder / "images" / "val")
        expected = "line 1: no image"
    else:
        path = next((folder / "images" / "train" / WNIDS[1]).iterdir())
        path.write_bytes(path.read_bytes()[:300])
        expected = f"{path.name}: cannot be decoded"
    done = run_cli("run", "imagenet-lt.toml", *QUICK)
    assert done.returncode == 1
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs" / "imagenet-lt" / "result.json").exists()


def test_concentration_needs_its_head():
    from ldmlr.errors import UsageError

    with pytest.raises(UsageError, match="concentration: a linear head has none"):
        baseline_config("cifar-ce-mixup", {"concentration": -1.0})
