"""What a model file says of itself, its card, and folders of the Hugging Face Hub."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.stage3 import write_stores

import ldmlr
from ldmlr.errors import InputError, UsageError
from ldmlr.generation.card import LISTED

QUICK = ("--hidden", 8, "--layers", 1, "--iterations", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a store and a model of it."""
    folder = write_stores(tmp_path_factory.mktemp("cards"))
    store = ldmlr.FeatureStore.open(folder / "features.h5")
    ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=5).fit_store(store).save(
        folder / "model.safetensors"
    )
    return folder


def test_a_model_file_says_what_it_holds(made, run_cli):
    done = run_cli("model", "show", made / "model.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["model"]
    store = ldmlr.FeatureStore.open(made / "features.h5")
    assert found["kind"] == "diffusion model"
    assert found["rows_per_class"] == np.bincount(store.train.labels).tolist()
    assert (found["dim"], found["config"]["hidden"]) == (store.dim, 8)
    assert set(found["held_out"]) >= {"loss_over_gaussian", "bands", "groups"}
    text = run_cli("model", "show", made / "model.safetensors").stdout
    assert f"{sum(found['rows_per_class']):,} of {store.num_classes} classes" in text
    assert max(map(len, text.splitlines())) < 140


def test_a_head_says_what_it_holds(made, run_cli, tmp_path):
    done = run_cli(
        "finetune", made / "features.h5", "--seeds", 1, "--epochs", 1, "--loss", "balanced-softmax",
        "--out", tmp_path / "heads",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run_cli("model", "show", tmp_path / "heads" / "head-seed0.safetensors")
    assert re.search(r"^  kind +head$", done.stdout, re.M)
    # A folder stands for its head, as it does for ldmlr predict.
    assert run_cli("model", "show", tmp_path / "heads").stdout == done.stdout
    (tmp_path / "empty").mkdir()
    done = run_cli("model", "show", tmp_path / "empty")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_file_that_is_no_model(made, run_cli, tmp_path):
    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors")
    for path, words in (
        (made / "features.h5", "is a feature store (HDF5)"),
        (tmp_path / "other.safetensors", "no model file of ldmlr"),
        (tmp_path / "none", "no such model file"),
    ):
        done = run_cli("model", "show", path)
        assert done.returncode == 1
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_card_has_every_field_and_none_is_missing(made):
    model = ldmlr.LatentDiffusion.load(made / "model.safetensors")
    text = model.card("birds", license="cc-by-4.0")
    assert text.startswith("---\nlicense: cc-by-4.0\nlibrary_name: ldmlr\n")
    assert re.findall(r"^#+ (.+)$", text, re.M) == [
        "birds", "Data", "Rows per class", "Settings", "What it learned", "Use", "Limits", "Licence",
    ]  # fmt: skip
    for label, count in enumerate(model.counts):
        name = model.class_names[label] if model.class_names else str(label)
        assert f"| {name} | {count:,} |" in text
    assert all(f"| `{name}` |" in text for name in model.config.to_dict())
    assert model.provenance["fingerprint"] in text
    assert str(made) not in text  # where the data lay is nobody's business
    assert "more information needed" not in text.lower()
    assert "stated no licence" in model.card()
    with pytest.raises(UsageError, match="is no identifier"):
        model.card(license="all: mine")


def test_a_card_of_many_classes_and_strange_names():
    rng = np.random.default_rng(0)
    y = np.arange(3 * LISTED) // 2
    names = [f"<b>|{label}\n# x" for label in range(y.max() + 1)]
    model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=2)
    text = model.fit(rng.standard_normal((len(y), 3)), y, class_names=names).card("a\n# b")
    assert f"{len(names) - LISTED} between them are left out" in text
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "\n# x" not in text
    assert "\n# a \\# b\n" in text
    assert "No rows were held out" in text


def test_a_card_beside_the_model(made, run_cli, tmp_path):
    out = tmp_path / "m.safetensors"
    done = run_cli("diffuse", made / "features.h5", "--out", out, *QUICK, "--card", "--license", "mit")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "m.md").read_text()
    assert "license: mit" in card
    again = run_cli("model", "card", out, "--license", "mit", "--out", tmp_path / "README.md")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "README.md").read_text() == card
    refused = run_cli("model", "card", out)
    assert refused.returncode == 2
    assert "m.md: already exists" in refused.stderr
    refused = run_cli(
        "diffuse", made / "features.h5", "--out", tmp_path / "n.safetensors", "--license", "mit"
    )
    assert refused.returncode == 2
    assert "--card" in refused.stderr
    assert not (tmp_path / "n.safetensors").exists()


def test_a_folder_of_the_hub_and_back(made, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from ldmlr.hub import LatentDiffusion

    model = LatentDiffusion.load(made / "model.safetensors")
    model.save_pretrained(tmp_path / "birds", model_card_kwargs={"name": "birds", "license": "mit"})
    assert sorted(path.name for path in (tmp_path / "birds").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    assert json.loads((tmp_path / "birds" / "config.json").read_text()) == model.config.to_dict()
    card = hub.ModelCard.load(tmp_path / "birds" / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "ldmlr")

    again = LatentDiffusion.from_pretrained(tmp_path / "birds")
    assert again.fingerprint() == model.fingerprint()
    plain = ldmlr.LatentDiffusion.load(tmp_path / "birds" / "model.safetensors")
    assert np.array_equal(again.sample([0, 1], seed=3), plain.sample([0, 1], seed=3))
    trained = LatentDiffusion(hidden=8, layers=1, iterations=2).fit(np.eye(6), np.arange(6) % 2)
    trained.save_pretrained(tmp_path / "own")
    assert LatentDiffusion.from_pretrained(tmp_path / "own").fingerprint() == trained.fingerprint()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        LatentDiffusion.from_pretrained(tmp_path / "empty")


def test_what_is_pushed(made, monkeypatch):
    """The upload itself is the hub's; what is handed to it are the three files."""
    hub = pytest.importorskip("huggingface_hub")
    from ldmlr.hub import LatentDiffusion

    sent = []

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            sent.append((repo_id, sorted(path.name for path in folder_path.iterdir())))
            return "done"

    monkeypatch.setattr(hub.hub_mixin, "HfApi", Api)
    assert LatentDiffusion.load(made / "model.safetensors").push_to_hub("me/birds") == "done"
    assert sent == [("me/birds", ["README.md", "config.json", "model.safetensors"])]


def test_without_the_package_there_is_one_line():
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from ldmlr.errors import UsageError\n"
        "try:\n    import ldmlr.hub\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "huggingface_hub is not installed; pip install 'ldmlr[hub]'\n"
