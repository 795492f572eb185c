"""The tables on accuracy, and the list of all tables: what each shows.

``pivot.py`` says how rows and columns select figures; the names stand in ``render.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tables_diffusion
import tables_keel
import tables_speed
from experiments import document, load
from names import ENCODERS, METHODS
from pivot import Column, Line, Summary, Table, accuracy, markdown, rendered
from summarise import Row

TOP = {"quantity": "top-1", "group": "all"}
PLAIN, SHIFT = {"adjustment": "none"}, {"adjustment": "label-shift"}
CIFAR10, CIFAR100 = {"set": "cifar10", "data": "cifar10-lt"}, {"set": "cifar100", "data": "cifar100-lt"}
# Both sets, each without and with label shift.
FOUR = (
    Column("CIFAR-10-LT", {**CIFAR10, **PLAIN}),
    Column("+ label shift", {**CIFAR10, **SHIFT}),
    Column("CIFAR-100-LT", {**CIFAR100, **PLAIN}),
    Column("+ label shift", {**CIFAR100, **SHIFT}),
)
# Both sets, each the encoder's own head and LDMLR.
HEAD_AND_LDMLR = (
    Column("CIFAR-10-LT", {**CIFAR10, "method": "{head}"}),
    Column("+ LDMLR", {**CIFAR10, "method": "{ldmlr}"}),
    Column("CIFAR-100-LT", {**CIFAR100, "method": "{head}"}),
    Column("+ LDMLR", {**CIFAR100, "method": "{ldmlr}"}),
)
# What `ldmlr run` prints.
STAGES = {
    "baseline": {"method": "baseline", **PLAIN},
    "baseline + label shift": {"method": "baseline", **SHIFT},
    "LDMLR": {"method": "ldmlr", **PLAIN},
    "**LDMLR + label shift**": {"method": "ldmlr", **SHIFT},
}


def lines(names: dict[str, str], name: str) -> list[Line]:
    """Return a line for each name, which selects it as the field `name`."""
    return [Line((shown,), {name: value}) for value, shown in names.items()]


def home(summary: Summary) -> str:
    """Return the most telling rows: baseline, label shift, LDMLR, both, and the best of all other methods."""
    sets = (CIFAR10, CIFAR100)
    rows = []
    for label, fields in STAGES.items():
        shared = {**TOP, **fields, "experiment": "run-{set}"}
        rows.append([label, *(_cell(summary, {**shared, **place}) for place in sets)])
    best = []
    for place in sets:
        others = [
            row
            for row in summary.all({**TOP, **place, "experiment": "compare-{set}"})
            if row["method"] != "baseline" and not row["method"].startswith("ldmlr")
        ]
        row = max(others, key=lambda row: float(row["mean"]))
        shift = " + label shift" if row["adjustment"] == "label-shift" else ""
        best.append(f"{accuracy(row)} ({METHODS[row['method']]}{shift})")
    return markdown(("top-1 %", "CIFAR-10-LT", "CIFAR-100-LT"), [*rows, ["best other method", *best]])


def _cell(summary: Summary, fields: dict[str, str]) -> str:
    row = summary.one(fields)
    return accuracy(row) if row else ""


def digits(summary: Summary) -> str:
    """Return the built-in digits by shot group."""
    columns = [Column(group, {"group": group}) for group in ("all", "many", "medium", "few")]
    table = Table(
        ("top-1 %",),
        [Line((label,), fields) for label, fields in STAGES.items()],
        columns,
        {"quantity": "top-1", "experiment": "run-digits"},
    )
    return rendered(table, summary)


def paper(summary: Summary) -> str:
    """Return the paper's table: published and measured, without and with LDMLR."""
    own = {"experiment": "run-{set}-{encoder}", "head": "baseline", "ldmlr": "ldmlr"}
    found = []
    for name, adjustment in (("**CE**", PLAIN), ("**label shift**", SHIFT)):
        shared = {"head": "baseline", "ldmlr": "ldmlr", **adjustment}
        setting = {"experiment": "compare-{set}", "ldmlr": "ldmlr-paper"}
        found += [
            Line((name, "published"), {**shared, "experiment": "published"}),
            Line((name, "measured, published features"), {**shared, "experiment": "run-{set}"}),
            Line((name, "the same, the paper's setting"), {**shared, **setting}),
            Line(
                (name, "measured, encoder of `ldmlr baseline`"), {**own, **adjustment, "encoder": "ce-mixup"}
            ),
        ]
    name = "**WCDAS**"
    wcdas = {"experiment": "published", "head": "wcdas", "ldmlr": "wcdas-ldmlr", **PLAIN}
    found.append(Line((name, "published"), wcdas))
    for encoder, label in (
        ("wcdas-once-restart", "measured, 365 (417) epochs"),
        ("wcdas-taught", "taught by an earlier one (`--teacher`)"),
        ("wcdas-retaught", "taught again, by twice the channels"),
        ("wcdas-wide", "taught, twice the channels (`resnet32x2`)"),
        ("wcdas-x4", "taught, four times the channels (`resnet32x4`)"),
    ):
        found += [
            Line((name, label), {**own, **PLAIN, "encoder": encoder}),
            Line((name, f"{label}, mirror images"), {**own, **PLAIN, "encoder": f"{encoder}-mirror"}),
        ]
    setting = {"experiment": "compare-{set}-wcdas-once-mirror", "head": "baseline", "ldmlr": "ldmlr-paper"}
    found.append(Line((name, "320 (365) epochs, mirror images, the paper's setting"), {**setting, **PLAIN}))
    return rendered(Table(("top-1 %", ""), found, HEAD_AND_LDMLR, TOP), summary)


