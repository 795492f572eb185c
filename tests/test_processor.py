"""ldmlr.processor: what ``auto`` multiplies in, on processors that are not at hand too."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from ldmlr import isa as cpu
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.isa import InstructionSet
from ldmlr.processor import Processor, number_type, this_processor
from ldmlr.sampler.cpu.sampler import NativeSampler

PLAIN = InstructionSet("avx512vnni", True, False, True)
PAIRS = InstructionSet("avx512bf16", True, True, True)
TILES = InstructionSet("amx", True, True, True)
EMERALD = Processor("GenuineIntel", 6, 0xCF)
ZEN4, ZEN5 = Processor("AuthenticAMD", 0x19, 0x11), Processor("AuthenticAMD", 0x1A, 2)


@pytest.mark.parametrize(
    ("chosen", "processor", "name", "word"),
    [
        (PAIRS, EMERALD, "float32", "Emerald Rapids"),  # its AMX hidden by a hypervisor
        (TILES, EMERALD, "bfloat16", "tile unit"),
        (PAIRS, Processor("GenuineIntel", 6, 0x8F), "float32", "Sapphire Rapids"),
        (PAIRS, Processor("GenuineIntel", 6, 0x55), "float32", "Cooper Lake"),
        (PAIRS, ZEN4, "bfloat16", "Zen 4"),
        (PAIRS, ZEN5, "bfloat16", "Zen 5"),
        (PLAIN, ZEN5, "float32", "avx512vnni has no bfloat16"),
        (PAIRS, Processor("GenuineIntel", 6, 0xFF), "float32", "not known"),
        (PAIRS, Processor(), "float32", "not known"),
    ],
)
def test_the_type_that_auto_means(chosen: InstructionSet, processor: Processor, name: str, word: str) -> None:
    found = number_type(chosen, processor)
    assert found.name == name
    assert word in found.reason


def test_the_processor_at_hand_is_the_one_that_the_system_names() -> None:
    found = this_processor()
    path = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not path.exists():
        pytest.skip("the system does not tell")
    lines = [line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line]
    named = {key.strip(): value.strip() for key, value in lines}
    assert found == Processor(named["vendor_id"], int(named["cpu family"]), int(named["model"]))


def test_samplers_and_info_follow_the_rule(run_cli) -> None:
    rule = number_type(cpu.choose())
    spec = random_spec(8, 16)
    labels = random_labels(spec, 40)
    sampler, named = NativeSampler(spec), NativeSampler(spec, weights=rule.name)
    assert sampler.weights == rule.name
    assert np.array_equal(sampler(labels), named(labels))
    assert json.loads(run_cli("info", "--json").stdout)["weights"] == {
        "auto": rule.name, "reason": rule.reason,
    }  # fmt: skip
    assert rule.reason in run_cli("info").stdout
