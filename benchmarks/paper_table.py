"""The paper's table, regenerated: what was measured beside the published figures, and what was not run.

Reads the results of ``ldmlr run``, ``ldmlr compare`` and ``ldmlr baseline`` under ``results/``
(``run-*.json``, ``compare-*.json``, ``baseline-*.json``) and prints markdown. A file belongs to the
column that its name says (``cifar10-lt-if100``, ``imagenet-lt``). Names of that form alone, or with
``-features``, are the features behind the published baselines; any other ending is an encoder of one's
own, with ``taught`` in it one that was trained with ``--teacher``, with ``wide`` a taught one of twice the
channels, with ``x4`` one of four times the channels, with ``retaught`` a taught one that went on and was
taught by the wide one, and with
``mirror`` in it the features are those of ``ldmlr encode --mirror``. A result belongs to
the rows of WCDAS or GLMC if its baseline's head or preset, or its name, says so.

    python benchmarks/paper_table.py
    python benchmarks/paper_table.py --write README.md
    python benchmarks/paper_table.py --check README.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- paper table -->", "<!-- end of paper table -->"
COLUMNS = ("C10 IF10", "C10 IF100", "C100 IF10", "C100 IF100", "ImageNet-LT")
# Table 1 and 2 of LDMLR (arXiv 2404.04517), top-1 in per cent.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "CE": ("88.22", "72.46", "58.70", "41.28", "35.8"),
    "label shift": ("89.46", "80.88", "61.81", "48.58", "41.7"),
    "WCDAS": ("92.48", "84.67", "65.92", "50.95", "44.6"),
    "CE + LDMLR": ("89.13", "76.26", "60.10", "43.34", "37.2"),
    "label shift + LDMLR": ("89.70", "82.77", "62.67", "49.76", "42.2"),
    "WCDAS + LDMLR": ("92.58", "86.29", "66.32", "51.92", "44.8"),
}
# Beyond the paper, shown where it was measured: the strongest known training of the same network (GLMC,
# Du et al., CVPR 2023, with a correct split and MaxNorm).
BEYOND: dict[str, tuple[str, ...]] = {
    "GLMC, MaxNorm": ("-", "89.58", "-", "58.41", "-"),
    "GLMC, MaxNorm + LDMLR": ("-",) * 5,
}
# Results whose names do not say the imbalance factor: their baseline was trained on this column's images.
COLUMN_OF = {"cifar10-own-features": "C10 IF100", "cifar100-own-features": "C100 IF100"}
# Row of the paper by method and adjustment of a result, and the head of the baseline.
ROWS = {
    ("linear", "baseline", "none"): "CE",
    ("linear", "baseline", "label-shift"): "label shift",
    ("linear", "ldmlr", "none"): "CE + LDMLR",
    ("linear", "ldmlr", "label-shift"): "label shift + LDMLR",
    ("linear", "ldmlr-paper", "none"): "CE + LDMLR",
    ("linear", "ldmlr-paper", "label-shift"): "label shift + LDMLR",
    ("wcdas", "baseline", "none"): "WCDAS",
    ("wcdas", "ldmlr", "none"): "WCDAS + LDMLR",
    ("wcdas", "ldmlr-paper", "none"): "WCDAS + LDMLR",
    ("glmc", "baseline", "none"): "GLMC, MaxNorm",
    ("glmc", "ldmlr", "none"): "GLMC, MaxNorm + LDMLR",
}  # fmt: skip
GIVEN, PAPER = "measured", "measured, the paper's setting"
# Encoders of one's own by what a result's name contains, the longest part that it has: the lines without and
# with mirror images.
ENCODERS = {
    "": ("measured, encoder of `ldmlr baseline`", "the same, `encode --mirror`"),
    "taught": ("measured, taught by an earlier one (`--teacher`)", "the same, taught and `--mirror`"),
    "retaught": ("taught again, by twice the channels", "the same, taught again and `--mirror`"),
    "wide": ("taught, twice the channels (`resnet32x2`)", "the same and `--mirror`"),
    "x4": ("taught, four times the channels (`resnet32x4`)", "the same, four times, and `--mirror`"),
}
LINES = (GIVEN, *itertools.chain.from_iterable(ENCODERS.values()), PAPER)
NOT_RUN = "not run"
GIVEN_NAME = re.compile(r"cifar(10|100)-lt-if(10|100)(-features)?")
NOTE = (
    "Published figures are those of the best epoch on the test set. Measured ones are those of the last "
    "epoch: mean and standard deviation over five seeds, on the features behind the published "
    "baselines, or on those of an encoder that `ldmlr baseline` trained (one training). The paper's "
    "setting generates a fifth of each class's own rows from clean features; for WCDAS it is measured on the "
    "features of `--mirror`. WCDAS had 365 epochs (C100: 417), most of them on smaller images (preset "
    "`cifar-wcdas-mixup`), the last 45 (52) in a warm restart (`--init`), where the published one had 700. "
    "The paper's setting was measured before that restart. The taught encoders went on from the training "
    "before that restart for 230 (262) epochs, and matched its logits beside the labels (`--init`, "
    "`--teacher`); the published ones had no teacher. Those of twice the channels had 155 (175) epochs from "
    "random weights, taught by the taught ones: another network than the published, of four times the "
    "multiplications. Those of four times the channels had 104 epochs (C100: 101, and 114 more in a warm "
    "restart) with mixup and CutMix, taught by those of twice. The last of the same network, on C100 alone, "
    "went on from the taught one for 120 epochs and was taught by that of twice the channels. With "
    "`encode --mirror` features are averaged over an image and its mirror image, which the published figures "
    "are not. Not run: no features or images of that set were at hand, or no such baseline has been trained. "
    "Made by `python benchmarks/paper_table.py`."
)

Cells = dict[tuple[str, str, str], str]


def column_of(name: str) -> str | None:
    """Return the column of a result by its name without command and ending, or None for another set."""
    for known, column in COLUMN_OF.items():
        if name.startswith(known):
            return column
    if name.startswith("imagenet-lt"):
        return "ImageNet-LT"
    found = re.match(r"cifar(10|100)-(?:.*-)?if(10|100)(?![0-9])", name)
    return f"C{found[1]} IF{found[2]}" if found else None


def head_of(result: Mapping[str, Any], name: str) -> str:
    """Return ``glmc``, ``wcdas`` or ``linear``: how the baseline was trained, or its kind of head."""
    config = result["config"]
    if "glmc" in f"{name} {config.get('preset')}":
        return "glmc"
    for kind in (
        result["head"].get("baseline") if isinstance(result.get("head"), Mapping) else None,
        config.get("head") if result["command"] == "baseline" else None,
        config["baseline"].get("head") if isinstance(config.get("baseline"), Mapping) else None,
    ):
        if kind is not None:
            return str(kind)
    return "wcdas" if "wcdas" in name else "linear"


def features_of(command: str, name: str) -> str:
    """Return the line of the table that a result's features belong to."""
    if command != "baseline" and GIVEN_NAME.fullmatch(name):
        return GIVEN
    part = max((part for part in ENCODERS if part in name), key=len)
    return ENCODERS[part]["mirror" in name]


