"""Tables of README.md, docs/ and benchmarks/README.md, rendered from the results and checked.

A page says ``<!-- table: NAME -->`` and ``<!-- end of table -->``, each on a line of its own; what stands
between them is written by

    python benchmarks/render.py --write            all pages
    python benchmarks/render.py --check            fails unless all are current
    python benchmarks/render.py NAME               prints one table

Figures come from ``results/summary.csv`` (``summarise.py``), names and commands from ``experiments.toml``;
``tables.py``, ``tables_speed.py``, ``tables_diffusion.py`` and ``tables_keel.py`` say what a table shows.
Names:

    home                       CIFAR-LT, frozen features: without and with LDMLR, best other method
    digits                     the built-in digits: the same rows by shot group
    paper                      the paper's table: published and measured, without and with LDMLR
    published                  the paper's own figures on all its sets
    encoders                   each encoder's own head and LDMLR on it, without and with mirror images
    compare                    all methods on both sets, without and with label shift
    compare-cifar10            all methods on CIFAR-10-LT, with shot groups
    compare-cifar100           all methods on CIFAR-100-LT, with shot groups
    compare-encoders-cifar10   the main methods on each better encoder (mirror images), CIFAR-10-LT
    compare-encoders-cifar100  the same, CIFAR-100-LT
    ablation-ratio             how many rows are generated
    ablation-groups            which shot groups are filled
    ablation-steps             solver and evaluations
    ablation-guidance          strength of guidance
    ablation-width             width of the denoiser
    ablation-basis             basis in which rows are diffused
    ablation-axes              number of axes that are diffused
    ablation-error-power       power of an axis's variance that its error counts with
    learned                    what the diffusion learns that a Gaussian is not
    stage3-variants            one thing of stage 3 changed at a time
    training-options           what each option of stage 1 gains on the digits
    levers                     what the parts of the strongest recipes gain on digits kept back
    several-modes              LDMLR beside the best of each simpler family, classes of several modes
    keel                       over-samplers on the development sets of KEEL: measures, ranks, tests
    precision                  accuracy with rows drawn in float32, bfloat16, int8, and by smaller models
    gate                       the quality gate
    selection                  settings chosen on held-out rows beside the fixed ones
    speed                      rows/s of the default model per processor and type, beside PyTorch
    ceilings                   share of the multiply-add peak per processor, type and size
    cuda-kernels               rows/s of each CUDA kernel per size on an H200, best share of a large product
    deviation                  deviation of a row from float64, per instruction set and type
    trials-silu                forms of silu in the bfloat16 kernel
    trials-tile-rows           rows per tile
    trials-int8                forms of the int8 kernel
    trials-amx                 where the epilogue of an AMX product goes
    stage1                     training steps of ResNet-32 by type and layout
    memory                     peak memory of generation to disk
    latent-vs-image            a sampling step of a latent beside one of an image
    fleet                      a billion rows on many machines, simulated: times and what binds them
    tried                      what was tried and gained nothing, a line each
    reproduce                  commands with what they give and how long they take
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import tables
from experiments import HERE
from pivot import Summary
from summarise import read

ROOT = HERE.parent
BEGIN, END = "<!-- table: {} -->", "<!-- end of table -->"
BLOCK = re.compile(r"^<!-- table: (?P<name>\S+) -->\n(?P<text>.*?)^<!-- end of table -->$", re.M | re.S)
MARK = re.compile(r"^<!-- (?:table: .*|end of table) -->$", re.M)


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may have tables."""
    found = [root / "README.md", root / "benchmarks" / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in found if path.is_file()]


def renewed(text: str, where: str, summary: Summary) -> str:
    """Return a page with all its tables written anew.

    Raises
    ------
    ValueError
        A mark has no partner, or names no table.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in tables.TABLES:
            raise ValueError(f"{where}: no table is called {name!r}; there are {', '.join(tables.TABLES)}")
        return f"{BEGIN.format(name)}\n{tables.render(name, summary)}\n{END}"

    blocks = BLOCK.findall(text)
    if len(MARK.findall(text)) != 2 * len(blocks) or any(MARK.search(inner) for _, inner in blocks):
        raise ValueError(
            f"{where}: a table begins or ends without the other mark ({BEGIN.format('NAME')}, {END})"
        )
    return BLOCK.sub(block, text)


def main(args: Sequence[str] | None = None) -> int:
    """Print, check or write tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", nargs="?", help="print this table")
    parser.add_argument("--check", action="store_true", help="fail unless all pages are current")
    parser.add_argument("--write", action="store_true", help="write the tables of all pages")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of the pages")
    options = parser.parse_args(args)
    try:
        summary = Summary(read())
        if options.name:
            if options.name not in tables.TABLES:
                raise ValueError(f"no table is called {options.name!r}; there are {', '.join(tables.TABLES)}")
            print(tables.render(options.name, summary))
        stale = []
        for path in pages(options.root) if options.check or options.write else []:
            text = path.read_text(encoding="utf-8")
            new = renewed(text, str(path), summary)
            if new != text and options.write:
                path.write_text(new, encoding="utf-8")
                print(f"{path}: written")
            elif new != text:
                stale.append(str(path))
        if stale:
            raise ValueError(f"{', '.join(stale)}: not current; run python benchmarks/render.py --write")
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
