"""Embeddings of a timm network, and the method that is best on them.

    python examples/timm_features.py photos vit_small_patch14_dinov2.lvd142m runs/dino

`photos` has a folder per class, in a folder per split. Such a network has never seen your images: nothing
is widened or guided, and methods without generation compete (`--auto`). Weights come from the hub's cache,
or from a file as the last argument.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def ldmlr(*arguments: object) -> None:
    """Run a command of ldmlr; it prints what it does and ends with one line where it cannot."""
    subprocess.run([sys.executable, "-m", "ldmlr", *map(str, arguments)], check=True)


def main(
    images: str, network: str, out: str, weights: str | None = None, more: tuple[object, ...] = ()
) -> Path:
    """Encode the images, choose a method without the test split, and return the folder of the run."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "features.h5"
    given = ["--weights", weights] if weights else []
    ldmlr("encode", f"timm:{network}", images, *given, "--out", store, "--overwrite")
    ldmlr("run", store, "--foreign-encoder", "--auto", "--out", folder / "run", *more)
    return folder / "run"


if __name__ == "__main__":
    print(main(*sys.argv[1:5]))
