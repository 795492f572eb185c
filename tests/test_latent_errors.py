"""What ldmlr.generation.latent refuses: rows, what comes with them, options, labels to draw."""

from __future__ import annotations

import numpy as np
import pytest
from support.blobs import SMALL, blobs

import ldmlr
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError, LdmlrError, UsageError


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "expected rows and columns"),
        (np.zeros(5), np.zeros(5, int), r"expected rows and columns \[N, D\], not shape \[5\]"),
        (np.full((3, 2), np.nan), np.zeros(3, int), "row 0, column 0 is nan, expected a finite"),
        (np.array([[1, 2], [3, np.inf]]), np.zeros(2, int), "row 1, column 1 is inf, expected a finite"),
        (np.array([[1, 2], [3, -1e39]]), np.zeros(2, int), "column 1 is -1e.39, expected a finite float32"),
        (np.array([[np.inf]], np.float16), np.zeros(1, int), "row 0, column 0 is inf, expected a finite"),
        (np.zeros((3, 2)), np.array([0, 1, 10**9]), "label 1000000000 in row 2 stands for 1,000,000,001"),
        (np.array([["a", "b"]]), np.zeros(1, int), "expected numbers"),
        (np.eye(3), np.zeros(2, int), "labels: expected 3, one per row"),
        (np.eye(3), np.array([0.0, 1.0, 1.0]), "expected whole numbers"),
        (np.eye(3), np.array([0, -1, 1]), "found -1"),
        (np.eye(4), np.array([0, 0, 2, 2]), "class 1 has no training row"),
        (np.eye(3), np.arange(3), "no class has two different rows"),
    ],
)
def test_rows_that_cannot_be_trained_on(features, labels, message):
    with pytest.raises(InputError, match=message):
        ldmlr.LatentDiffusion(**SMALL).fit(features, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": np.zeros((1, 3, 4))}, r"views\[0\]: expected shape \[93, 4\]"),
        ({"views": [np.full((93, 4), np.nan)]}, r"views\[0\]: row 0"),
        ({"class_names": ("a",)}, "class_names: expected 3"),
        ({"counts": [1, 2]}, "counts: expected 3"),
        ({"num_classes": 2}, "found 2, expected 0 .. 1"),
    ],
)
def test_what_comes_with_the_rows_must_fit(options, message):
    with pytest.raises(InputError, match=message):
        ldmlr.LatentDiffusion(**SMALL).fit(*blobs(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden": 3}, "did you mean 'hidden'"),
        ({"hidden": 0}, "hidden: must be at least 1"),
        ({"network": "unet"}, "network: unknown value"),
        ({"ema": 1.0}, "ema: must be below 1"),
        ({"seed": -1}, "seed"),
        ({"config": DiffusionConfig(), "hidden": 3}, "not both"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError, match=message):
        ldmlr.LatentDiffusion(**options)


def test_a_model_must_be_trained_first():
    with pytest.raises(UsageError, match="not trained"):
        ldmlr.LatentDiffusion().sample([0])


def test_a_loss_that_is_not_finite_ends_the_training():
    features, labels = blobs()
    with pytest.raises(LdmlrError, match="loss is not finite at step"):
        ldmlr.LatentDiffusion(**SMALL, lr=1e30).fit(features, labels)


@pytest.fixture(scope="module")
def model():
    return ldmlr.LatentDiffusion(**SMALL).fit(*blobs())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [0, 3]}, r"labels: row 1 is 3, outside 0 \.\. 2"),
        ({"labels": [-1]}, "row 0 is -1"),
        ({"labels": [0.5]}, "expected whole numbers"),
        ({"labels": [[0]]}, "expected one dimension"),
        ({"first_row": -1}, "first_row"),
        ({"first_row": 2**64 - 1}, "first_row"),
        ({"dtype": "float8"}, "dtype: unknown value"),
        ({"backend": "nativ"}, "did you mean 'native'"),
        ({"device": "gpu"}, "device: unknown value"),
        ({"solver": "euler"}, "solver: unknown value"),
        ({"steps": 0}, "steps"),
        ({"eta": 0.5}, "only ddim has it"),
        ({"seed": -1}, "seed"),
        ({"scale": 0.0}, "scale: must be above 0"),
    ],
)
def test_wrong_requests_are_named(model, arguments, message):
    with pytest.raises(UsageError, match=message):
        model.sample(**{"labels": [0, 1], **arguments})
