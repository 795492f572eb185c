"""A head out: predictions for new rows and images, and files for other programs that predict the same."""

from __future__ import annotations

import csv
import json

import h5py
import joblib
import numpy as np
import onnxruntime
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from ldmlr.data.files import FileSplit, ImageFile
from ldmlr.encoders.model import Baseline
from ldmlr.encoders.networks import build_network
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.modules import make_head
from ldmlr.inference import predict as predicting
from ldmlr.inference.chosen import choose
from ldmlr.inference.export import export
from ldmlr.inference.predict import predict
from ldmlr.store import FeatureStore, SplitData

DIM, CLASSES, SHAPE = 6, 3, (16, 16, 3)
X = np.random.default_rng(0).standard_normal((50, DIM)).astype(np.float32)


def head_file(path, kind="linear", baseline="linear", classes=CLASSES):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head, before = make_head(kind, DIM, classes), make_head(baseline, DIM, classes)
        with torch.no_grad():
            for module in (head, before):
                for weight in module.parameters():
                    weight.add_(torch.randn_like(weight))
    counts = np.array([40, 7, 3][:classes])
    FinetunedHead(head.eval(), before.eval(), "fitted", counts, FinetuneConfig(average=0.3), 0, [], 5).save(
        path
    )
    return path


def expected(chosen, features=X):
    with torch.no_grad():
        return torch.softmax(chosen.head(torch.from_numpy(features)), dim=1).numpy()


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


KINDS = [
    ("linear", "linear", "none"), ("linear", "linear", "label-shift"), ("cosine", "linear", "none"),
    ("wcdas", "wcdas", "none"), ("wcdas", "cosine", "label-shift"), ("mlp", "linear", "none"),
    ("mlp", "linear", "label-shift"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "baseline", "adjustment"), KINDS)
def test_onnx_runtime_and_torch_say_what_predict_says(tmp_path, kind, baseline, adjustment):
    chosen = choose(head_file(tmp_path / "head.safetensors", kind, baseline), adjustment)
    rows = np.concatenate([X, np.zeros((1, DIM), np.float32)])  # a row of zeros has no direction
    wanted = expected(chosen, rows)
    np.testing.assert_allclose(chosen.probabilities(rows), wanted, rtol=1e-5, atol=1e-6)
    export(chosen, "onnx", tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 51):
        logits, found = session.run(["logits", "probabilities"], {"features": rows[-count:]})
        np.testing.assert_allclose(found, wanted[-count:], rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            exact = chosen.head(torch.from_numpy(rows[-count:])).numpy()
        np.testing.assert_allclose(logits, exact, rtol=1e-4, atol=1e-4)
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    assert names == list(chosen.class_names)
    export(chosen, "torch", tmp_path / "head.pt2")
    module = torch.export.load(tmp_path / "head.pt2").module()
    for count in (1, 51):
        _, found = module(torch.from_numpy(rows[-count:]))
        np.testing.assert_allclose(found.detach().numpy(), wanted[-count:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "adjustment", "classes"),
    [("linear", "none", 3), ("linear", "label-shift", 3), ("cosine", "none", 3), ("linear", "none", 2)],
)
def test_scikit_learn_predicts_the_same(tmp_path, kind, adjustment, classes):
    chosen = choose(head_file(tmp_path / "head.safetensors", kind, classes=classes), adjustment)
    export(chosen, "sklearn", tmp_path / "head.joblib")
    model = joblib.load(tmp_path / "head.joblib")
    np.testing.assert_allclose(model.predict_proba(X), expected(chosen), rtol=1e-4, atol=1e-6)
    assert model.predict(X).tolist() == expected(chosen).argmax(axis=1).tolist()
    assert model.classes_.tolist() == list(range(classes))


def test_a_head_that_scikit_learn_lacks_is_refused(tmp_path):
    chosen = choose(head_file(tmp_path / "head.safetensors", "mlp"))
    with pytest.raises(UsageError, match="has no classifier like a mlp head; choose onnx, torch or npz"):
        export(chosen, "sklearn", tmp_path / "head.joblib")
    with pytest.raises(UsageError, match="has no encoder"):
        export(chosen, "onnx", tmp_path / "head.onnx", with_encoder=True)
    with pytest.raises(UsageError, match="hold the head alone"):
        export(chosen, "npz", tmp_path / "head.npz", with_encoder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_the_arrays_and_the_formula_say_the_same(tmp_path):
    chosen = choose(head_file(tmp_path / "head.safetensors", "mlp", "cosine"), "label-shift")
    export(chosen, "npz", tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz") as file:
        a = {name: file[name] for name in file.files}
    hidden = X @ a["head_hidden_weight"].T + a["head_hidden_bias"]
    normal = torch.special.ndtr(torch.from_numpy(hidden)).numpy()
    new = (hidden * normal) @ a["head_weight"].T + a["head_bias"]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, a["baseline_weight"])]
    old = a["baseline_scale"] * unit[0] @ unit[1].T
    logits = a["average"] * old + (1 - a["average"]) * new - a["offset"]
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), expected(chosen), rtol=1e-4, atol=1e-6)
    assert "average * baseline(x)" in str(a["formula"])
    assert a["classes"].tolist() == ["0", "1", "2"]


