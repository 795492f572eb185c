"""One thing given where another is expected: a run for its files, images for features, a name for a model."""

from __future__ import annotations

import numpy as np
import pytest
from ldmlr_cli.main import main
from PIL import Image


@pytest.fixture(scope="module")
def a_run(tmp_path_factory):
    """Return the folder of a run on features."""
    folder = tmp_path_factory.mktemp("mixed")
    rng, labels = np.random.default_rng(0), np.repeat([0, 1, 2], (30, 12, 6))
    rows = rng.normal(size=(len(labels), 4)) + 3 * labels[:, None]
    np.savez(folder / "emb.npz", features=rows.astype(np.float32), labels=labels)
    words = (
        "run", folder / "emb.npz", "--seeds", 1, "--folds", 2, "--set", "diffuse.iterations=5",
        "--set", "diffuse.hidden=8", "--threads", 1, "--quiet", "--out", folder / "run",
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("words", "said", "inside"),
    [
        (("generate", "RUN", "--out", "OUT"), "its diffusion model is", "seed-0/diffuse-*/model.safetensors"),
        (("evaluate", "STORE", "--head", "RUN"), "its head is", "seed-0/finetune-*/head.safetensors"),
        (("compare", "RUN"), "its features are", "converted/emb-*.h5"),
        (("diffuse", "RUN", "--out", "OUT"), "its features are", "converted/emb-*.h5"),
        (("finetune", "RUN", "--out", "OUT"), "its features are", "converted/emb-*.h5"),
    ],
)
def test_the_folder_of_a_run_names_the_file_that_is_meant(run_cli, a_run, tmp_path, words, said, inside):
    (file,) = a_run.glob(inside)
    (store,) = a_run.glob("converted/*.h5")
    places = {"RUN": a_run, "OUT": tmp_path / "out.h5", "STORE": store}
    done = run_cli(*(places.get(word, word) for word in words))
    assert (done.returncode, done.stderr) == (1, f"Error: {a_run}: is the folder of a run; {said} {file}\n")
    assert not (tmp_path / "out.h5").exists()


def test_images_where_features_are_expected(run_cli, tmp_path):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    done = run_cli("diffuse", tmp_path / "photos", "--out", tmp_path / "m.safetensors")
    assert done.returncode == 1
    assert "of images, ldmlr encode makes features, and ldmlr run takes them as they are" in done.stderr
    done = run_cli("compare", "digits-lt")
    assert done.returncode == 2
    assert "digits-lt: is a built-in set of images" in done.stderr
    assert "digits-pixels-lt has features" in done.stderr


def test_a_network_that_is_none_says_what_may_stand_there(run_cli, tmp_path):
    done = run_cli("encode", "resnet50", "digits-lt", "--out", tmp_path / "f.h5")
    assert done.returncode == 1
    assert "resnet50: no such model; give what ldmlr baseline wrote, or a network: timm:NAME" in done.stderr


def test_one_value_for_three_channels_says_what_to_write(run_cli, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    (tmp_path / "net.py").write_text("import torch\n\n\ndef net():\n    return torch.nn.Flatten()\n")
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "1.png")
    done = run_cli(
        "encode", f"{tmp_path / 'net.py'}:net", tmp_path / "photos", "--mean", 127, "--std", 128,
        "--out", tmp_path / "f.h5",
    )  # fmt: skip
    assert done.returncode == 2
    assert "1 value for images with 3 channels; give one for each, such as --mean 127.5,127.5" in done.stderr


def test_a_name_that_is_too_long_is_that_of_the_output(run_cli, a_run):
    long = a_run / ("x" * 300 + ".h5")
    done = run_cli("store", "import", a_run.parent / "emb.npz", "--out", long)
    assert done.stderr == f"Error: {long}: the name is too long; choose a shorter one\n"
