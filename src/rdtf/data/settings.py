"""Settings of a preparation, and the part of the work that each of them changes."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rdtf.data.captions import clean_caption


class PrepareSettings(BaseModel):
    """Settings of :func:`~rdtf.data.prepare.prepare`.

    Attributes:
        size: height and width of the frames in pixels.
        max_frames: longer stickers are thinned out to this many.
        splits: shares of train, val and test; they sum to 1.
        split_by: the key of the split: the frames (``content``), the first ``caption``, or a metadata field
            (``emoji``). Stickers with equal keys share a split, and near-duplicates always do. Case, spaces and
            variation selectors do not count.
        seed: seed of the splits.
        licenses: licences of stickers without one in their metadata, by the label of their source (its folder's name).
            The label ``""`` stands for all other sources.
        captions: metadata fields or columns of captions; the default names if empty.
        caption_style: add the style of a sticker to its captions, see :mod:`rdtf.data.style`. The style is the metadata
            field ``style``, otherwise an entry of ``styles``.
        styles: styles of stickers without one in their metadata, by the labels of ``licenses``.
        duplicates: ``drop`` leaves out all but the first of near-duplicates that show the same; ``keep`` only reports
            them.
        crop: ``content`` crops files to what is drawn in them.
        background: ``transparent`` clears opaque backgrounds of one colour.
        features: features for clustering frames: ``builtin``, or ``vgg16:`` and the first digits of the SHA-256 of the
            weights, from :func:`choose_features`.
        weights: file of the weights. Its path does not change the dataset.
        time_limit: seconds of processor time for one file.
        memory_limit: MiB for decoding one file, in addition to the memory of its frames in the wanted size.
        workers: processes; None for one on each core. Does not change the dataset.
        engine: ``local`` for processes on this machine, ``ray`` for a Ray cluster. Does not change the dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(64, ge=8, le=1024)
    max_frames: int = Field(40, ge=1, le=1000)
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    split_by: str = Field("content", min_length=1)
    seed: int = Field(0, ge=0)
    licenses: dict[str, str] = {}
    captions: tuple[str, ...] = ()
    caption_style: bool = False
    styles: dict[str, str] = {}
    duplicates: Literal["keep", "drop"] = "keep"
    crop: Literal["none", "content"] = "none"
    background: Literal["keep", "transparent"] = "keep"
    features: str = Field("builtin", pattern="^(builtin|vgg16:[0-9a-f]{16})$")
    weights: Path | None = None
    time_limit: float = Field(30.0, gt=0)
    memory_limit: int = Field(1024, ge=64)
    workers: int | None = Field(None, ge=1)
    engine: Literal["local", "ray"] = "local"

    @model_validator(mode="after")
    def _check(self) -> PrepareSettings:
        if min(self.splits) < 0 or abs(sum(self.splits) - 1) > 1e-6:
            raise ValueError(f"splits must be three shares that sum to 1, got {self.splits}")
        if (self.features == "builtin") != (self.weights is None):
            raise ValueError("weights belong to features=vgg16:HASH, and only to them")
        if self.styles and not self.caption_style:
            raise ValueError("styles are for caption_style=True; without it captions name no style")
        return self

    @field_validator("licenses", "styles")
    @classmethod
    def _named(cls, names: dict[str, str]) -> dict[str, str]:
        cleaned = {label: clean_caption(name) for label, name in names.items()}
        if not all(cleaned.values()):
            raise ValueError("a licence or style needs a name")
        return cleaned

    def of_source(self, names: dict[str, str], sticker: str) -> str | None:
        """The entry of ``licenses`` or ``styles`` for a sticker, whose name begins with the label of its source."""
        return names.get(sticker.partition("/")[0], names.get(""))

    def part(self, name: str) -> dict[str, Any]:
        """The settings that a part of the work depends on, JSON-able."""
        return self.model_dump(mode="json", include=PARTS[name])

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the content of the dataset, JSON-able."""
        return self.model_dump(mode="json", exclude=PARTS["limits"] | PARTS["running"])


PARTS: dict[str, set[str]] = {
    "frames": {"size", "max_frames", "crop", "background", "features"},
    "rows": {"splits", "split_by", "seed", "licenses", "captions", "caption_style", "styles", "duplicates"},
    "limits": {"time_limit", "memory_limit"},
    "running": {"workers", "engine", "weights"},
}
"""The settings that each part of the work depends on. Every setting is in one part.

``frames``: reading of files. ``rows``: columns that need no frames. A part is done again when one of its settings, or a
setting of an earlier part, changes. ``limits`` matter only for files that exceeded them.
"""


def choose_features(spec: str) -> dict[str, Any]:
    """The settings of a preparation for ``builtin`` or ``vgg16:FILE``.

    Raises:
        ValueError: another text, no such file, or one that is not of this network.
    """
    if spec == "builtin":
        return {"features": spec}
    kind, _, name = spec.partition(":")
    path = Path(name).expanduser().resolve()
    if kind != "vgg16" or not path.is_file():
        raise ValueError(
            f"features are builtin, or vgg16:FILE with torchvision's weights of vgg16; got {spec!r}, and no such file"
        )
    from rdtf.data.vgg import load_vgg16  # torch takes longer to import than all else that is needed here

    load_vgg16(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {"features": f"vgg16:{hashlib.sha256(data).hexdigest()[:16]}", "weights": path}
