"""A head in the forms of other programs, alone or behind the encoder of its run.

=========== ==================================================================================================
``onnx``    ``features [n, D]`` to ``logits`` and ``probabilities [n, C]``; with the encoder ``images``
``torch``   a program of `torch.export` (``.pt2``) with the same inputs and outputs; no code is in it
``sklearn`` a fitted `LogisticRegression` (behind a `Normalizer` for a cosine head), pickled by joblib
``npz``     the arrays of the head, and the formula they belong into as a text
=========== ==================================================================================================

Images are ``[n, 3, H, W]`` float32 pixels 0 .. 255 of the size that the encoder was trained on; normalising
them is part of the file.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.model import Baseline
from ldmlr.errors import LdmlrError, UsageError, nearest, opt
from ldmlr.files import check_output, write_bytes
from ldmlr.heads.headfile import ShiftedHead
from ldmlr.heads.modules import CosineHead, Head, LinearHead, to_stored
from ldmlr.inference.chosen import Chosen
from ldmlr.inference.onnxgraph import described, head_graph, onnx_module

FORMULAS = {
    "linear": "logits = x @ weight.T + bias",
    "cosine": "logits = scale * (x / |x|) @ (weight / |weight| row by row).T",
    "wcdas": "g = sigmoid(concentration); s = log(1 + exp(scale)) + 1; c = cosine of x and weight; "
    "logits = s / (2 pi) * (1 - g^2) / (1 + g^2 - 2 g c)",
    "mlp": "h = x @ hidden_weight.T + hidden_bias; logits = (h * Phi(h)) @ weight.T + bias, "
    "Phi the normal distribution function",
}


class Whole(nn.Module):
    """Images or features to logits and probabilities: what is exported.

    Parameters
    ----------
    head
        Of the run.
    temperature
        What logits are divided by before they become probabilities.
    baseline
        The encoder before it, or None.
    mirror
        Average the features of each image with those of its mirror image.
    """

    def __init__(
        self, head: nn.Module, temperature: float, baseline: Baseline | None = None, mirror: bool = False
    ) -> None:
        super().__init__()
        self.head, self.temperature, self.mirror = head, temperature, mirror
        self.network = None if baseline is None else baseline.network
        self.normalise = None if baseline is None else Normalise(baseline.mean, baseline.std)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and probabilities ``[n, C]``."""
        if self.network is not None and self.normalise is not None:
            images = self.normalise(x)
            x = self.network(images).float()
            if self.mirror:
                x = (x + self.network(images.flip(3)).float()) / 2
        logits = self.head(x)
        return logits, torch.softmax(logits / self.temperature, dim=1)


def export(
    chosen: Chosen, form: str, out: Path, *, with_encoder: bool = False, overwrite: bool = False
) -> None:
    """Write a head in the form of another program, whole or not at all.

    Parameters
    ----------
    chosen
        The head.
    form
        A key of `FORMS`.
    out
        The file to write.
    with_encoder
        Put the encoder that the run trained before the head.
    overwrite
        Replace a file that exists.

    Raises
    ------
    UsageError
        An unknown form, one that this head or an encoder does not have, or a run without encoder.
    LdmlrError
        The package of the form is not installed.
    """
    if form not in FORMS:
        raise UsageError(f"{opt('format')}: unknown value {form!r}; {nearest(form, FORMS)}")
    if with_encoder and form not in ("onnx", "torch"):
        raise UsageError(
            f"{opt('with_encoder', True)}: {form} files hold the head alone; choose onnx or torch"
        )
    if with_encoder and chosen.encoder is None:
        raise UsageError(
            f"{opt('with_encoder', True)}: {chosen.path} has no encoder; name the folder of a run that "
            "started from images, or leave it out"
        )
    check_output(out, overwrite)
    chosen.head.cpu().eval()
    write_bytes(out, FORMS[form](chosen, with_encoder), overwrite)


def _whole(chosen: Chosen, with_encoder: bool) -> tuple[nn.Module, torch.Tensor, str]:
    """Return what is exported, an input of two rows, and the name of the input."""
    if not with_encoder:
        return Whole(chosen.head, chosen.temperature).eval(), torch.randn(2, chosen.dim), "features"
    assert chosen.encoder is not None
    baseline = Baseline.load(chosen.encoder, (None,))
    height, width, channels = baseline.shape
    mirror = bool(chosen.encoding.get("mirror"))
    whole = Whole(chosen.head, chosen.temperature, baseline, mirror).eval()
    return whole, torch.rand(2, channels, height, width) * 255, "images"