def features_in(folder, form):
    if form == "npy":
        np.save(folder / "x.npy", X)
        return folder / "x.npy"
    if form == "npz":
        np.savez(folder / "x.npz", X=X)
        return folder / "x.npz"
    if form == "csv":
        lines = [",".join(f"f{i}" for i in range(DIM)), *(",".join(map(repr, map(float, row))) for row in X)]
        (folder / "x.csv").write_text("\n".join(lines))
        return folder / "x.csv"
    if form == "parquet":
        table = pyarrow.table({f"f{i}": X[:, i] for i in range(DIM)} | {"label": ["?"] * len(X)})
        pyarrow.parquet.write_table(table, folder / "x.parquet")
        return folder / "x.parquet"
    if form == "hdf5":
        with h5py.File(folder / "x.h5", "w") as file:
            file["X"] = X
        return folder / "x.h5"
    labels = np.zeros(len(X), np.int64)
    train = SplitData(X + 1, labels)
    FeatureStore.write(folder / "s.h5", train=train, test=SplitData(X, labels), num_classes=2)
    return folder / "s.h5"


@pytest.mark.parametrize("form", ["npy", "npz", "csv", "parquet", "hdf5", "store"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_rows_of_any_form_without_labels(tmp_path, monkeypatch, form, suffix):
    monkeypatch.setattr(predicting, "BATCH", 7)
    chosen, out = choose(head_file(tmp_path / "head.safetensors")), tmp_path / f"p{suffix}"
    figures = predict(chosen, features_in(tmp_path, form), out)
    wanted = expected(chosen)
    if suffix == ".csv":
        table = read_csv(out)
    else:
        table = pyarrow.parquet.read_table(out).to_pylist()
    assert figures["rows"] == len(table) == 50
    assert sum(figures["counts"].values()) == 50
    for number, (row, probabilities) in enumerate(zip(table, wanted, strict=True)):
        assert int(row["row"]) == number
        assert row["prediction"] == str(probabilities.argmax())
        found = [float(row[name]) for name in ("0", "1", "2")]
        np.testing.assert_allclose(found, probabilities, rtol=1e-4, atol=1e-5)
        assert float(row["probability"]) == pytest.approx(max(found))


def test_a_wrong_input_is_told_and_leaves_nothing(tmp_path, run_cli):
    head = head_file(tmp_path / "head.safetensors")
    np.save(tmp_path / "wide.npy", np.ones((4, 9), np.float32))
    np.save(tmp_path / "nan.npy", np.where(np.arange(50)[:, None] == 30, np.nan, X))
    chosen = choose(head)
    with pytest.raises(InputError, match="has rows of 9 numbers, but the head takes 6"):
        predict(chosen, tmp_path / "wide.npy", tmp_path / "p.csv")
    with pytest.raises(InputError, match=r"nan\.npy: row 30 holds NaN or infinity"):
        predict(chosen, tmp_path / "nan.npy", tmp_path / "p.csv")
    with pytest.raises(UsageError, match=r"name a file that ends in .csv or .parquet"):
        predict(chosen, tmp_path / "nan.npy", tmp_path / "p.txt")
    done = run_cli("predict", tmp_path, tmp_path / "nan.npy", "--out", tmp_path / "p.csv")
    assert (done.returncode, "has no result.json" in done.stderr) == (1, True)
    assert not list(tmp_path.glob("p.*"))
    assert not list(tmp_path.glob(".p*"))


def test_a_run_is_used_as_its_best_row_says(tmp_path, run_cli):
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "eel"])
    labels = np.repeat(np.arange(3), (40, 20, 10))
    centres = 3 * rng.standard_normal((3, DIM))
    rows = (centres[labels] + rng.standard_normal((70, DIM))).astype(np.float32)
    np.savez(tmp_path / "emb.npz", X=rows, y=names[labels])
    np.save(tmp_path / "new.npy", rows)
    done = run_cli(
        "run", tmp_path / "emb.npz", "--generator", "gaussian", "--folds", "2", "--seeds", "1", "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    moved = tmp_path / "moved"
    (tmp_path / "run").rename(moved)
    document = json.loads((moved / "result.json").read_text())
    done = run_cli("predict", moved, tmp_path / "new.npy", "--out", tmp_path / "p.csv", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["method"] == "baseline") == (document["best"]["method"] == "baseline")
    assert result["adjustment"] == document["best"]["adjustment"]
    table = read_csv(tmp_path / "p.csv")
    assert list(table[0]) == ["row", "prediction", "probability", "cat", "dog", "eel"]
    right = np.mean([row["prediction"] == name for row, name in zip(table, names[labels], strict=True)])
    assert right > 0.9
    done = run_cli("export", moved, "--format", "sklearn", "--out", tmp_path / "head.joblib")
    assert done.returncode == 0, done.stderr
    model = joblib.load(tmp_path / "head.joblib")
    assert model.predict(rows).tolist() == [row["prediction"] for row in table]


@pytest.mark.parametrize("baseline", ["linear", "cosine"])
def test_the_baseline_is_used_where_its_row_is_best(tmp_path, baseline):
    path = tmp_path / "seed-0" / "finetune-11111111" / "head.safetensors"
    path.parent.mkdir(parents=True)
    tuned = FinetunedHead.load(head_file(path, "mlp", baseline))
    document = {"command": "run", "head": str(path), "best": {"method": "baseline"}}
    with torch.no_grad():
        logits = tuned.baseline(torch.from_numpy(X)).numpy()
    for adjustment, subtracted in (("none", 0), ("label-shift", np.log(tuned.counts / tuned.counts.sum()))):
        document["best"]["adjustment"] = adjustment
        (tmp_path / "result.json").write_text(json.dumps(document))
        odds = np.exp(logits - subtracted)
        wanted = odds / odds.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(choose(tmp_path).probabilities(X), wanted, rtol=1e-4, atol=1e-6)


def test_the_head_of_a_folder_is_that_of_its_result(tmp_path):
    for seed in (0, 3, 11):
        head_file(tmp_path / f"head-seed{seed}.safetensors")
    for seeds, first in (([3], 3), ([11, 3], 11)):
        (tmp_path / "result.json").write_text(json.dumps({"command": "finetune", "seeds": seeds}))
        assert choose(tmp_path).path == tmp_path / f"head-seed{first}.safetensors"


@pytest.fixture
def image_run(tmp_path):
    """The folder of a run that started from images, with a small network of random weights."""
    run = tmp_path / "run"
    for stage in ("baseline-11111111", "finetune-22222222"):
        (run / "seed-0" / stage).mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network, dim = build_network("small", SHAPE)
        head = make_head("linear", dim, CLASSES).eval()
        with torch.no_grad():
            head.weight.mul_(5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.fill_(0.1)
    Baseline(network, head, "small", SHAPE, [120.0] * 3, [60.0] * 3, ("a", "b", "c"), {}, {}).save(
        run / "seed-0" / "baseline-11111111" / "model.safetensors"
    )
    tuned = FinetunedHead(head, head, "stored", np.array([9, 5, 2]), FinetuneConfig(), 0, [], 1)
    tuned.save(run / "seed-0" / "finetune-22222222" / "head.safetensors")
    steps = [{"stage": "baseline", "seed": 0, "key": "11111111ffff"}]
    document = {
        "command": "run", "head": "elsewhere/seed-0/finetune-22222222/head.safetensors", "steps": steps,
        "best": {"method": "ldmlr", "adjustment": "none"}, "config": {"encode": {"mirror": True}},
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(document))
    return run


def photos(folder):
    rng = np.random.default_rng(0)
    for name in ("b/two.png", "a.png", "b/one.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_images_are_predicted_by_encoder_and_head_and_so_does_the_export(image_run, tmp_path):
    chosen = choose(image_run)
    source = photos(tmp_path / "photos")
    predict(chosen, source, tmp_path / "p.csv", device="cpu")
    table = read_csv(tmp_path / "p.csv")
    assert [row["image"] for row in table] == ["a.png", "b/one.jpg", "b/two.png"]
    found = np.array([[float(row[name]) for name in ("0", "1", "2")] for row in table])
    files = [ImageFile(row["image"], 0) for row in table]
    pixels = FileSplit(source, files, np.zeros(3, np.int64), 1, image_size=16).load(slice(0, 3))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous()
    export(chosen, "torch", tmp_path / "whole.pt2", with_encoder=True)
    module = torch.export.load(tmp_path / "whole.pt2").module()
    for count in (1, 3):
        _, probabilities = module(images[:count])
        np.testing.assert_allclose(probabilities.detach().numpy(), found[:count], rtol=1e-3, atol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # the images differ in what is said of them


def test_one_image_and_what_holds_none(image_run, tmp_path):
    source = photos(tmp_path / "photos")
    figures = predict(choose(image_run), source / "a.png", tmp_path / "p.csv", device="cpu")
    assert figures["rows"] == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no image"):
        predict(choose(image_run), tmp_path / "empty", tmp_path / "q.csv", device="cpu")
    alone = choose(image_run / "seed-0" / "finetune-22222222" / "head.safetensors")
    with pytest.raises(UsageError, match=r"holds images, and .* has no encoder"):
        predict(alone, source, tmp_path / "q.csv", device="cpu")


def test_encoder_and_head_as_one_in_onnx_runtime(image_run, tmp_path):
    pytest.importorskip("onnxscript")
    chosen = choose(image_run)
    export(chosen, "onnx", tmp_path / "whole.onnx", with_encoder=True)
    session = onnxruntime.InferenceSession(tmp_path / "whole.onnx", providers=["CPUExecutionProvider"])
    source = photos(tmp_path / "photos")
    predict(chosen, source, tmp_path / "p.csv", device="cpu")
    files = [ImageFile(row["image"], 0) for row in read_csv(tmp_path / "p.csv")]
    pixels = FileSplit(source, files, np.zeros(3, np.int64), 1, image_size=16).load(slice(0, 3))
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    table = np.array([[float(row[c]) for c in ("0", "1", "2")] for row in read_csv(tmp_path / "p.csv")])
    for count in (1, 3):
        (found,) = session.run(["probabilities"], {"images": images[:count]})
        np.testing.assert_allclose(found, table[:count], rtol=1e-3, atol=1e-5)
