"""The class-conditional latent diffusion model: fit, sample, save, load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import check_first_row, check_labels, check_seed, type_name
from ldmlr.device import Machine
from ldmlr.diffusion import rows
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.heldout import HeldOut
from ldmlr.diffusion.learned import NOTHING
from ldmlr.diffusion.transform import Transform
from ldmlr.diffusion.weights import Weights
from ldmlr.errors import InputError, UsageError, counted, nearest, opt
from ldmlr.generation.card import card
from ldmlr.generation.latentfile import fingerprint, read_model, write_model
from ldmlr.generation.trained import Trained
from ldmlr.generation.training import train_model
from ldmlr.ranks import ALONE, Ranks
from ldmlr.remote import as_path
from ldmlr.sampler.backends import Sampler, prepare
from ldmlr.sampler.config import DTYPES, SampleConfig
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.torch_defaults import torch_defaults

if TYPE_CHECKING:
    import torch

    from ldmlr.diffusion.denoiser import Denoiser
    from ldmlr.store import FeatureStore


class LatentDiffusion:
    """A diffusion model over feature vectors, conditioned on the class.

    Parameters
    ----------
    config
        The configuration; instead of it, its fields can be given by name.
    seed
        Seed of the training.
    **options
        Fields of `DiffusionConfig`, such as ``hidden=128`` or ``layers=2``.

    Attributes
    ----------
    counts
        Training rows per class ``[C]``, int64.
    class_names
        Names of the classes, or None.
    losses
        The training loss, averaged over every 50 iterations.
    provenance
        Where the training rows came from, if from a store: plain data, saved with the model.
    trained
        What trained it: ``trainer`` (its name), ``precision`` and ``isa``; empty for a model of before.
    held_out
        How the loss on held-out rows compares with that of the class Gaussian: ``loss_over_gaussian`` (1:
        nothing learned beyond it; None: not known), the same per ``bands`` of time and per shot group
        (``groups``), and ``rows``, how many were held out.

    Examples
    --------
    >>> import numpy as np
    >>> from ldmlr import LatentDiffusion
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], [90, 10])
    >>> X = rng.standard_normal((100, 4)) + 3 * y[:, None]
    >>> model = LatentDiffusion(hidden=16, layers=1, iterations=20, seed=0).fit(X, y)
    >>> model.sample(np.ones(80, int)).shape
    (80, 4)
    """

    def __init__(self, config: DiffusionConfig | None = None, *, seed: int = 0, **options: Any) -> None:
        if config is not None and options:
            raise UsageError("give a configuration or its fields by name, not both")
        if not isinstance(config, DiffusionConfig | None):
            raise UsageError(
                "LatentDiffusion: expected a DiffusionConfig or named options such as hidden=128, not "
                f"{config!r}"
            )
        self.config = config or DiffusionConfig.from_mapping(options)
        self._asked = self.config  # a training settles what it leaves open, the next one anew
        self.seed = check_seed(seed)
        self.counts: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self.class_names: tuple[str, ...] | None = None
        self.losses: list[float] = []
        self.provenance: dict[str, Any] = {}
        self.trained: dict[str, Any] = {}
        self._held_out = HeldOut(NOTHING, None)
        self._weights: Weights | None = None
        self._transform: Transform | None = None

    def __repr__(self) -> str:
        """Show the settings that are not the defaults, and what it was trained on."""
        rows, classes, trained = int(self.counts.sum()), len(self.counts), self._weights is not None
        usual = self.config.usual(rows, self.dim) if trained else DiffusionConfig().to_dict()
        said = [f"{key}={value!r}" for key, value in self.config.to_dict().items() if value != usual[key]]
        settings = ", ".join([*said, f"seed={self.seed}"])
        if not trained:
            return f"LatentDiffusion({settings}; not trained)"
        return (
            f"LatentDiffusion({settings}; trained on {counted(rows, 'row')} of {counted(classes, 'class')})"
        )

    @property
    def weights(self) -> Weights:
        """The trained denoiser's averaged weights, as arrays."""
        if self._weights is None:
            raise UsageError("the model is not trained; call fit first, or load a trained one")
        return self._weights

    @property
    def network(self) -> Denoiser:
        """The trained denoiser as a PyTorch module of its own: a change of it does not change the model."""
        from ldmlr.diffusion.denoiser import module_of

        return module_of(self.weights)

    @property
    def transform(self) -> Transform:
        """The fitted transform between features and the space of the diffusion."""
        if self._transform is None:
            raise UsageError("the model is not trained; call fit first, or load a trained one")
        return self._transform

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return self.transform.dim

    @property
    def held_out(self) -> dict[str, Any]:
        """What was found on held-out rows, as plain data."""
        return dict(self._held_out.document)

    @property
    def learned(self) -> str:
        """What training added to the class Gaussian, in words; empty where it was not asked."""
        return self._held_out.words() if self.config.in_axes else ""

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return len(self.counts)

    @torch_defaults()
    def fit(
        self,
        X: npt.ArrayLike | torch.Tensor,
        y: npt.ArrayLike | torch.Tensor,
        *,
        views: Sequence[npt.ArrayLike | torch.Tensor] | npt.ArrayLike | torch.Tensor | None = None,
        counts: npt.ArrayLike | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        device: str = "auto",
        threads: int | None = None,
        checkpoint: str | Path | None = None,
        resume: bool = False,
        ranks: Ranks = ALONE,
    ) -> Self:
        """Train the model; one that was trained before stays as it is until the new training has ended.

        Parameters
        ----------
        X, y
            Features ``[N, D]`` and labels ``[N]``, 0 .. C - 1.
        views
            The same rows under augmentation, ``[K, N, D]``: all of them are trained on.
        counts
            Rows per class ``[C]``, if they are not those of `y`.
        num_classes
            Classes, if the last ones may have no row (which is then an error that says so).
        class_names
            Names of the classes, saved with the model.
        device
            Where to train.
        threads
            CPU threads; None: one for a small network, else all usable cores.
        checkpoint
            File for the state of the training, to `resume` from after a kill. Remove it once the model
            is saved.
        resume
            Continue from `checkpoint` if it is there.
        ranks
            Processes of torchrun that train together, from `ldmlr.ranks.ranks`, each with these same rows.

        Raises
        ------
        InputError
            Features or labels that cannot be trained on.
        """
        # Taken together and at the end: a training that is interrupted must not leave half a new model.
        self._take(
            train_model(
                self._asked, self.seed, X, y, views=views, counts=counts, num_classes=num_classes,
                class_names=class_names, device=device, threads=threads, checkpoint=checkpoint, resume=resume,
                ranks=ranks,
            )
        )  # fmt: skip
        return self

    def fit_store(self, store: FeatureStore, **options: Any) -> Self:
        """Train on a store's training split and the views the configuration asks for.

        Parameters
        ----------
        store
            An open feature store.
        **options
            ``device``, ``threads``, ``checkpoint``, ``resume`` and ``ranks`` of `fit`.
        """
        features, labels, views = rows.store_rows(store, self.config.weak_views, self.config.strong_views)
        provenance = {
            "store": str(store.path), "fingerprint": store.fingerprint(),
            "rows": len(labels), "views": len(views), "encoder": store.encoder,
        }  # fmt: skip
        try:
            self.fit(
                features, labels, views=views,
                num_classes=store.num_classes, class_names=store.class_names, **options,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"{store.path}: /train: {error}") from None
        self.provenance = provenance
        return self

    def gain(self, t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64] | None:
        """Return what the network's answer is multiplied by when rows are drawn; None: it is taken as it is.

        Parameters
        ----------
        t
            Times ``[S]``, 0 (rows) to 1 (noise).

        Returns
        -------
        ``[S, C]``: 0 where held-out rows showed the answer to be no better than the class Gaussian.
        """
        return self._held_out.at(t)

    def spec(self, config: SampleConfig | None = None, seed: int = 0) -> SamplerSpec:
        """Return everything a sampler needs as plain arrays.

        Parameters
        ----------
        config
            Solver, steps, guidance and scale.
        seed
            Seed of the noise.
        """
        return self._parts().spec(config, seed)

    def sampler(
        self, config: SampleConfig | None = None, seed: int = 0, machine: Machine | None = None
    ) -> Sampler:
        """Return the model prepared for drawing part by part.

        Parameters
        ----------
        config
            Solver, steps, guidance, scale and weights.
        seed
            Seed of the noise.
        machine
            What draws, and where.
        """
        return prepare(self.spec(config, seed), machine, "auto" if config is None else config.weights)

    @torch_defaults()
    def sample(
        self,
        labels: npt.ArrayLike | torch.Tensor,
        *,
        solver: str = "dpmpp2m",
        steps: int = 10,
        guidance: float | None = None,
        eta: float = 0.0,
        scale: float | None = None,
        class_scale: Mapping[Any, float] | Sequence[str] = (),
        seed: int = 0,
        first_row: int = 0,
        backend: str = "auto",
        weights: str = "auto",
        dtype: str = "float32",
        device: str = "auto",
        threads: int | None = None,
    ) -> Any:
        """Draw one row per label.

        Parameters
        ----------
        labels
            Class of each row ``[N]``.
        solver
            ``dpmpp2m``, ``ddim``, ``ddpm`` or ``heun``.
        steps
            Solver steps.
        guidance
            Classifier-free guidance, 1 is off; None: 1.5 for a whitened model, else 1.
        eta
            Share of ancestral noise of ``ddim``.
        scale
            Widening of rows around their class mean; None: 1.41 for a whitened model, else 1.
        class_scale
            Widening of single classes instead of `scale`: from class (number or name) to factor.
        seed, first_row
            Row i is a pure function of (model, label, solver options, seed, first_row + i).
        backend
            ``auto``, ``reference``, ``native`` or ``cuda``.
        weights
            Arithmetic of the network: ``auto``, ``float32``, ``bfloat16`` or ``int8``.
        dtype
            ``float32``, ``float16`` or ``bfloat16``, as a name or a type.
        device, threads
            Where to compute.

        Returns
        -------
        Features ``[N, D]``: a tensor if `labels` is one, else an array (bfloat16, which NumPy
        lacks, as uint16 bit patterns).

        Raises
        ------
        UsageError
            An unknown option or a label the model does not have.
        """
        config = SampleConfig.from_mapping({
            "solver": solver, "steps": steps, "guidance": guidance, "scale": scale,
            "class_scale": class_scale, "eta": eta, "weights": weights,
        })  # fmt: skip
        kind = type_name(dtype)
        if kind not in DTYPES:
            raise UsageError(f"{opt('dtype')}: unknown value {kind!r}; {nearest(kind, DTYPES)}")
        classes = check_labels(labels, self.weights.num_classes)
        first_row = check_first_row(first_row, len(classes))
        machine = Machine(device=device, threads=threads, backend=backend)
        drawn = self.sampler(config, seed, machine)(classes, first_row, kind)
        if not hasattr(labels, "detach"):
            return drawn
        import torch

        return torch.from_numpy(drawn).view(getattr(torch, kind))  # bfloat16 comes as bit patterns

    def fingerprint(self) -> str:
        """Return a hash of everything the generated rows depend on."""
        return fingerprint(self._parts())

    def save(self, path: str | Path, overwrite: bool = True) -> None:
        """Write the model as safetensors, whole or not at all."""
        write_model(self._parts(), as_path(path), overwrite)

    def card(self, name: str = "model", *, license: str | None = None) -> str:
        """Return its card: Markdown with the fields of a Hugging Face model card on top.

        Parameters
        ----------
        name
            Its title.
        license
            Identifier of its licence, such as ``mit``; None: not stated.

        Raises
        ------
        UsageError
            It is not trained, or the licence is no identifier.
        """
        return card(self._parts(), name, license)

    def _parts(self) -> Trained:
        return Trained(
            self.config, self.seed, self.weights, self.transform, self.counts, self.class_names, self.losses,
            self._held_out, self.provenance, self.trained,
        )  # fmt: skip

    def _take(self, found: Trained) -> None:
        """Become a trained model, with what its configuration left open settled."""
        self.config = found.config
        self._weights, self._transform, self._held_out = found.weights, found.transform, found.held_out
        self.counts, self.class_names = found.counts, found.class_names
        self.losses, self.provenance, self.trained = found.losses, found.provenance, found.trained

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved model.

        Raises
        ------
        InputError
            The file is missing, damaged, of another kind, or its tensors do not fit its configuration.
        """
        found = read_model(as_path(path))
        model = cls(found.config, seed=found.seed)
        model._take(found)
        return model