def as_given(row: Row) -> str:
    """Return a published figure: one digit for ImageNet-LT, two for CIFAR."""
    return f"{float(row['mean']):.{1 if row['data'] == 'imagenet-lt' else 2}f}"


def published(summary: Summary) -> str:
    """Return the paper's own figures on all its sets."""
    sets = {
        "cifar10-lt-if10": "C10 IF10", "cifar10-lt": "C10 IF100", "cifar100-lt-if10": "C100 IF10",
        "cifar100-lt": "C100 IF100", "imagenet-lt": "ImageNet-LT",
    }  # fmt: skip
    rows = {
        "CE": {"method": "baseline", **PLAIN},
        "label shift": {"method": "baseline", **SHIFT},
        "WCDAS": {"method": "wcdas", **PLAIN},
        "CE + LDMLR": {"method": "ldmlr", **PLAIN},
        "label shift + LDMLR": {"method": "ldmlr", **SHIFT},
        "WCDAS + LDMLR": {"method": "wcdas-ldmlr", **PLAIN},
    }
    columns = [Column(label, {"data": data}, as_given) for data, label in sets.items()]
    found = [Line((label,), fields) for label, fields in rows.items()]
    return rendered(
        Table(("published, top-1 %",), found, columns, {**TOP, "experiment": "published"}), summary
    )


def encoders(summary: Summary) -> str:
    """Return each encoder's own head and LDMLR on its features, without and with mirror images."""
    found = []
    for encoder, label in ENCODERS.items():
        for mirror in ("", "-mirror"):
            place = "run-{set}" if encoder == "published" else f"run-{{set}}-{encoder}{mirror}"
            if not mirror or encoder != "published":
                fields = {"experiment": place, "head": "baseline", "ldmlr": "ldmlr", **PLAIN}
                found.append(Line((label, "yes" if mirror else ""), fields))
    published = {"experiment": "published", "head": "wcdas", "ldmlr": "wcdas-ldmlr", **PLAIN}
    found.append(Line(("published: WCDAS, 700 epochs, best on the test set", ""), published))
    return rendered(Table(("encoder", "mirror images"), found, HEAD_AND_LDMLR, TOP), summary)


def compare(summary: Summary) -> str:
    """Return all methods on both sets."""
    fields = {**TOP, "experiment": "compare-{set}"}
    return rendered(Table(("top-1 %",), lines(METHODS, "method"), FOUR, fields), summary)


def compare_on(place: dict[str, str]) -> Callable[[Summary], str]:
    """Return the table of all methods on one set, with shot groups."""
    columns = [
        Column("all", {**place, **PLAIN, "group": "all"}),
        Column("+ label shift", {**place, **SHIFT, "group": "all"}),
        *(Column(group, {**place, **PLAIN, "group": group}) for group in ("many", "medium", "few")),
    ]
    fields = {"quantity": "top-1", "experiment": "compare-{set}"}
    table = Table(("top-1 %",), lines(METHODS, "method"), columns, fields)
    return lambda summary: rendered(table, summary)


