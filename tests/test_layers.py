"""The layers of the package: files import downwards only, and never in a circle.

Read from the source by `ast`, so imports inside functions and for types alone count like all others.
"""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the lowest to the highest; a name is a file or a folder of ldmlr/. CONTRIBUTING.md says what they are.
# Files of one layer may import each other.
LAYERS = (
    "errors progress files floats ownership invocation boundary isolated config device isa processor "
    "groups classes results arguments text ranks learning_rate modelfile otherfile runfolder tensorfile "
    "torch_defaults cuda_device pids connection objects streamed remote spool lease",
    "store",
    "data",
    "metrics",
    "heads",
    "encoders",
    "diffusion",
    "sampler",
    "generation",
    "select",
    "run engines",
    "inference",
    "experiments",
    "report",
    "bench hub ops torch",
    "__init__",  # the facade, whose imports are lazy
    "ldmlr_cli",  # the folder cli/
    "__main__",  # `python -m ldmlr`
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}


def modules():
    """Return the file of every module, cli/ as the package `ldmlr_cli` that it is installed as."""
    found = {}
    for folder, package in (("ldmlr", "ldmlr"), ("cli", "ldmlr_cli")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer(module):
    """Return the name of the layer's file or folder that a module is (in)."""
    package, *inside = module.split(".")
    if package == "ldmlr_cli":
        return package
    return inside[0] if inside else "__init__"


def imported(name):
    """Return the module of ours that a dotted name stands for or is in, or None."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def imports(source, package="ldmlr"):
    """Return the modules of ours that a source text in a package imports, wherever it does so."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{start}.{alias.name}" for alias in node.names}
    # The compiled extension is no file of ours.
    return {imported(name) for name in names - {"ldmlr._native"}} - {None}


def package_of(module):
    """Return the package that a module's dots count from."""
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


GRAPH = {
    module: imports(path.read_text(encoding="utf-8"), package_of(module)) - {module}
    for module, path in MODULES.items()
}


def test_imports_are_read_wherever_they_stand():
    source = """
from __future__ import annotations
import numpy, ldmlr.files
from ldmlr import _native, config
from ldmlr.errors import InputError
if TYPE_CHECKING:
    from ldmlr.store import FeatureStore, split
def f():
    from ldmlr import __version__
    from . import solvers
    from ..heads.config import HEADS
"""
    assert imports(source, "ldmlr.diffusion") == {
        "ldmlr", "ldmlr.config", "ldmlr.errors", "ldmlr.files", "ldmlr.store", "ldmlr.store.split",
        "ldmlr.diffusion.solvers", "ldmlr.heads.config",
    }  # fmt: skip


def test_every_file_belongs_to_a_layer():
    assert {layer(module) for module in MODULES} - LEVEL.keys() == set()
    assert LEVEL.keys() - {layer(module) for module in MODULES} == set()


def test_no_file_imports_from_a_higher_layer():
    upward = [
        f"{module} -> {other}"
        for module, others in GRAPH.items()
        if module != "ldmlr"
        for other in sorted(others)
        if LEVEL[layer(other)] > LEVEL[layer(module)]
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle():
    # All that the facade imports, it imports when it is asked for.
    graph = {module: others for module, others in GRAPH.items() if module != "ldmlr"}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
