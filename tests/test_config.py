"""Configurations: one source for options, keys, checks and hashes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.config import Config, config_hash, option, read_toml
from ldmlr.errors import InputError, UsageError


@dataclasses.dataclass(frozen=True)
class Example(Config):
    """A configuration with one field of every kind."""

    width: int = option(128, "Width.", minimum=1, maximum=4096)
    rate: float = option(1e-3, "Rate.", above=0)
    solver: str = option("ddim", "Solver.", choices=("ddim", "ddpm"))
    ema: bool = option(True, "EMA.")
    milestones: tuple[int, ...] = option((), "Milestones.", minimum=1)
    target: int | None = option(None, "Target.", minimum=0)


@given(st.integers(1, 4096), st.floats(1e-6, 1e3), st.sampled_from(["ddim", "ddpm"]), st.booleans())
def test_values_survive_the_round_trip(width, rate, solver, ema):
    config = Example(width=width, rate=rate, solver=solver, ema=ema, milestones=(1, 2))
    again = Example.from_mapping(config.to_dict())
    assert again == config
    assert config_hash(again) == config_hash(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wdith": 3}, "unknown key 'wdith'; did you mean 'width'?"),
        ({"width": 0}, "--width: must be at least 1, not 0"),
        ({"width": 5000}, "--width: must be at most 4096, not 5000"),
        ({"width": 2.5}, "--width: expected a whole number, not 2.5"),
        ({"width": True}, "--width: expected a whole number, not True"),
        ({"rate": 0.0}, "--rate: must be above 0, not 0.0"),
        ({"rate": float("nan")}, "--rate: expected a finite number, not nan"),
        ({"rate": "fast"}, "--rate: expected a number, not 'fast'"),
        ({"solver": "dimm"}, "--solver: unknown value 'dimm'; did you mean 'ddim'?"),
        ({"ema": 1}, "--ema: expected true or false, not 1"),
        ({"milestones": [1, "x"]}, "--milestones: expected a whole number, not 'x'"),
        ({"milestones": [3, 0]}, "--milestones: must be at least 1, not 0"),
        ({"milestones": "10,x"}, "--milestones: expected a whole number, not 'x'"),
        ({"milestones": -3}, "--milestones: must be at least 1, not -3"),
        ({"milestones": [2**50]}, "--milestones: must be at most 1099511627776, not 1125899906842624"),
        ({"target": -1}, "--target: must be at least 0, not -1"),
        ({"target": 2**40 + 1}, "--target: must be at most 1099511627776, not 1099511627777"),
    ],
)
def test_a_wrong_value_is_one_clear_line(values, message):
    with pytest.raises(UsageError) as caught:
        Example.from_mapping(values, "run.toml: [diffuse]")
    assert caught.value.on_command_line() == f"run.toml: [diffuse]: {message}"


def test_hyphens_and_whole_floats_are_accepted():
    assert Example.from_mapping({"width": 64.0, "rate": 1}).width == 64
    assert Example(milestones=3).milestones == (3,)
    assert Example(target=None).target is None


def test_the_hash_tells_settings_apart():
    assert config_hash(Example()) != config_hash(Example(width=64))
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})


def test_toml_errors_name_the_file(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(InputError, match=r"run\.toml: no such TOML file"):
        read_toml(path)
    path.write_text("seeds = = 3\n")
    with pytest.raises(UsageError, match=r"run\.toml: not a TOML file \(.*line 1"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"run\.toml: not a TOML file"):
        read_toml(path)
    with pytest.raises(InputError, match="is a folder where a TOML file is expected"):
        read_toml(tmp_path)


def test_a_list_may_be_written_as_text_with_commas():
    assert Example(milestones="10, 20,30").milestones == (10, 20, 30)
    assert Example(milestones="10").milestones == (10,)
    assert Example(milestones="").milestones == ()
    with pytest.raises(UsageError, match="expected a whole number, not ''"):
        Example(milestones="10,")
