"""Configuration of stage 3; imports no torch, so that the command line answers at once."""

from __future__ import annotations

HEADS = ("linear", "cosine", "wcdas")
LOSSES = ("cross-entropy", "balanced-softmax", "logit-adjustment")
