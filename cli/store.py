"""``ldmlr store``: look at feature stores, check them, and bring them from and to other forms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ldmlr.errors import LdmlrError
from ldmlr.generation.config import EncoderConfig

from .config_file import config_option
from .fields import config_options
from .location import Location
from .nearest import Group, Word
from .options import emit, json_option, out_option, overwrite_option, say

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

F = TypeVar("F", bound=Callable[..., Any])
path_type = Location()
features_key_option = click.option(
    "--features-key", metavar="KEY", help="Features in another layout: dataset, array or column."
)
labels_key_option = click.option("--labels-key", metavar="KEY", help="Labels in another layout, likewise.")


def dtype_option(choices: tuple[str, ...], default: str) -> Callable[[F], F]:
    """Return the ``--dtype`` option."""
    return click.option("--dtype", type=Word(choices), help=f"How features are kept.  [default: {default}]")


@click.group("store", cls=Group)
def command() -> None:
    """Inspect, verify, import, export and merge feature stores.

    \b
    Example:
      ldmlr store inspect features.h5
    """


@command.command("inspect")
@click.argument("file", type=path_type)
@features_key_option
@labels_key_option
@config_option
@json_option
def inspect_command(file: Path, features_key: str | None, labels_key: str | None, as_json: bool) -> None:
    """Show splits, classes, shot groups, head and provenance of a store.

    \b
    Example:
      ldmlr store inspect features.h5
      ldmlr store inspect x.h5 --features-key {split}/x --labels-key {split}/y
    """
    from ldmlr.results import document
    from ldmlr.store import FeatureStore
    from ldmlr.store.describe import describe, describe_text

    store = FeatureStore.open(file, features_key=features_key, labels_key=labels_key)
    figures = describe(store)
    config = {"file": file, "features_key": features_key, "labels_key": labels_key}
    emit(document("store inspect", config, **figures), as_json, describe_text(figures))


@command.command("verify")
@click.argument("files", type=path_type, nargs=-1, required=True)
@click.option(
    "--untrusted", is_flag=True,
    help="Read in a process with limits of time and memory, also files that look like our stores.",
)  # fmt: skip
@features_key_option
@labels_key_option
@config_option
@json_option
def verify_command(
    files: tuple[Path, ...], untrusted: bool, features_key: str | None, labels_key: str | None, as_json: bool
) -> int:
    """Read stores completely and name every problem: layout, checksums, NaN, labels, head.

    A file from somebody else may end the process that reads it, or keep it for ever: other files than
    stores of ldmlr, and with --untrusted those too, are read in a process with limits.

    \b
    Example:
      ldmlr store verify features.h5 pseudo.json
      ldmlr store verify --untrusted downloaded.h5
      ldmlr store verify embeddings.h5 --features-key X --labels-key y
    """
    from ldmlr.results import document
    from ldmlr.store import verify

    keys = {"features_key": features_key, "labels_key": labels_key}
    found = [verify(file, untrusted, features_key=features_key, labels_key=labels_key) for file in files]
    problems = [LdmlrError(line).on_command_line() for one in found for line in one.problems]
    warnings = [line for one in found for line in one.warnings]
    for line in warnings:
        say(f"Warning: {line}")
    for line in problems:
        say(f"Error: {line}")
    lines = [
        f"{one.path}: {_problems(len(one.problems))}, {len(one.datasets)} datasets read"
        for one in found if one.path.exists()
    ]  # fmt: skip
    datasets = [entry for one in found for entry in one.datasets]
    result = document(
        "store verify", {"files": files, "untrusted": untrusted, **keys}, ok=not problems, problems=problems,
        warnings=warnings, datasets=datasets,
    )  # fmt: skip
    if lines or as_json:
        emit(result, as_json, "\n".join(lines))
    return 1 if problems else 0


@command.command("import")
@click.argument("source", type=path_type)
@click.argument("labels", type=path_type, required=False)
@out_option("The store to write.")
@click.option("--test", type=path_type, metavar="FILE", help="File whose rows become the test split.")
@click.option("--test-labels", type=path_type, metavar="FILE", help="Labels of --test, for .npy files.")
@features_key_option
@labels_key_option
@click.option(
    "--num-classes", type=click.IntRange(min=1), metavar="C",
    help="Number of classes; labels are then kept as they are.",
)  # fmt: skip
@click.option("--encoder", metavar="TEXT", help="What made the features, in words.")
@config_options(EncoderConfig)
@dtype_option(("float32", "float16", "bfloat16"), "as in the source")
@overwrite_option
@config_option
@json_option
def import_command(source: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Make a complete store of HDF5 of any layout, .npz, a pair of .npy files, Parquet or torch.save.

    In keys, {split} stands for train, test and val; for Parquet a pattern such as "f*" takes many
    columns. Labels may be texts; whole numbers that are not 0 .. C-1 are mapped in ascending
    order, and the class names then hold the original ones.

    An .npz file, or a dictionary in torch.save, may also hold {split}_views [K, N, D] and
    {split}_view_kinds (weak or strong, for each), {split}_source, {split}_ids, class_names, and
    the baseline's head_weight [C, D] and head_bias. A note names what is not used.

    \b
    Example:
      ldmlr store import train.npz --test test.npz --out features.h5
      ldmlr store import X.npy y.npy --out features.h5
      ldmlr store import table.parquet --labels-key species --out features.h5
      ldmlr store import x.h5 --features-key x --labels-key y --out features.h5
    """
    from ldmlr.store.convert.importing import import_store

    done = import_store(source, out, **options)
    _report("store import", {"source": source, "out": out, **options}, done.store, done.notes, as_json)


