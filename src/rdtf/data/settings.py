"""Settings of a preparation, and which part of the work each of them has a say in."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rdtf.data.captions import clean_caption


class PrepareSettings(BaseModel):
    """Settings of :func:`~rdtf.data.prepare.prepare`.

    Attributes:
        size: height and width of the frames in pixels.
        max_frames: longer stickers are thinned out to this many.
        splits: shares of train, val and test; they sum to 1.
        split_by: what the split is drawn from: the frames, or the first caption, so that equal captions are never on
            two sides. Near-duplicates never are.
        seed: of the splits.
        licenses: of stickers whose metadata names no licence: by the label of their source (its folder's name), and by
            ``""`` of all others.
        captions: metadata fields or columns that are captions; the usual names if empty.
        duplicates: ``drop`` leaves out all but the first of near-duplicates; ``keep`` only reports them.
        crop: ``content`` crops files to what is drawn in them.
        background: ``transparent`` clears opaque backgrounds of one colour.
        cluster_seed: of the clusterings.
        time_limit: seconds of processor time that one file may take.
        memory_limit: MiB that decoding one file may take, beyond what frames of the wanted size need.
        workers: processes; None for one a core. Changes nothing in the dataset.
        engine: ``local`` for processes of this machine, ``ray`` for those of a Ray cluster. Changes nothing either.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int = Field(64, ge=8, le=1024)
    max_frames: int = Field(40, ge=1, le=1000)
    splits: tuple[float, float, float] = (0.9, 0.05, 0.05)
    split_by: Literal["content", "caption"] = "content"
    seed: int = Field(0, ge=0)
    licenses: dict[str, str] = {}
    captions: tuple[str, ...] = ()
    duplicates: Literal["keep", "drop"] = "keep"
    crop: Literal["none", "content"] = "none"
    background: Literal["keep", "transparent"] = "keep"
    cluster_seed: int = Field(0, ge=0)
    time_limit: float = Field(30.0, gt=0)
    memory_limit: int = Field(1024, ge=64)
    workers: int | None = Field(None, ge=1)
    engine: Literal["local", "ray"] = "local"

    @model_validator(mode="after")
    def _shares(self) -> PrepareSettings:
        if min(self.splits) < 0 or abs(sum(self.splits) - 1) > 1e-6:
            raise ValueError(f"splits must be three shares that sum to 1, got {self.splits}")
        return self

    @field_validator("licenses")
    @classmethod
    def _named(cls, licenses: dict[str, str]) -> dict[str, str]:
        cleaned = {label: clean_caption(name) for label, name in licenses.items()}
        if not all(cleaned.values()):
            raise ValueError("a licence needs a name")
        return cleaned

    def part(self, name: str) -> dict[str, Any]:
        """The settings that a part of the work depends on, JSON-able."""
        return self.model_dump(mode="json", include=PARTS[name])

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the content of the dataset, JSON-able."""
        return self.model_dump(mode="json", exclude=PARTS["limits"] | PARTS["running"])


PARTS: dict[str, set[str]] = {
    "frames": {"size", "max_frames", "crop", "background"},
    "facts": {"cluster_seed"},
    "rows": {"splits", "split_by", "seed", "licenses", "captions", "duplicates"},
    "limits": {"time_limit", "memory_limit"},
    "running": {"workers", "engine"},
}
"""Which settings each part of the work depends on; every setting is in one of them.

``frames`` is decoding, ``facts`` what is worked out from decoded frames, ``rows`` what needs no frames. A part is done
again when a setting of it or of one before it changes. ``limits`` matter for the files that were refused by them.
"""
