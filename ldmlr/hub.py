"""Diffusion models in a folder or a repository, as `huggingface_hub` has them.

`LatentDiffusion` here is `ldmlr.LatentDiffusion` with ``save_pretrained``, ``from_pretrained`` and
``push_to_hub``: a folder with ``model.safetensors``, ``config.json`` and the card as ``README.md``. It needs
``pip install 'ldmlr[hub]'``; a model loaded by the one class is saved by the other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from ldmlr.errors import InputError, UsageError
from ldmlr.files import write_text
from ldmlr.generation import latent

try:
    from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
except ImportError:
    raise UsageError("huggingface_hub is not installed; pip install 'ldmlr[hub]'") from None

FILE = "model.safetensors"


class LatentDiffusion(latent.LatentDiffusion, ModelHubMixin, library_name="ldmlr"):
    """A diffusion model that can be kept in a folder or a repository of the Hugging Face Hub.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from ldmlr.hub import LatentDiffusion
    >>> y = np.repeat([0, 1], [90, 10])
    >>> X = np.random.default_rng(0).standard_normal((100, 4)) + 3 * y[:, None]
    >>> model = LatentDiffusion(hidden=16, layers=1, iterations=20).fit(X, y)
    >>> folder = tempfile.mkdtemp()
    >>> model.save_pretrained(folder, model_card_kwargs={"license": "mit"})
    >>> LatentDiffusion.from_pretrained(folder).fingerprint() == model.fingerprint()
    True
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / FILE)
        write_text(
            save_directory / "config.json", json.dumps(self.config.to_dict(), indent=2, sort_keys=True)
        )

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,  # what config.json says: the model file says it too, under a checksum
    ) -> Self:
        folder = Path(model_id)
        if folder.is_dir():
            if not (folder / FILE).is_file():
                raise InputError(f"{folder}: has no {FILE}; give a folder that save_pretrained wrote")
            return cls.load(folder / FILE)
        path = hf_hub_download(
            model_id, FILE, revision=revision, cache_dir=cache_dir, force_download=force_download,
            local_files_only=local_files_only, token=token,
        )  # fmt: skip
        return cls.load(path)

    def generate_model_card(self, *, name: str = "model", license: str | None = None, **_: Any) -> ModelCard:
        """Return the card, see `ldmlr.LatentDiffusion.card`."""
        return ModelCard(self.card(name, license=license))
