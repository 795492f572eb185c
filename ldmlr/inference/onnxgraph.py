"""The ONNX graph of a head, node by node: features ``[n, D]`` in, logits and probabilities ``[n, C]`` out.

Built with the `onnx` package alone, so that the file has the operators of the formula and nothing of a
tracer. Needs ``ldmlr[onnx]``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ldmlr.errors import LdmlrError, UsageError
from ldmlr.heads.headfile import ShiftedHead
from ldmlr.heads.modules import AngularHead, CosineHead, LinearHead, MLPHead, WCDASHead
from ldmlr.inference.chosen import Chosen

# Old enough for every runtime of the last years, new enough for the operators used here.
OPSET = 17
# What F.normalize divides by at least.
EPSILON = 1e-12


def onnx_module() -> Any:
    """Return the package, or raise an error that says how to install it."""
    try:
        import onnx
    except ImportError:
        raise LdmlrError(
            "ONNX files need the package onnx, which is not installed; run pip install 'ldmlr[onnx]'"
        ) from None
    return onnx


class Graph:
    """Nodes and constants of a graph that is being built."""

    def __init__(self) -> None:
        self.helper = onnx_module().helper
        self.numpy_helper = onnx_module().numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: npt.ArrayLike | torch.Tensor) -> str:
        """Add a float32 constant and return its name."""
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu().numpy()
        name = f"c{len(self.constants)}"
        self.constants.append(self.numpy_helper.from_array(np.array(values, np.float32), name))
        return name

    def add(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = name or f"n{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def head(self, head: torch.nn.Module, x: str) -> str:
        """Add a head and return its logits."""
        if isinstance(head, ShiftedHead):
            old = self.add("Mul", self.head(head.baseline, x), self.constant(head.average))
            new = self.add("Mul", self.head(head.head, x), self.constant(1 - head.average))
            return self.add("Sub", self.add("Add", old, new), self.constant(head.offset))
        if isinstance(head, LinearHead):
            return self._linear(x, head.weight, head.bias)
        if isinstance(head, MLPHead):
            hidden = self._linear(x, head.hidden_weight, head.hidden_bias)
            erf = self.add("Erf", self.add("Mul", hidden, self.constant(2**-0.5)))
            gate = self.add("Mul", self.add("Add", erf, self.constant(1.0)), self.constant(0.5))
            return self._linear(self.add("Mul", hidden, gate), head.weight, head.bias)
        if isinstance(head, CosineHead):
            return self.add("Mul", self._cosine(head, x), self.constant(head.scale))
        if isinstance(head, WCDASHead):
            g, opposite = torch.sigmoid(head.concentration), torch.sigmoid(-head.concentration)
            s = (F.softplus(head.scale) + 1) / (2 * np.pi)
            away = self.add("Sub", self.constant(1.0), self._cosine(head, x))
            distance = self.add("Max", away, self.constant(0.0))
            below = self.add(
                "Add", self.add("Mul", distance, self.constant(2 * g)), self.constant(opposite.square())
            )
            return self.add("Div", self.constant(s * opposite * (1 + g)), below)
        raise UsageError(f"a head of kind {getattr(head, 'kind', type(head).__name__)!r} has no ONNX form")

    def _linear(self, x: str, weight: torch.Tensor, bias: torch.Tensor | None) -> str:
        parts = [self.constant(weight), *([] if bias is None else [self.constant(bias)])]
        return self.add("Gemm", x, *parts, transB=1)

    def _cosine(self, head: AngularHead, x: str) -> str:
        length = self.add("ReduceL2", x, axes=[1], keepdims=1)
        unit = self.add("Div", x, self.add("Max", length, self.constant(EPSILON)))
        return self._linear(unit, F.normalize(head.get_parameter("weight"), dim=1), None)


def head_graph(chosen: Chosen) -> bytes:
    """Return the file of a head: input ``features``, outputs ``logits`` and ``probabilities``.

    The names of the classes are the entry ``class_names`` of its metadata, a JSON list.
    """
    onnx = onnx_module()
    graph, helper = Graph(), onnx.helper
    with torch.no_grad():
        logits = graph.head(chosen.head.cpu(), "features")
    graph.add("Identity", logits, name="logits")
    scaled = graph.add("Div", logits, graph.constant(chosen.temperature))
    graph.add("Softmax", scaled, name="probabilities", axis=1)
    kind, classes = onnx.TensorProto.FLOAT, len(chosen.class_names)
    given = helper.make_tensor_value_info("features", kind, ["n", chosen.dim])
    told = [helper.make_tensor_value_info(name, kind, ["n", classes]) for name in ("logits", "probabilities")]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "head", [given], told, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ldmlr", ir_version=8,
    )  # fmt: skip
    described(model, chosen)
    onnx.checker.check_model(model, full_check=True)
    found: bytes = model.SerializeToString()
    return found


def described(model: Any, chosen: Chosen) -> None:
    """Write the names of the classes and what the head is into the metadata of a model."""
    onnx_module().helper.set_model_props(
        model,
        {"class_names": json.dumps(list(chosen.class_names)), "method": chosen.method,
         "adjustment": chosen.adjustment},
    )  # fmt: skip
