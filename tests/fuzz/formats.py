"""Every format that is read, by its name."""

from __future__ import annotations

from . import features, images, models
from .form import Format

FORMATS: dict[str, Format] = {
    form.name: form for form in (*features.FORMATS, *images.FORMATS, *models.FORMATS)
}
