"""Gradients of a training step from a CUDA graph: some thousand launches become one.

A step of ResNet-32 on small images is about two thousand kernels of a few microseconds, and a processor needs
longer to launch them than the GPU to run them. A graph is captured for every shape of the input, after a few
steps without one, in which libraries choose their algorithms and allocate what they keep. Steps with a graph
do the same arithmetic as those without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ldmlr.encoders.augment.mixing import Mixed

Outcome = tuple[torch.Tensor, torch.Tensor]
# (mixed views, share of the side) -> (loss, hits); leaves the gradients in the parameters.
Work = Callable[[Sequence[Mixed], float], Outcome]

# Steps of a shape before its graph is captured.
WARM_UP = 3


class Graphed:
    """Does the work of a step, from the fourth step of a shape on by a graph.

    Parameters
    ----------
    work
        Computes gradients; everything it does must be on the device, and the same for equal shapes and
        shares. What changes from epoch to epoch it reads from the device.
    parameters
        Those that get gradients.
    """

    def __init__(self, work: Work, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.work, self.parameters = work, parameters
        device = parameters[0].device
        # Streams and captures are those of the current device, which need not be the one trained on.
        self.index = device.index if device.type == "cuda" else -1
        self.seen: dict[Any, int] = {}
        self.graphs: dict[Any, Replay] = {}

    def __call__(self, mixed: Sequence[Mixed], share: float) -> Outcome:
        """Return loss and hits, which the next call overwrites."""
        with torch.cuda.device(self.index):
            return self._outcome(mixed, share)

    def _outcome(self, mixed: Sequence[Mixed], share: float) -> Outcome:
        key = (share, *(tuple(images.shape) for images, _ in mixed))
        if key not in self.graphs:
            self.seen[key] = self.seen.get(key, 0) + 1
            if self.seen[key] <= WARM_UP:
                return self._beside(mixed, share)
            # Sizes only grow: the graphs of smaller images, and their memory, are not needed any more.
            self.graphs = {kept: graph for kept, graph in self.graphs.items() if kept[0] == share}
            self.graphs[key] = Replay(self.work, mixed, share, self.parameters)
        return self.graphs[key](mixed)

    def _beside(self, mixed: Sequence[Mixed], share: float) -> Outcome:
        """Work on a stream of its own, as a capture will."""
        main = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outcome = self.work(mixed, share)
        main.wait_stream(side)
        for tensor in (*outcome, *(p.grad for p in self.parameters if p.grad is not None)):
            tensor.record_stream(main)
        return outcome


class Replay:
    """The captured work of one shape: inputs at fixed places, outcome and gradients too."""

    def __init__(
        self,
        work: Work,
        mixed: Sequence[Mixed],
        share: float,
        parameters: Sequence[torch.nn.Parameter],
    ) -> None:
        self.parameters = parameters
        self.inputs = [(images.clone(), targets.clone()) for images, targets in mixed]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outcome = work(self.inputs, share)
        self.gradients = [parameter.grad for parameter in parameters]

    def __call__(self, mixed: Sequence[Mixed]) -> Outcome:
        """Copy the inputs to where the graph reads them, run it, and hand out its gradients."""
        for kept, given in zip(self.inputs, mixed, strict=True):
            for to, tensor in zip(kept, given, strict=True):
                to.copy_(tensor)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.outcome
