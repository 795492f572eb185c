"""How a command writes the options in a message, so that they can be typed as they stand."""

from __future__ import annotations

import pytest
from ldmlr_cli.main import cli
from ldmlr_cli.spelling import spelling_of

from ldmlr.errors import UsageError, opt


@pytest.mark.parametrize(
    ("command", "option", "said"),
    [
        ("generate", opt("strategy", "ratio"), "--strategy ratio"),
        ("run", opt("strategy", "ratio"), "--set generate.strategy=ratio"),
        ("run", opt("weak_views"), "--set diffuse.weak_views"),
        ("compare", opt("label_dropout", 0), "--set diffuse.label_dropout=0"),
        ("run", opt("skip_bad", False), "--no-skip-bad"),
        ("run", opt("image_size", 64), "--image-size 64"),
        # Several stages have it: which one is meant is for the reader to say.
        ("run", opt("batch_size"), "--set STAGE.batch_size"),
        ("run", opt("nothing_of_the_kind"), "--nothing-of-the-kind"),
    ],
)
def test_an_option_is_written_as_the_command_takes_it(command, option, said):
    spelling = spelling_of(cli.get_command(None, command))
    assert UsageError(f"use {option}").spelled(spelling) == f"use {said}"


def test_a_run_names_the_options_of_its_stages(run_cli, tmp_path):
    done = run_cli("run", "digits-lt", "--set", "generate.gate=heads", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --set: [generate]: gate: unknown value 'heads'")
