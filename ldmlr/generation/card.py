"""The card of a diffusion model: what it was trained on, what it learned, what it must not be used for.

Markdown with the fields of a Hugging Face model card on top. Everything in it is read from the model, or was
given; where a thing is not known, the card says that in words. Names come from files of others, so that they
are made harmless for Markdown and YAML.
"""

from __future__ import annotations

import json
import re

from ldmlr.errors import UsageError, counted, opt
from ldmlr.generation.trained import Trained
from ldmlr.groups import GROUPS, ShotGroups
from ldmlr.metrics.familiar import KEY as TRAINED_ON_ROWS

# As many classes have a line of their own; of more, the largest and the smallest.
LISTED = 40
PAPER = "https://arxiv.org/abs/2404.04517"


def card(model: Trained, name: str = "model", license: str | None = None) -> str:
    """Return the card of a trained model.

    Parameters
    ----------
    model
        The parts of the model.
    name
        Its title.
    license
        Identifier of its licence, such as ``mit`` or ``cc-by-4.0``; None: not known.

    Raises
    ------
    UsageError
        The licence is no identifier.
    """
    if license is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise UsageError(f"{opt('license')}: {license!r} is no identifier; give one such as mit or cc-by-4.0")
    head = [
        "---", f"license: {license or 'unknown'}", "library_name: ldmlr",
        "tags: [long-tailed-recognition, latent-diffusion, feature-augmentation]", "---",
    ]  # fmt: skip
    sections = [
        f"# {_plain(name)}",
        "A class-conditional diffusion model of features, by the method LDMLR "
        f"([arXiv 2404.04517]({PAPER})). It draws feature vectors of a class, for training the last layer of "
        "a classifier where classes are rare. It draws no images.",
        "## Data\n\n" + _data(model),
        "## Rows per class\n\n" + _rows(model),
        "## Settings\n\n" + _settings(model),
        "## What it learned\n\n" + _learned(model),
        "## Use\n\n```python\nimport ldmlr\n\n"
        'model = ldmlr.LatentDiffusion.load("model.safetensors")\n'
        "rows = model.sample([0] * 100, seed=0)  # 100 rows of class 0\n```\n\n"
        "The same seed gives the same rows on one kind of processor.",
        "## Limits\n\n" + _limits(model),
        "## Licence\n\n" + _licence(license),
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(sections) + "\n"


def _data(model: Trained) -> str:
    where = model.provenance
    rows = int(model.counts.sum())
    lines = [
        f"{counted(rows, 'row')} of {counted(model.transform.dim, 'number')}, "
        f"{counted(len(model.counts), 'class')}."
    ]
    if where.get("views"):
        lines.append(f"Each row with {where['views']} augmented views.")
    encoder = where.get("encoder")
    lines.append(
        f"Encoder: {_plain(str(encoder))}." if encoder else "What encoded the rows was not recorded."
    )
    seen = where.get(TRAINED_ON_ROWS)
    if seen is not None:
        lines.append(f"The encoder had {'' if seen else 'not '}seen the training rows.")
    if where.get("fingerprint"):
        lines.append(f"The contents of the store have the sha256 `{_plain(str(where['fingerprint']))}`.")
    else:
        lines.append("The rows were given as arrays; where they came from was not recorded.")
    return "\n".join(lines)


def _rows(model: Trained) -> str:
    names = model.class_names or [str(label) for label in range(len(model.counts))]
    order = sorted(range(len(model.counts)), key=lambda label: -int(model.counts[label]))
    left = len(order) - LISTED
    if left > 0:
        order = [*order[: LISTED // 2], *order[-LISTED // 2 :]]
    lines = [f"| {_plain(str(names[label]))} | {int(model.counts[label]):,} |" for label in order]
    text = "\n".join(["| class | training rows |", "|---|---|", *lines])
    if left > 0:
        text += f"\n\nThe largest and the smallest classes; {left:,} between them are left out."
    groups = ShotGroups().masks(model.counts)
    shares = ", ".join(f"{int(groups[group].sum()):,} {group}" for group in GROUPS)
    return f"{text}\n\nClasses by training rows (more than 100, 20 to 100, fewer): {shares}."


def _settings(model: Trained) -> str:
    usual = model.config.usual(int(model.counts.sum()), model.transform.dim)
    lines = [
        f"| `{name}` | `{json.dumps(value)}` | {'yes' if value == usual[name] else 'no'} |"
        for name, value in model.config.to_dict().items()
    ]
    lines.append(f"| `seed` | `{model.seed}` | {'yes' if model.seed == 0 else 'no'} |")
    text = "\n".join(["| setting | value | default |", "|---|---|---|", *lines])
    if model.trained:
        how = ", ".join(
            f"{_plain(str(key))} {_plain(str(value))}" for key, value in sorted(model.trained.items())
        )
        text += f"\n\nTrained by: {how}."
    return text


def _learned(model: Trained) -> str:
    found = model.held_out.document
    ratio = found.get("loss_over_gaussian")
    if ratio is None:
        return "No rows were held out, so it is not known whether it knows more than a Gaussian per class."
    lines = [
        f"The loss on {found.get('rows', 0):,} held-out training rows is {ratio:.3f} times that of a "
        "Gaussian per class; at 1 the model knows nothing beyond it."
    ]
    groups = {name: value for name, value in found.get("groups", {}).items() if value is not None}
    if groups:
        lines.append(
            "By shot group: " + ", ".join(f"{name} {value:.3f}" for name, value in groups.items()) + "."
        )
    lines.append(
        "This says nothing of the accuracy of a classifier: compare with and without generated rows."
    )
    return "\n".join(lines)


def _limits(model: Trained) -> str:
    fewest = int(model.counts[model.counts > 0].min())
    lines = [
        "- It fits features of the same encoder alone: same weights, same preprocessing.",
        "- Rows are drawn from what the training rows show; a class is not known better than its rows tell. "
        f"The smallest class has {fewest:,}.",
        "- Biases of the data and of the encoder are in the drawn rows.",
        "- Features can tell of the images they come from, and drawn rows of the training rows: treat the "
        "model as you treat the data.",
    ]
    return "\n".join(lines)


def _licence(license: str | None) -> str:
    if license is None:
        return "Whoever trained the model stated no licence; terms of the data and of the encoder apply."
    return f"`{license}`, as stated by whoever trained the model; terms of data and encoder apply too."


def _plain(text: str) -> str:
    """Return a text of others as one line that is no markup."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", line)[:300]
