"""``ldmlr report``: a self-contained HTML page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.report.config import ReportConfig

from .config_file import config_option
from .fields import config_options, pick
from .location import Location
from .options import emit, json_option, out_option, overwrite_option, say, threads_option


@click.command(name="report")
@click.argument("run", type=Location())
@out_option("The HTML file.  [default: report.html in the folder of the run]", required=False)
@click.option(
    "--pictures",
    type=Location(),
    metavar="DIR",
    help="Also write each picture into this folder: as SVG, PDF and PNG, for light and for dark.",
)
@config_options(ReportConfig)
@threads_option
@overwrite_option
@json_option
@config_option
def command(
    run: Path,
    out: Path | None,
    pictures: Path | None,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """A self-contained HTML page of a run: figures, pictures, verdict.

    RUN is a folder that ldmlr run wrote, or the result.json of any command. The page loads nothing, so it
    can be mailed, printed and archived. It shows accuracy, the plan, training, the quality of generated rows
    beside test rows, calibration, confusion and times, and says plainly where generation did not help. What
    the files of a run do not give is left out, with the command that gives it. Pictures are drawn by
    matplotlib (pip install 'ldmlr[report]'); without it the page comes without them.

    \b
    Examples:
      ldmlr report runs/digits-lt
      ldmlr report runs/heads/result.json --out heads.html --overwrite
      ldmlr report runs/digits-lt --out page.html --json
      ldmlr report runs/digits-lt --pictures pictures
    """
    config = pick(ReportConfig, values)
    from ldmlr import results
    from ldmlr.device import set_threads
    from ldmlr.report.page import write_report
    from ldmlr.report.picture import INSTALL

    used = set_threads(threads)
    figures = write_report(run, out, config, pictures=pictures, overwrite=overwrite)
    resolved = {"run": run, "out": out, "pictures": pictures, **config.to_dict(), "threads": used}
    result = results.document("report", resolved, **figures)
    verdict = figures["verdict"] or {}
    say(f"{figures['page']}: {figures['bytes'] / 1000:.0f} kB")
    lines = [verdict["headline"]] if "headline" in verdict else []
    lines += figures["pictures"]
    lines += [f"left out: {entry['section']} ({entry['why']})" for entry in figures["missing"]]
    if any(entry["section"] == "pictures" for entry in figures["missing"]):
        lines.append(f"for pictures: {INSTALL}, then the same command with --overwrite")
    emit(result, as_json, "\n".join([str(figures["page"]), *lines]))