def read_cells(folder: Path) -> Cells:
    """Return the measured cells: (row of the paper, line, column) -> text.

    Of several results for a cell, the one of ``run`` goes before ``compare`` and ``baseline``.

    Raises
    ------
    ValueError
        A file that is no result document; the message names it.
    """
    cells: Cells = {}
    for command in ("run", "compare", "baseline"):
        for path in sorted(folder.glob(f"{command}-*.json")):
            name = path.stem.removeprefix(f"{command}-")
            column = column_of(name)
            if column is None:
                continue
            try:
                result = json.loads(path.read_text(encoding="utf-8"))
                head, rows = head_of(result, name), result["rows"]
                encoded = features_of(command, name)
                for row in rows:
                    place = ROWS.get((head, row["method"], row["adjustment"]))
                    if place is not None:
                        line = PAPER if row["method"] == "ldmlr-paper" else encoded
                        cells.setdefault((place, line, column), _cell(row["all"]))
            except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
                raise ValueError(f"{path}: not a result document ({error!r}); write it again") from None
    return cells


def _cell(figure: Mapping[str, Any]) -> str:
    # A stored baseline has the same figure for every seed, and one training has a single seed.
    spread = f" ± {figure['std']:.2f}" if figure["std"] >= 0.005 else ""
    return f"{figure['mean']:.2f}{spread}"


def markdown(cells: Cells) -> str:
    """Return the table and its note as markdown."""
    lines = [f"| top-1 % | | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 2)]
    for place, published in {**PUBLISHED, **BEYOND}.items():
        measured = {line: [cells.get((place, line, column), NOT_RUN) for column in COLUMNS] for line in LINES}
        shown = [line for line in LINES if set(measured[line]) != {NOT_RUN}]
        if place in BEYOND and not shown:
            continue
        lines.append(_line(f"**{place}**", "published", published))
        lines += [_line("", line, measured[line]) for line in shown or [GIVEN]]
    return "\n".join([*lines, "", _wrapped(NOTE)])


def _line(first: str, second: str, values: Sequence[str]) -> str:
    return f"| {first} | {second} | {' | '.join(values)} |"


def _wrapped(text: str, width: int = 112) -> str:
    """Return text broken into lines, without breaking words or commands in backquotes."""
    words = re.findall(r"(?:`[^`]*`|\S)+", text)
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def section(document: str, where: str) -> tuple[int, int]:
    """Return begin and end of the table between its two marks in a document.

    Raises
    ------
    ValueError
        A mark is missing, or they are in the wrong order.
    """
    begin, end = document.find(BEGIN), document.find(END)
    if begin < 0 or end < begin:
        raise ValueError(f"{where}: has no table between {BEGIN} and {END}; add the two lines")
    return begin + len(BEGIN), end


def main(args: Sequence[str] | None = None) -> int:
    """Print, check or write the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--check", type=Path, metavar="FILE.md", help="fail unless its copy is current")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the table between its two marks")
    options = parser.parse_args(args)
    try:
        text = f"\n{markdown(read_cells(options.results))}\n"
        if options.check is None and options.write is None:
            print(text.strip())
        for path in (options.write, options.check):
            if path is None:
                continue
            document = path.read_text(encoding="utf-8")
            begin, end = section(document, str(path))
            if document[begin:end] == text:
                print(f"{path}: the table is current")
            elif path is options.write:
                path.write_text(document[:begin] + text + document[end:], encoding="utf-8")
                print(f"{path}: table written")
            else:
                raise ValueError(f"{path}: is not current; run benchmarks/paper_table.py --write {path}")
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