@command.command("export")
@click.argument("file", type=path_type)
@out_option("File to write: .npz, .npy, .parquet or .h5.")
@click.option(
    "--split", type=Word(("train", "test", "val", "all")),
    help="What to write.  [default: all for .npz and .h5, train for the others]",
)  # fmt: skip
@dtype_option(("float32", "float16"), "float32")
@overwrite_option
@config_option
@json_option
def export_command(
    file: Path, out: Path, split: str | None, dtype: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write a store as .npz, .npy files, Parquet or plain HDF5.

    NAME.npy becomes NAME-features.npy and NAME-labels.npy.

    \b
    Example:
      ldmlr store export features.h5 --out features.npz
      ldmlr store export features.h5 --out test.parquet --split test
    """
    from ldmlr.results import document
    from ldmlr.store import FeatureStore
    from ldmlr.store.convert.exporting import export_store

    store = FeatureStore.open(file)
    written = export_store(store, out, split=split, dtype=dtype or "float32", overwrite=overwrite)
    config = {"file": file, "out": out, "split": split, "dtype": dtype or "float32"}
    text = "\n".join(f"wrote {path}" for path in written)
    emit(document("store export", config, files=list(map(str, written))), as_json, text)


@command.command("merge")
@click.argument("sources", type=path_type, nargs=-1, required=True)
@out_option("The store to write, or NAME.json to only list shards in a manifest.")
@dtype_option(("float32", "float16", "bfloat16"), "as in the sources")
@click.option("--head/--no-head", "keep_head", default=True, help="Keep the head.", show_default=True)
@overwrite_option
@config_option
@json_option
def merge_command(
    sources: tuple[Path, ...], out: Path, dtype: str | None, keep_head: bool, overwrite: bool, as_json: bool
) -> None:
    """Join the rows of stores (or of shards) with the same features and classes.

    \b
    Example:
      ldmlr store merge features.h5 pseudo.h5 --out balanced.h5
      ldmlr store merge pseudo-*-of-00008.h5 --out pseudo.json
    """
    from ldmlr.errors import LdmlrError, UsageError
    from ldmlr.store import FeatureStore, write_manifest
    from ldmlr.store.merging import merge_stores

    notes: list[str] = []
    if out.suffix == ".json":
        if dtype or not keep_head:
            raise UsageError("--dtype, --no-head: a manifest lists files as they are; leave them out")
        store = FeatureStore.open(write_manifest(out, sources, overwrite=overwrite))
    else:
        try:
            done = merge_stores(sources, out, dtype=dtype, keep_head=keep_head, overwrite=overwrite)
        except LdmlrError as error:
            raise error.renamed({"keep_head": "head"}) from None
        store, notes = done.store, done.notes
    config = {"sources": sources, "out": out, "dtype": dtype, "head": keep_head}
    _report("store merge", config, store, notes, as_json)


def _problems(count: int) -> str:
    return "sound" if not count else "1 problem" if count == 1 else f"{count} problems"


def _report(name: str, config: dict[str, Any], store: FeatureStore, notes: list[str], as_json: bool) -> None:
    """Print the new store, and what was done to get it."""
    from ldmlr.results import document
    from ldmlr.store.describe import describe, describe_text

    for note in notes:
        say(f"Note: {note}")
    figures = describe(store)
    emit(document(name, config, notes=notes, **figures), as_json, describe_text(figures))
