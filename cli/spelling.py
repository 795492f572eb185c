"""How a command writes the options in a message: its own with dashes, those of its stages by ``--set``."""

from __future__ import annotations

import click

from ldmlr.errors import Spelling, with_dashes


def spelling_of(command: click.Command) -> Spelling:
    """Return how the options of a command are written.

    ``ldmlr run`` does the work of several stages, and a stage knows nothing of it: where it asks for
    ``--strategy ratio``, this command has to be told ``--set generate.strategy=ratio``.
    """
    own = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}

    def written(name: str, value: str | None) -> str:
        plain = with_dashes(name, value)
        if "--set" not in own or plain.split(" ")[0] in own:
            return plain
        from ldmlr.run.config import STAGES

        stages = [stage for stage, config in STAGES.items() if name in config.names()]
        if not stages:
            return plain
        place = f"--set {stages[0] if len(stages) == 1 else 'STAGE'}.{name}"
        return place if value is None else f"{place}={_toml(value)}"

    return written


def _toml(value: str) -> str:
    return {"True": "true", "False": "false"}.get(value, value.strip("'"))
