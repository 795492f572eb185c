"""``ldmlr finetune``: fine-tune the classification head on encoded and generated rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ldmlr.errors import counted
from ldmlr.heads.config import FinetuneConfig
from ldmlr.store.heldout import HeldOutConfig

from .config_file import config_option
from .fields import config_options, pick
from .location import Location
from .options import (
    device_option,
    emit,
    groups_option,
    json_option,
    one_seed_option,
    out_option,
    overwrite_option,
    ready,
    say,
    say_baseline,
    say_unmeasured,
    seeds_of,
    seeds_option,
    source_options,
    source_values,
    threads_option,
)


@click.command(name="finetune")
@click.argument("store", type=Location())
@click.option(
    "--pseudo", type=Location(), multiple=True, metavar="FILE.h5",
    help="Generated rows, if STORE has none; give it once, or once per seed.",
)  # fmt: skip
@out_option("Folder for head-seed0.safetensors, ... and result.json.")
@config_options(FinetuneConfig)
@config_options(HeldOutConfig)
@click.option(
    "--calibrate", is_flag=True,
    help="Give heads the temperature that suits validation rows (val), or else those held out.",
)  # fmt: skip
@source_options
@seeds_option
@one_seed_option
@groups_option
@click.option(
    "--select-on-test", is_flag=True,
    help="Report the best epoch on the test set; only to compare with published code that does so.",
)  # fmt: skip
@device_option
@threads_option
@overwrite_option
@json_option
@config_option
def command(
    store: Path,
    pseudo: tuple[Path, ...],
    out: Path,
    seeds: int,
    seed: int | None,
    groups: str,
    select_on_test: bool,
    calibrate: bool,
    device: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 3: fine-tune the head on encoded and pseudo-features.

    STORE holds the encoded rows and the baseline's head (one is fitted where it has none).
    Generated rows come from --pseudo, or from STORE itself after ldmlr augment. The test split, where there
    is one, is used once, at the end. Without one nothing is measured, unless --folds or --test-fraction hold
    rows out: the heads that are written are trained on all rows all the same.

    Where the encoder has trained on the rows, the head takes some passes from the baseline's (--fit
    recipe). Elsewhere it is fitted anew, a linear one to convergence, with the weight decay that does best
    on held-out training rows, all classes alike (--fit tuned).

    \b
    Examples:
      ldmlr finetune balanced.h5 --out runs/heads
      ldmlr finetune features.h5 --pseudo pseudo.h5 --seeds 5 --out runs/heads
      ldmlr finetune features.h5 --loss balanced-softmax --out runs/no-generation
      ldmlr finetune features.h5 --head mlp --out runs/two-layers
    """
    from ldmlr import results
    from ldmlr import text as tables
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.experiments.loop import seed_numbers
    from ldmlr.experiments.protocol import finetune_seeds
    from ldmlr.files import check_output
    from ldmlr.groups import parse_groups
    from ldmlr.heads.headfile import BEST_ON_TEST
    from ldmlr.runfolder import tuned_head
    from ldmlr.store import FeatureStore

    config, held_out = pick(FinetuneConfig, values), pick(HeldOutConfig, values)
    shot_groups, numbers = parse_groups(groups), seed_numbers(seeds_of(seed, seeds) or seeds)
    targets = [check_output(out / tuned_head(number), overwrite) for number in numbers]
    results.check_result(out, "finetune", overwrite)
    place = resolve_device(device)
    used = set_threads(threads)
    generated = [FeatureStore.open(path) for path in pseudo]
    # Last, as this may keep a copy: with other files that cannot be read, nothing is written.
    source = ready(store, out, values)
    encoded = source.open()
    start = time.perf_counter()
    outcome = finetune_seeds(
        encoded, generated, config, seeds=numbers, groups=shot_groups, device=str(place),
        select_on_test=select_on_test, held_out=held_out, calibrate=calibrate,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    for target, head in zip(targets, outcome.heads, strict=True):
        head.save(target, overwrite)
    if not outcome.heads[0].generated:
        say(f"{store}: no generated rows; the head is fine-tuned on encoded rows alone")
    own = encoded.split("train").generated_rows
    if generated and own:
        say(
            f"{store}: holds {counted(own, 'generated row')} itself; the head is fine-tuned on them "
            "and on those of --pseudo"
        )
    say_baseline(store, outcome.figures)
    say_unmeasured(store, outcome.figures)
    resolved = {
        "store": store, **source_values(values), **source.as_config(), "pseudo": list(pseudo),
        **config.to_dict(), "seeds": len(numbers), "seed": seed,
        "groups": groups, "select_on_test": select_on_test, **held_out.to_dict(),
        "calibrate": calibrate, "device": str(place), "threads": used,
    }  # fmt: skip
    result = results.document(
        "finetune", resolved, rows=outcome.rows, **outcome.figures,
        inputs={str(part.path): part.fingerprint() for part in (encoded, *generated)},
        outputs=targets, seconds=round(seconds, 3),
    )  # fmt: skip
    results.write_result(out, result)
    text = tables.accuracy_table(outcome.rows) if outcome.rows else "no test split: nothing is measured on it"
    if outcome.rows and (held_out.folds or held_out.test_fraction):
        text += f"\n{outcome.figures['measured']}"
    for number, head in zip(numbers, outcome.heads, strict=True):
        if head.chosen is not None:
            text += f"\n{_choice(number, head.chosen, head.config.weight_decay)}"
    if calibrate:
        text += f"\ntemperature: {', '.join(f'{head.temperature:.3g}' for head in outcome.heads)}"
        text += f"\nwith label shift: {', '.join(f'{head.shift_temperature:.3g}' for head in outcome.heads)}"
    if select_on_test:
        text = f"Selection: {BEST_ON_TEST}\n{text}"
    emit(result, as_json, text)


def _choice(seed: int, chosen: dict[str, Any], decay: float | None) -> str:
    """Return what was chosen for the head of a seed, and how, in words."""
    values = {"weight_decay": decay} | {
        name: value for name, value in chosen.items() if name not in ("chosen_by", "held_out", "tried")
    }
    words = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())
    text = f"seed {seed}: {words}; chosen by: {chosen['chosen_by']}"
    if "held_out" in chosen:
        text += f", balanced accuracy there {chosen['held_out']['balanced_accuracy']:.2f} %"
    return text
