"""What training added to the class Gaussian: in every document that tells of a model, and on the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.page import check_page

from ldmlr import LatentDiffusion
from ldmlr.diffusion.heldout import BANDS
from ldmlr.diffusion.learned import NOTHING, in_words, mean_of, part_in_words
from ldmlr.store import FeatureStore, SplitData, StoredHead

COUNTS = np.array([300, 60, 12])
QUICK = ("diffuse.basis=eigen", "diffuse.iterations=300", "diffuse.hidden=32", "finetune.epochs=1")
SET = [part for value in QUICK for part in ("--set", value)]


def rows(labels: np.ndarray, rng: np.random.Generator, *, modes: bool) -> np.ndarray:
    found = rng.standard_normal((len(labels), 6)) + 8 * labels[:, None]
    found[:, :4] += 4 * rng.choice([-1, 1], (len(labels), 1)) if modes else 0
    return found.astype(np.float32)


def write(path: Path, *, modes: bool = True) -> Path:
    rng = np.random.default_rng(0)
    labels, test = np.repeat(np.arange(3), COUNTS), np.repeat(np.arange(3), 20)
    head = StoredHead("linear", rng.standard_normal((3, 6)).astype(np.float32), np.zeros(3, np.float32))
    FeatureStore.write(
        path, train=SplitData(rows(labels, rng, modes=modes), labels),
        test=SplitData(rows(test, rng, modes=modes), test), head=head,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("learned") / "modes.h5")


def document(run_cli, *args: object) -> dict:
    done = run_cli(*args, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_document(found: dict) -> None:
    assert 0.3 < found["loss_over_gaussian"] < 0.99
    assert len(found["bands"]) == BANDS
    assert set(found["groups"]) == {"many", "medium", "few"}
    assert found["groups"]["few"] is None  # no class of fewer than 20 rows is held out from


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (0.909, "on held-out rows 9.1 % below the class Gaussian"),
        (1.0, "on held-out rows no better than the class Gaussian, which is drawn instead"),
        (None, "no row was held out, so whether it adds to the class Gaussian is not known"),
    ],
)
def test_the_finding_in_words(ratio, words):
    assert in_words({"loss_over_gaussian": ratio}) == words


def test_a_part_in_words():
    assert part_in_words(None) == "no rows held out"
    assert part_in_words(0.92) == "8.0 % below the class Gaussian"
    assert part_in_words(1.0) == "no better than the class Gaussian, which is drawn instead"


def test_the_mean_over_seeds_leaves_out_what_is_not_known():
    one = {"loss_over_gaussian": 0.8, "bands": [0.9, None], "groups": {"many": 0.8, "few": None}, "rows": 3}
    two = {"loss_over_gaussian": 1.0, "bands": [1.0, 0.5], "groups": {"many": 1.0, "few": None}, "rows": 4}
    found = mean_of([one, two, NOTHING])
    assert found["loss_over_gaussian"] == pytest.approx(0.9)
    assert found["bands"] == pytest.approx([0.95, 0.5])
    assert found["groups"] == {"many": pytest.approx(0.9), "few": None}
    assert found["rows"] == 7
    assert mean_of([]) is None


def test_a_run_tells_what_its_models_learned_and_the_page_shows_it(run_cli, store, tmp_path):
    found = document(run_cli, "run", store, "--seeds", 2, "--out", tmp_path / "run", *SET, "--threads", 1)
    check_document(found["held_out"])
    assert found["axes"] == 6
    steps = [step["figures"] for step in found["steps"] if step["stage"] == "diffuse"]
    assert found["held_out"] == mean_of([figures["held_out"] for figures in steps])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["held_out"] == found["held_out"]
    assert run_cli("report", tmp_path / "run").returncode == 0
    page = check_page(tmp_path / "run" / "report.html")
    assert "What the diffusion learned" in page.text
    assert in_words(found["held_out"])[1:] in page.text
    assert part_in_words(found["held_out"]["groups"]["many"]) in page.text
    assert f"band 1 of {BANDS}, hardly any noise" in page.text


def test_without_diffusion_there_is_nothing_to_tell(run_cli, store, tmp_path):
    found = document(
        run_cli, "run", store, "--generator", "gaussian", "--out", tmp_path / "run", "--seeds", 1,
        "--set", "finetune.epochs=1",
    )  # fmt: skip
    assert found["held_out"] is None
    assert run_cli("report", tmp_path / "run").returncode == 0
    assert "What the diffusion learned" not in check_page(tmp_path / "run" / "report.html").text


def test_a_comparison_tells_it_of_its_diffusion_arms(run_cli, store, tmp_path):
    found = document(
        run_cli, "compare", store, "--methods", "baseline,gaussian,ldmlr", "--seeds", 1, *SET,
        "--out", tmp_path / "compare",
    )  # fmt: skip
    by_method = {row["method"]: row["held_out"] for row in found["rows"]}
    check_document(by_method["ldmlr"])
    assert found["held_out"] == by_method["ldmlr"]
    assert by_method["baseline"] is by_method["gaussian"] is None
    assert run_cli("report", tmp_path / "compare").returncode == 0
    assert in_words(found["held_out"])[1:] in check_page(tmp_path / "compare" / "report.html").text


def test_an_augmented_store_comes_with_it_and_a_line(run_cli, store, tmp_path):
    args = ("augment", store, "--basis", "eigen", "--iterations", 300, "--hidden", 32)
    found = document(run_cli, *args, "--out-dir", tmp_path / "one")["stores"][0]
    check_document(found["held_out"])
    assert found["learned"] == in_words(found["held_out"])
    assert found["axes"] == 6
    assert found["learned"] in run_cli(*args, "--out-dir", tmp_path / "two").stdout
    assert run_cli("report", tmp_path / "one").returncode == 0
    assert found["learned"][1:] in check_page(tmp_path / "one" / "report.html").text


def test_where_nothing_was_learned_the_class_gaussian_is_what_is_drawn():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [400, 100])
    mix = rng.standard_normal((5, 5))
    features = rng.standard_normal((500, 5)) @ mix + 5 * labels[:, None]
    model = LatentDiffusion(basis="eigen", iterations=40, hidden=16, layers=1, seed=0).fit(
        features, labels, threads=1
    )
    assert model.held_out["loss_over_gaussian"] == 1.0
    assert model.held_out["bands"] == [1.0] * BANDS
    assert "drawn instead" in model.learned
    many = np.repeat([0, 1], 20000)
    drawn = model.sample(many, scale=1.0, seed=3).astype(np.float64)
    # In the numbers of the diffusion it is a standard normal around each class mean: any angle, any class.
    for label in (0, 1):
        own = drawn[many == label]
        z = (own - features[labels == label].mean(axis=0)) @ model.transform.axes.whitening.T
        np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.04)
        np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=0.05)
        np.testing.assert_allclose((z**4).mean(axis=0), 3, atol=0.25)
    other = model.sample(many[:50], guidance=4.0, scale=1.0, seed=3)
    np.testing.assert_array_equal(other, drawn[:50].astype(np.float32))
