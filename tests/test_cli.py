"""The command as a whole: start-up, help and wrong use."""

from __future__ import annotations

import subprocess
import sys


def test_help_lists_every_command_and_needs_no_torch():
    code = (
        "import sys; from ldmlr_cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='ldmlr')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'h5py' not in sys.modules, 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Stage 1" in done.stdout
    assert "Stage 3" in done.stdout


def test_unknown_command_names_the_nearest(run_cli):
    outcome = run_cli("difuse")
    assert outcome.returncode == 2
    assert "did you mean 'diffuse'?" in outcome.stderr
    assert "Traceback" not in outcome.stderr
