"""From training rows to a generator: one function for all of them."""

from __future__ import annotations

from collections.abc import Callable

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.catalogue import check_views, entry_of, resolved
from ldmlr.generation.generators.copies import Oversampling, Views
from ldmlr.generation.generators.diffusion import Diffusion, train
from ldmlr.generation.generators.gaussian import Gaussian
from ldmlr.generation.generators.interpolation import Adasyn, Smote
from ldmlr.generation.train_rows import TrainRows


def fit(
    name: str,
    rows: TrainRows,
    config: GenerateConfig | None = None,
    diffusion: DiffusionConfig | None = None,
    *,
    seed: int = 0,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Generator:
    """Return a generator fitted to training rows.

    Parameters
    ----------
    name
        A key of `ldmlr.generation.generators.catalogue.GENERATORS`.
    rows
        Training rows and the views that the generator may use.
    config
        How rows are drawn: of it, a generator reads what its entry says.
    diffusion
        How a diffusion model is trained.
    seed
        Seed of the training of a diffusion model; the others have nothing random before they draw.
    backend, device, threads
        Where a diffusion model is trained, and what draws its rows.

    Raises
    ------
    UsageError
        There is no such generator, it needs views that are not there, or a setting does not fit it.
    InputError
        Rows that cannot be fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from ldmlr.generation.generators.fit import fit
    >>> from ldmlr.generation.train_rows import TrainRows
    >>> X, y = np.float32([[0, 0], [1, 0], [5, 5]]), np.array([0, 0, 1])
    >>> smote = fit("smote", TrainRows(X, y, (), (), 2, "rows"))
    >>> rows = smote.draw([0, 0, 1, 0])
    >>> bool((rows[3] == smote.draw([0], first_row=3)[0]).all())
    True
    """
    check_views(name, len(rows.views), rows.name)
    model = diffusion or DiffusionConfig()
    chosen = resolved(name, config or GenerateConfig(), model)
    if entry_of(name).trains:
        trained = train(rows, model, seed=seed, device=device, threads=threads)
        return Diffusion(trained, chosen, Machine(device, threads, backend))
    return _FITTED[name](rows, name, chosen)


_FITTED: dict[str, Callable[[TrainRows, str, GenerateConfig], Generator]] = {
    "gaussian": Gaussian,
    "gaussian-wide": Gaussian,
    "gaussian-borrowed": Gaussian,
    "smote": lambda rows, name, config: Smote(rows),
    "smote-views": lambda rows, name, config: Smote(rows, views=True),
    "adasyn": lambda rows, name, config: Adasyn(rows),
    "adasyn-views": lambda rows, name, config: Adasyn(rows, views=True),
    "oversampling": lambda rows, name, config: Oversampling(rows),
    "views": lambda rows, name, config: Views(rows),
}
