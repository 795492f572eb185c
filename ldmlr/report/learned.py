"""The section on what the diffusion model learned beyond the class Gaussian, told by held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ldmlr.diffusion.learned import in_words, mean_of, part_in_words
from ldmlr.errors import counted
from ldmlr.report.blocks import Block, Bullets, Heading, Section, Table, Words
from ldmlr.run.opened import OpenedRun

Figures = Mapping[str, Any]
# The bands of noise in words, from a row with hardly any noise to noise with hardly any row.
LEAST, MOST = "hardly any noise", "hardly anything but noise"


def held_out(run: OpenedRun) -> list[dict[str, Any]]:
    """Return ``name``, ``axes`` (None: not told) and ``held_out`` of each model that a document tells of.

    The models of several seeds are one entry, with means.
    """
    document, command = run.document, run.command
    found: list[tuple[str, Any, Any]] = []
    if command == "augment":
        found = [(str(one.get("store")), one.get("axes"), one.get("held_out")) for one in _records(document)]
    elif command in ("compare", "ablate"):
        rows = {_name(row): row.get("held_out") for row in document.get("rows", ()) if isinstance(row, dict)}
        found = [(name, None, one) for name, one in rows.items()]
    elif "held_out" in document:
        found = [("", document.get("axes"), document["held_out"])]
    return [
        {"name": name, "axes": axes, "held_out": mean_of([one])}
        for name, axes, one in found
        if isinstance(one, dict) and one.get("loss_over_gaussian") is not None
    ]


def _records(document: Figures) -> Iterator[dict[str, Any]]:
    for record in document.get("stores", ()):
        if isinstance(record, dict):
            yield record


def _name(row: Figures) -> str:
    return str(row.get("setting") or row.get("method"))


def learned(figures: Figures) -> Section | None:
    """Return what training added to the class Gaussian: overall, per shot group and per band of noise."""
    found = figures["learned"]
    if not found:
        return None
    blocks: list[Block] = [Words(
        "An untrained diffusion model draws the class Gaussian. Rows that were kept from training tell what "
        "training added: its error on them, relative to that of the class Gaussian. Where it adds nothing, "
        "the class Gaussian is drawn."
    )]  # fmt: skip
    for entry in found:
        document = entry["held_out"]
        blocks += [Heading(entry["name"])] if entry["name"] else []
        along = f"Diffusion along {counted(entry['axes'], 'axis')}: " if entry["axes"] else "Diffusion: "
        blocks.append(Bullets([f"{along}{in_words(document)} ({counted(document['rows'], 'row')})."]))
        if len(found) == 1:
            blocks += _parts(document)
    if len(found) > 1:
        blocks.append(Words("Shot groups and bands of noise are in the result document.", soft=True))
    return Section("learned", "What the diffusion learned", blocks)


def _parts(document: Figures) -> list[Block]:
    groups = [[name, part_in_words(ratio)] for name, ratio in document["groups"].items()]
    bands = [[name, part_in_words(ratio)] for name, ratio in _bands(document["bands"])]
    return [
        Table(["shot group", "on held-out rows"], groups, wordy=True),
        Table(["noise added to the rows", "on held-out rows"], bands, wordy=True),
    ]


def _bands(ratios: Sequence[float | None]) -> Iterator[tuple[str, float | None]]:
    """Yield (the band in words, its ratio)."""
    last = len(ratios) - 1
    for at, ratio in enumerate(ratios):
        words = f"band {at + 1} of {len(ratios)}"
        yield f"{words}, {LEAST}" if at == 0 else f"{words}, {MOST}" if at == last else words, ratio
