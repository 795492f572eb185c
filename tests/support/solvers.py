"""Every solver with a prediction of every kind, for the tests of each backend."""

from __future__ import annotations

# (solver, eta, prediction)
SOLVERS = [
    ("ddim", 0.0, "x0"),
    ("ddim", 0.5, "v"),
    ("ddpm", 0.0, "eps"),
    ("dpmpp2m", 0.0, "v"),
    ("heun", 0.0, "v"),
]
