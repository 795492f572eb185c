"""A contest of heads on held-out rows: what is held out, who sees what, and what the answer says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.copies import Oversampling
from ldmlr.generation.train_rows import TrainRows
from ldmlr.select.auto import open_contest
from ldmlr.select.contest import Contest, Trial
from ldmlr.select.entrants import ENTRANTS, FILLS
from ldmlr.select.inner import Held
from ldmlr.select.rule import Scores
from ldmlr.store import FeatureStore, SplitData

COUNTS = (80, 30, 8)


def sample(counts, seed=0, apart=1.2):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centre = apart * np.eye(3, 6)
    return (centre[labels] + rng.standard_normal((len(labels), 6))).astype(np.float32), labels


def train_rows(counts=COUNTS, views=0):
    features, labels = sample(counts)
    kinds = ("weak", "strong")[:views]
    shown = tuple(features + np.float32(number + 1) for number in range(views))
    return TrainRows(features, labels, shown, kinds, 3, "rows")


class Spy:
    """Fits over-sampling, and remembers what it was fitted to."""

    def __init__(self, wrong=False):
        self.seen, self.wrong = [], wrong

    def __call__(self, name, drawing, rows):
        self.seen.append((name, rows))
        if self.wrong:
            rows = TrainRows(rows.features, (rows.labels + 1) % 3, (), (), rows.num_classes, rows.name)
        return Oversampling(rows)


def contest(spy=None, **options):
    held = Held.of(train_rows(), used=3)
    return Contest(held, spy or Spy(), GenerateConfig(), device="cpu", **options)


def test_a_generator_never_sees_the_rows_that_are_held_out():
    spy = Spy()
    found = contest(spy)
    found.enter(["smote"], may_stop=False)
    assert len(spy.seen) == 3  # once a fold
    for fold, (_, rows) in zip(found.held.folds, spy.seen, strict=True):
        held = {row.tobytes() for row in fold.held[0][fold.index]}
        assert len(held) == len(fold.labels) > 0
        assert not held & {row.tobytes() for row in rows.features}
        assert len(rows.labels) == sum(COUNTS) - len(held)


def test_what_is_open_is_chosen_and_said():
    found = contest()
    found.enter(["balanced-softmax", "discriminant", "oversampling"], may_stop=False)
    made = found.trials["oversampling"]
    assert made.chosen().keys() == {"fill", "weight_decay"}
    assert made.fill in FILLS
    assert found.trials["discriminant"].chosen().keys() == {"shrinkage"}
    head, shift, rows = found.head(made, seed=3)
    target = round(made.fill * 80)
    assert rows.all_counts.tolist() == [max(count, target) for count in COUNTS]
    assert not shift.any()
    assert head.num_classes == 3


def test_a_plan_of_ones_own_is_kept():
    spy = Spy()
    held = Held.of(train_rows(), used=1)
    found = Contest(held, spy, GenerateConfig(strategy="ratio", ratio=0.5), fills=None, device="cpu")
    found.enter(["smote"], may_stop=False)
    trial = found.trials["smote"]
    assert trial.fill is None
    assert found.rows(trial, 0).all_counts.tolist() == [120, 45, 12]


def test_a_generator_that_cannot_win_is_left_after_one_fold():
    spy = Spy(wrong=True)
    features, labels = sample((400, 100, 60), apart=3.0)
    held = Held.of(TrainRows(features, labels, (), (), 3, "rows"), used=3)
    found = Contest(held, spy, GenerateConfig(), fills=(1.0,), device="cpu")
    found.enter(["balanced-softmax", "smote"])
    assert len(spy.seen) == 1
    assert not found.trials["smote"].finished
    assert found.winner().entrant.name == "balanced-softmax"
    assert "generation adds nothing here, all of it was clearly behind" in found.headline()


class Counted(Oversampling):
    """Copies, and how often rows were drawn."""

    drawn = 0

    def draw(self, labels, seed=0, first_row=0):
        type(self).drawn += 1
        return super().draw(labels, seed, first_row)


def test_rows_are_drawn_once_for_every_filling():
    Counted.drawn = 0
    found = contest(lambda name, drawing, rows: Counted(rows))
    found.enter(["smote"], may_stop=False)
    assert Counted.drawn == len(FILLS) * len(found.held.folds)
    # What was chosen is measured on the rows that its filling was tried with.
    trial = found.trials["smote"]
    again = found._measured(trial.spec, found._filling(trial.entrant).folds(trial.fill, range(3)))
    np.testing.assert_array_equal(again.right[0], trial.scores.right[0])


def test_rows_that_are_drawn_plainly_in_any_case_are_tried_once():
    spy = Spy()
    held = Held.of(train_rows(), used=3)
    plain = Contest(held, spy, GenerateConfig().for_features(False), device="cpu")
    plain.enter(["ldmlr-plain", "ldmlr"], may_stop=False)
    assert len(spy.seen) == 3
    one, other = plain.trials["ldmlr-plain"], plain.trials["ldmlr"]
    assert (one.entrant.name, other.entrant.name) == ("ldmlr-plain", "ldmlr")
    assert (one.spec, one.fill, one.accuracy) == (other.spec, other.fill, other.accuracy)
    # Where rows are widened, the two are different methods.
    wide = Contest(held, Spy(), GenerateConfig(), device="cpu")
    wide.enter(["ldmlr-plain", "ldmlr"], may_stop=False)
    assert wide._twin(ENTRANTS["ldmlr"]) is None


def test_nothing_is_tried_where_nothing_is_left_to_win():
    features, labels = sample(COUNTS, apart=200.0)
    spy = Spy()
    held = Held.of(TrainRows(features, labels, (), (), 3, "rows"), used=2)
    found = Contest(held, spy, GenerateConfig(), device="cpu")
    found.enter(["ncm", "balanced-softmax", "smote"])
    assert list(found.trials) == ["ncm"]
    assert spy.seen == []
    assert found.headline().startswith("Use the nearest class mean (100.00 % on held-out training rows")


def trial(name, right):
    labels = np.repeat(np.arange(2), len(right) // 2)
    entrant = ENTRANTS[name]
    fill = None if entrant.generator is None else 0.3
    return Trial(entrant, entrant.spec, fill, Scores((right,), (labels,), ("held out",)), 0.0)


@pytest.mark.parametrize(
    ("gained", "winner", "words"),
    [
        (0, "balanced-softmax", "generation adds nothing here, the best with it, SMOTE, has 80.00 %"),
        (1, "balanced-softmax", "generation adds nothing here, the best with it, SMOTE, has 80.50 %"),
        (
            9,
            "smote",
            "generated rows put it ahead of the best without them, a tuned balanced softmax (80.00 %)",
        ),
    ],
)
def test_generated_rows_are_taken_only_where_they_are_ahead(gained, winner, words):
    base = np.ones(200, bool)
    base[np.r_[0:20, 100:120]] = False
    made = base.copy()
    made[:gained] = True
    found = contest()
    found.trials = {"balanced-softmax": trial("balanced-softmax", base), "smote": trial("smote", made)}
    assert found.winner().entrant.name == winner
    assert words in found.headline()
    assert found.headline().count(". ") == 0
    document = found.document()
    assert document["method"] == winner
    assert json.loads(json.dumps(document))["trials"][0]["method"] in ("smote", "balanced-softmax")


def test_of_equals_the_cheaper_is_the_mark():
    right = np.ones(20, bool)
    right[3] = False
    found = contest()
    found.trials = {name: trial(name, right) for name in ("ncm", "balanced-softmax")}
    assert found.winner().entrant.name == "ncm"


def test_views_are_held_out_where_the_encoder_has_seen_the_rows():
    rows = train_rows(views=2)
    seen, foreign = Held.of(rows, use_views=True, used=1), Held.of(rows, used=1)
    assert "augmented views" in seen.how
    assert np.array_equal(seen.folds[0].held[0], rows.views[1])  # the strong one
    assert np.array_equal(foreign.folds[0].held[0], rows.features)
    # A row is left out in all its views.
    fold = seen.with_views()[0]
    assert len(fold.rows.labels) == 3 * sum(COUNTS)
    assert (fold.weights.reshape(3, -1)[:, fold.index] == 0).all()


@pytest.fixture
def store(tmp_path):
    return FeatureStore.write(
        tmp_path / "s.h5", train=SplitData(*sample(COUNTS)), val=SplitData(*sample((20, 20, 20), 1)),
        test=SplitData(*sample((9, 9, 9), 2)),
    )  # fmt: skip


QUICK = DiffusionConfig(hidden=8, iterations=5)


def test_validation_rows_are_held_out_where_there_are_such(store):
    found = open_contest(store, False, diffuse=QUICK, machine=Machine("cpu"))
    assert found.held.how == "60 validation rows"
    found.enter(("ncm", "ldmlr", "ldmlr-plain"))
    assert len(found.trials["ncm"].scores.labels[0]) == 60
    # One model is trained for both ways of drawing, on all training rows.
    assert found.held.folds[0].weights.all()


def test_the_test_split_is_not_read(store, tmp_path):
    other = FeatureStore.write(
        tmp_path / "o.h5", train=SplitData(*sample(COUNTS)), val=SplitData(*sample((20, 20, 20), 1))
    )
    names = ("discriminant", "balanced-softmax", "gaussian")
    documents = []
    for one in (store, other):
        found = open_contest(one, False, machine=Machine("cpu"))
        found.enter(names)
        document = found.document()
        for entry in document["trials"]:
            entry.pop("seconds")
        documents.append(document)
    assert documents[0] == documents[1]


def test_compare_tunes_every_method_where_the_encoder_is_foreign(store, run_cli):
    names = "baseline,softmax,balanced-softmax,knn,gaussian,ldmlr"
    done = run_cli(
        "compare", store.path, "--foreign-encoder", "--seeds", 2, "--methods", names, "--json",
        "--set", "diffuse.hidden=8", "--set", "diffuse.iterations=5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    rows = {(row["method"], row["adjustment"]): row for row in result["rows"]}
    assert list(rows) == [
        ("baseline", "none"), ("baseline", "label-shift"), ("softmax", "none"), ("softmax", "label-shift"),
        ("balanced-softmax", "none"), ("knn", "none"), ("gaussian", "none"), ("ldmlr", "none"),
    ]  # fmt: skip
    assert rows["balanced-softmax", "none"]["chosen"].keys() == {"weight_decay"}
    assert rows["knn", "none"]["chosen"].keys() == {"neighbours"}
    for name in ("gaussian", "ldmlr"):
        chosen = rows[name, "none"]["chosen"]
        assert chosen.keys() == {"fill", "weight_decay"}
        target = round(80 * chosen["fill"])
        assert rows[name, "none"]["generated"] == [sum(max(target - count, 0) for count in COUNTS)] * 2
    assert rows["balanced-softmax", "none"]["all"]["std"] == 0.0
    assert any(note.startswith("knn: ") and "neighbours" in note for note in result["notes"])


def test_compare_takes_a_kind_of_head(store, run_cli):
    for kind in ("cosine", "mlp"):
        done = run_cli(
            "compare", store.path, "--foreign-encoder", "--seeds", 1, "--head", kind, "--json",
            "--methods", "baseline,balanced-softmax",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout)["rows"][-1]
        assert (row["method"], row["head"]) == ("balanced-softmax", kind)