def _torch(chosen: Chosen, with_encoder: bool) -> bytes:
    whole, example, _ = _whole(chosen, with_encoder)
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own modules
        program = torch.export.export(whole, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
        # The names of the classes travel beside the program.
        torch.export.save(program, target, extra_files={"class_names.txt": "\n".join(chosen.class_names)})
    return target.getvalue()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence a logger: PyTorch warns of packages that this network does without."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _onnx(chosen: Chosen, with_encoder: bool) -> bytes:
    onnx = onnx_module()
    if not with_encoder:
        return head_graph(chosen)
    whole, example, name = _whole(chosen, with_encoder)
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole, (example,), input_names=[name], output_names=["logits", "probabilities"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},), dynamo=True, verbose=False,
            )  # fmt: skip
    except ImportError as error:
        raise LdmlrError(
            f"ONNX files with the encoder need more ({error}); run pip install 'ldmlr[onnx]'"
        ) from None
    assert program is not None
    model = program.model_proto
    described(model, chosen)
    onnx.checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found


def _npz(chosen: Chosen, with_encoder: bool) -> bytes:
    head = chosen.head
    arrays: dict[str, npt.NDArray[Any]] = {}
    if isinstance(head, ShiftedHead):
        formula = "logits = average * baseline(x) + (1 - average) * head(x) - offset"
        for name, part in (("baseline", head.baseline), ("head", head.head)):
            formula += f"; {name}: {FORMULAS[part.kind]}"
            arrays |= {f"{name}_{key}": value for key, value in _arrays(part).items()}
        arrays |= {"average": np.array(head.average, np.float32), "offset": head.offset.numpy()}
    else:
        formula = FORMULAS[head.kind]
        arrays |= _arrays(head)
    arrays |= {
        "kind": np.array(head.kind), "classes": np.array(chosen.class_names, dtype=str),
        "temperature": np.array(chosen.temperature, np.float32),
        "formula": np.array(f"{formula}; probabilities = softmax(logits / temperature)"),
    }  # fmt: skip
    target = io.BytesIO()
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def _arrays(head: Head) -> dict[str, npt.NDArray[Any]]:
    stored = to_stored(head)
    bias = stored.bias
    if bias is None and head.kind in ("linear", "mlp"):
        bias = np.zeros(len(stored.weight), np.float32)
    extra = {name: value for name, value in stored.extra.items() if name != "learn_scale"}
    return {"weight": stored.weight, **({} if bias is None else {"bias": bias}), **extra}


def _sklearn(chosen: Chosen, with_encoder: bool) -> bytes:
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    head = chosen.head
    if isinstance(head, CosineHead):
        unit = torch.nn.functional.normalize(head.weight, dim=1)
        weight, bias = (head.scale * unit).detach().numpy(), np.zeros(head.num_classes)
    elif isinstance(head, LinearHead):
        weight = head.weight.detach().numpy()
        bias = np.zeros(head.num_classes) if head.bias is None else head.bias.detach().numpy()
    else:
        raise UsageError(
            f"{opt('format', 'sklearn')}: has no classifier like a {head.kind} head; "
            "choose onnx, torch or npz"
        )
    weight, bias = (
        weight.astype(np.float64) / chosen.temperature,
        bias.astype(np.float64) / chosen.temperature,
    )
    if len(weight) == 2:  # scikit-learn keeps the difference of two classes
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    names = np.array(chosen.class_names, dtype=str)
    model = LogisticRegression()
    model.classes_ = names if chosen.named else np.arange(len(names))
    model.coef_, model.intercept_ = weight, bias
    model.n_features_in_, model.n_iter_ = chosen.dim, np.zeros(1, np.int32)
    fitted = model
    if isinstance(head, CosineHead):
        fitted = make_pipeline(Normalizer().fit(np.zeros((1, chosen.dim))), model)
    target = io.BytesIO()
    joblib.dump(fitted, target)
    return target.getvalue()


FORMS: dict[str, Callable[[Chosen, bool], bytes]] = {
    "onnx": _onnx, "torch": _torch, "sklearn": _sklearn, "npz": _npz
}  # fmt: skip
