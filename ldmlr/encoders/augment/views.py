"""Views for stage 2: the same images under random augmentation, row by row.

All draws of a view are made at once from (seed, view), so that row i looks the same
whatever the batches. ``weak`` is flip and crop as in the training (padding one eighth of the
side, 4 pixels of 32). ``strong``, after normalisation: flip, rotation by up to 20 degrees, scale
0.75 to 1.25 and a shift by up to an eighth of the side in one sampling pass with zeros outside,
contrast x 0.7 to 1.3, a shift of each channel by up to 0.2, and a blank square of 9/32 of the side.
"""

from __future__ import annotations

import numpy as np
import torch

from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.augment.crop import blank_squares, shift_mirror
from ldmlr.encoders.augment.geometry import similarity, warp

ROTATION = 20.0
SCALE = (0.75, 1.25)
CONTRAST = (0.7, 1.3)
CHANNEL_SHIFT = 0.2
SHIFT_SHARE = 4 / 32
CUTOUT_SHARE = 9 / 32


class View:
    """One random view of every image of a split.

    Parameters
    ----------
    kind
        ``weak`` or ``strong``.
    rows
        Number of images, N.
    shape
        Height, width and channels.
    flip
        Whether images may be mirrored.
    seed, index
        The seed and the number of the view.
    """

    def __init__(
        self, kind: str, rows: int, shape: tuple[int, int, int], *, flip: bool, seed: int, index: int
    ) -> None:
        height, width, channels = shape
        state = np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)
        generator = torch.Generator()
        generator.manual_seed(int(state[0] >> 1))
        self.kind = kind
        self.reach = round(SHIFT_SHARE * max(height, width))
        self.size = max(1, round(CUTOUT_SHARE * max(height, width)))
        mirrored = torch.rand(rows, generator=generator) < 0.5
        self.mirrored = mirrored if flip else torch.zeros(rows, dtype=torch.bool)
        if kind == "weak":
            self.shift = torch.randint(-self.reach, self.reach + 1, (2, rows), generator=generator)
            return
        self.angle = _uniform(-ROTATION, ROTATION, (rows,), generator)
        self.scale = _uniform(*SCALE, (rows,), generator)
        self.move = _uniform(-self.reach, self.reach, (rows, 2), generator)
        self.contrast = _uniform(*CONTRAST, (rows,), generator)
        self.channel_shift = _uniform(-CHANNEL_SHIFT, CHANNEL_SHIFT, (rows, channels), generator)
        self.centre = torch.stack(
            [torch.randint(0, side, (rows,), generator=generator) for side in (height, width)]
        )

    def __call__(self, pixels: torch.Tensor, start: int, normalise: Normalise) -> torch.Tensor:
        """Return the view of rows ``start .. start + n`` as normalised images.

        Parameters
        ----------
        pixels
            Those rows, uint8 ``[n, C, H, W]``.
        start
            Number of the first row.
        normalise
            The network's normalisation.
        """
        rows = slice(start, start + len(pixels))
        if self.kind == "weak":
            return normalise(shift_mirror(pixels, self.shift[:, rows], self.mirrored[rows]))
        matrices = similarity(self.angle[rows], self.scale[rows], self.move[rows])
        matrices[:, 0] = torch.where(self.mirrored[rows, None], -matrices[:, 0], matrices[:, 0])
        images = warp(normalise(pixels), matrices)
        images = images * self.contrast[rows].view(-1, 1, 1, 1).to(images)
        images = images + self.channel_shift[rows][:, :, None, None].to(images)
        return blank_squares(images, self.centre[:, rows], self.size)


def _uniform(low: float, high: float, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)
