"""Progress: lines in a log, bars on a terminal, nothing where that is asked for."""

from __future__ import annotations

import io
import sys

import pytest

from ldmlr import progress


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def loud():
    progress.quiet(False)
    progress.silence(False)
    yield
    progress.quiet(False)
    progress.silence(False)


def test_a_log_gets_a_line_after_ten_seconds_and_then_every_minute(clock, capsys):
    with progress.bar(4000, "diffuse", "step", initial=1000) as bar:
        for _ in range(300):
            clock.now += 0.5
            bar.update(5)
            bar.set_postfix(loss="0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "diffuse: 1,100 of 4,000 steps, loss=0.5, 10 a second, 04:50 left",
        "diffuse: 1,700 of 4,000 steps, loss=0.5, 10 a second, 03:50 left",
        "diffuse: 2,300 of 4,000 steps, loss=0.5, 10 a second, 02:50 left",
    ]


def test_what_is_done_soon_prints_nothing(clock, capsys):
    for _ in progress.track(range(100), "listing", unit="rows"):
        clock.now += 0.09
    assert capsys.readouterr().err == ""


def test_a_word_stands_in_the_line(clock, capsys):
    with progress.bar(10, "compare", "arm") as bar:
        bar.set_postfix_str("smote")
        clock.now += 20
        bar.update(0)
    assert capsys.readouterr().err == "compare: 0 of 10 arms, smote, 0 a second\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_is_quiet_everywhere(clock, monkeypatch, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    progress.quiet()
    for _ in progress.track(range(100), "listing"):
        clock.now += 10
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_unless_programs_read(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar(10, "diffuse") as bar:
        assert not bar.disable
        bar.start_t -= 10  # as if two seconds had passed
        bar.refresh()
    assert "diffuse" in stream.getvalue()
    progress.silence()
    assert progress.bar(10, "diffuse").disable


def test_the_command_line_can_switch_it_off(run_cli):
    assert run_cli("info", "--quiet").returncode == 0
    assert progress._quiet
    assert run_cli("info").returncode == 0
    assert not progress._quiet