def compare_encoders(place: dict[str, str]) -> Callable[[Summary], str]:
    """Return the table of the main methods on each better encoder."""
    kinds = {
        "wcdas-restart2": "second restart", "wcdas-once": "long training", "wcdas-taught": "taught",
        "wcdas-retaught": "taught again", "wcdas-wide": "twice the channels", "wcdas-x4": "four times",
    }  # fmt: skip
    wanted = (
        "baseline", "crt-views", "oversampling", "views", "smote-views", "adasyn-views",
        "gaussian", "gaussian-wide", "ldmlr-paper", "ldmlr",
    )  # fmt: skip
    columns = [
        Column(label, {**place, **PLAIN, "experiment": f"compare-{{set}}-{kind}-mirror"})
        for kind, label in kinds.items()
    ]
    table = Table(("top-1 %",), lines({name: METHODS[name] for name in wanted}, "method"), columns, TOP)
    return lambda summary: rendered(table, summary)


def varied(*experiments: str, head: str, method: str = "ldmlr") -> Callable[[Summary], str]:
    """Return the table of what was varied in experiments, on both sets, without and with label shift.

    An experiment is one for both sets, or has ``{set}`` in its name.
    """

    def render(summary: Summary) -> str:
        found, seen = [], set()
        for experiment in experiments:
            names = [experiment.format(set=name) for name in ("cifar10", "cifar100")]
            for setting in summary.settings(*dict.fromkeys(names)):
                if setting not in seen:
                    seen.add(setting)
                    fields = {"experiment": experiment, "method": method, "setting": setting}
                    found.append(Line((setting,), fields))
        return rendered(Table((head,), found, FOUR, TOP), summary)

    return render


def training_options(summary: Summary) -> str:
    """Return what each option of stage 1 gains on the digits."""
    found, seen = [], set()
    for experiment in ("training-options-digits", "training-options-digits-teacher"):
        for setting in summary.settings(experiment):
            if setting not in seen:
                seen.add(setting)
                found.append(Line((setting,), {"experiment": experiment, "setting": setting}))
    columns = [
        Column("all", {**PLAIN, "group": "all"}),
        Column("few", {**PLAIN, "group": "few"}),
        Column("all, label shift", {**SHIFT, "group": "all"}),
        Column("few, label shift", {**SHIFT, "group": "few"}),
    ]
    fields = {"quantity": "top-1", "method": "baseline"}
    return rendered(Table(("variant",), found, columns, fields), summary)


def levers(summary: Summary) -> str:
    """Return what each part of the strongest recipes gains on digits kept back, and on the test digits."""
    experiment = "training-options-levers"
    found = [
        Line((setting,), {"experiment": experiment, "setting": setting})
        for setting in summary.settings(experiment)
    ]
    val, test = {"data": "digits-lt-val"}, {"data": "digits-lt-test"}
    encoder, ldmlr = {"method": "baseline"}, {"method": "ldmlr"}
    columns = [
        Column("encoder, kept back", {**val, **encoder, **PLAIN}),
        Column("+ label shift", {**val, **encoder, **SHIFT}),
        Column("LDMLR, kept back", {**val, **ldmlr, **PLAIN}),
        Column("+ label shift", {**val, **ldmlr, **SHIFT}),
        Column("encoder, test, + label shift", {**test, **encoder, **SHIFT}),
        Column("LDMLR, test, + label shift", {**test, **ldmlr, **SHIFT}),
    ]
    return rendered(Table(("variant",), found, columns, TOP), summary)


def several_modes(summary: Summary) -> str:
    """Return LDMLR beside the best of each simpler family, by these figures: without / with label shift."""
    families: dict[str, Sequence[str]] = {
        "LDMLR": ("ldmlr",),
        "LDMLR, plain": ("ldmlr-plain",),
        "LDMLR for modes": ("ldmlr-modes",),
        "best Gaussian": ("gaussian", "gaussian-wide"),
        "best SMOTE, ADASYN": ("smote", "smote-views", "adasyn", "adasyn-views"),
        "best copies": ("oversampling", "views"),
    }
    sets = dict.fromkeys(row["data"] for row in summary.by_experiment["several-modes"])
    found = []
    for data in sets:
        cells = []
        for methods in families.values():
            both = []
            for adjustment in (PLAIN, SHIFT):
                fields = {**TOP, **adjustment, "experiment": "several-modes", "data": data}
                rows = [row for row in summary.all(fields) if row["method"] in methods]
                both.append(accuracy(max(rows, key=lambda row: float(row["mean"]))))
            cells.append(" / ".join(both))
        found.append([data, *cells])
    return markdown(("set", *families), found)


