"""Requests and results of the pipeline: a request for each sticker of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from rdtf.sticker import Sticker

GivenFrame = Image.Image | np.ndarray
OUTPUT_TYPES = ("pil", "np", "pt")
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A sticker to make; the given frames are ``(h, w, 4)`` uint8 by position."""

    caption: str
    negative: str
    given: Mapping[int, np.ndarray]
    loop: bool
    seed: int


@dataclass(frozen=True)
class StickerOutput:
    """The result of a call of the pipeline.

    Attributes:
        stickers: one for each caption and repetition, captions first.
        output_type: form of :attr:`frames`: one of :data:`OUTPUT_TYPES`.
    """

    stickers: list[Sticker]
    output_type: str = "pil"

    @property
    def frames(self) -> Any:
        """The frames with straight alpha, by ``output_type``.

        ``pil``: RGBA images ``frames[sticker][time]``. ``np``: ``(n, f, h, w, 4)`` float32 in [0, 1]. ``pt``: the same
        as a tensor ``(n, f, 4, h, w)``.
        """
        if self.output_type == "pil":
            return [[Image.fromarray(frame, "RGBA") for frame in sticker.frames] for sticker in self.stickers]
        video = np.stack([sticker.frames for sticker in self.stickers]).astype(np.float32) / 255
        return video if self.output_type == "np" else torch.from_numpy(video).movedim(-1, 2).contiguous()


def requests_of(
    prompts: Sequence[str],
    *,
    negative_prompt: str | Sequence[str] | None,
    frames: Mapping[int, GivenFrame] | Sequence[Mapping[int, GivenFrame]] | None,
    loop: bool | Sequence[bool],
    seed: int,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    repetitions: int,
    num_frames: int,
) -> list[Request]:
    """The stickers of a call: captions first, each repeated.

    Raises:
        ValueError: lists that are not one for each prompt, a position outside the clip, a frame of another form.
    """
    negatives = _each(negative_prompt, "", str, prompts, "negative prompts")
    given = _each(frames, {}, Mapping, prompts, "mappings of given frames")
    loops = _each(loop, False, bool, prompts, "values of loop")
    if outside := sorted({position for one in given for position in one if not 0 <= position < num_frames}):
        raise ValueError(f"given frames at {outside} lie outside a clip of {num_frames} (positions count from 0)")
    pixels = [{position: _as_rgba(frame) for position, frame in one.items()} for one in given]
    seeds = _seeds(seed, generator, len(prompts) * repetitions)
    return [
        Request(prompts[i], negatives[i], pixels[i], loops[i], seeds[i * repetitions + n])
        for i in range(len(prompts))
        for n in range(repetitions)
    ]


def _each(value: T | Sequence[T] | None, default: T, kind: type, prompts: Sequence[str], name: str) -> list[T]:
    if value is None or isinstance(value, kind):
        return [default if value is None else value] * len(prompts)  # type: ignore[list-item]
    values = list(value)  # type: ignore[arg-type]
    if len(values) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts with {len(values)} {name}; give one for each prompt")
    return values


def _seeds(seed: int, generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> list[int]:
    """A seed for each sticker. Seeds drawn from a generator depend on its state and change it."""
    if generator is None:
        return [seed + i for i in range(count)]
    each = [generator] * count if isinstance(generator, torch.Generator) else list(generator)
    if len(each) != count:
        raise ValueError(f"{count} stickers with {len(each)} generators; give one, or one for each sticker")
    return [int(torch.randint(2**62, (1,), generator=g, device=g.device)) for g in each]


def _as_rgba(frame: GivenFrame) -> np.ndarray:
    array = np.asarray(frame.convert("RGBA") if isinstance(frame, Image.Image) else frame)
    if array.ndim != 3 or array.shape[-1] != 4 or array.dtype != np.uint8:
        raise ValueError(f"a given frame must be RGBA (h, w, 4) uint8, got {array.shape} {array.dtype}")
    return array