def selection(summary: Summary) -> str:
    """Return settings chosen on held-out rows beside the fixed ones."""
    names = {
        "fixed": "fixed settings, all training rows",
        "fixed, a tenth held out": "fixed settings, a tenth held out",
        "auto": "chosen on the held-out tenth",
        "refit": "the choice taken over to all training rows",
    }
    sets = {"digits-lt": "digits", "cifar10-lt": "CIFAR-10-LT", "cifar100-lt": "CIFAR-100-LT"}
    columns = [
        Column(label + words, {"data": data, **adjustment})
        for data, label in sets.items()
        for words, adjustment in (("", PLAIN), (" + label shift", SHIFT))
    ]
    fields = {**TOP, "experiment": "selection", "method": "ldmlr"}
    return rendered(Table(("LDMLR, top-1 %",), lines(names, "setting"), columns, fields), summary)


def tried(summary: Summary) -> str:
    """Return what was tried and gained nothing."""
    experiments = load()
    failed = {name for name, entry in experiments.items() if entry.status == "tried"}
    # Of an encoder that gained nothing, the runs on its features say no more.
    first = [
        experiments[name] for name in experiments if name in failed and experiments[name].parent not in failed
    ]
    found = [[f"`{entry.id}`", entry.shows] for entry in first if entry.id != "trials-other"]
    small = document(experiments["trials-other"])["rows"]
    found += [[row["what"], f"{row['outcome']} ({row['isa']})"] for row in small]
    return markdown(("experiment or change", "what it shows"), found)


def reproduce(summary: Summary) -> str:
    """Return commands with what they give and how long they take."""
    experiments, found = load(), []
    for name in ("run-digits", "run-cifar10", "run-cifar100", "compare-cifar10", "compare-cifar100"):
        fields = {**TOP, "experiment": name, "method": "ldmlr"}
        cells = [_cell(summary, {**fields, **adjustment}) for adjustment in (PLAIN, SHIFT)]
        commands = ", ".join(f"`{command}`" for command in experiments[name].commands)
        found.append([commands, *cells, experiments[name].time])
    return markdown(("command", "LDMLR", "+ label shift", "time, two cores"), found)


TABLES: dict[str, Callable[[Summary], str]] = {
    "home": home,
    "digits": digits,
    "paper": paper,
    "published": published,
    "encoders": encoders,
    "compare": compare,
    "compare-cifar10": compare_on(CIFAR10),
    "compare-cifar100": compare_on(CIFAR100),
    "compare-encoders-cifar10": compare_encoders(CIFAR10),
    "compare-encoders-cifar100": compare_encoders(CIFAR100),
    "ablation-ratio": varied("ablate-ratio-{set}", head="rows per class"),
    "ablation-groups": varied("ablate-groups-{set}", head="groups filled"),
    "ablation-steps": varied("ablate-steps-{set}", head="solver:steps"),
    "ablation-guidance": varied("ablate-guidance-{set}", head="guidance"),
    "ablation-width": varied("ablate-width-{set}", head="width"),
    "ablation-basis": varied("ablate-basis-{set}", head="basis"),
    "ablation-axes": varied("ablate-axes-{set}", head="axes"),
    "ablation-error-power": varied("ablate-error-power-{set}", head="power"),
    "stage3-variants": varied("stage3-variants", head="variant"),
    "training-options": training_options,
    "levers": levers,
    "several-modes": several_modes,
    "precision": varied("precision", "precision-int8", head="rows drawn by"),
    "gate": varied("gate", head="gate"),
    "selection": selection,
    **tables_diffusion.TABLES,
    **tables_keel.TABLES,
    **tables_speed.TABLES,
    "tried": tried,
    "reproduce": reproduce,
}


def render(name: str, summary: Summary) -> str:
    """Return a table as markdown.

    Raises
    ------
    ValueError
        Its figures are missing or not unique; the message names the table.
    """
    try:
        return TABLES[name](summary)
    except ValueError as error:
        raise ValueError(f"table {name}: {error}") from None
