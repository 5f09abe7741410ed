"""Requests and results of the pipeline: checks of a call, and a request for each sticker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from rdtf.sticker import Sticker

GivenFrame = Image.Image | np.ndarray
OUTPUT_TYPES = ("pil", "np", "pt")
MAX_SEED = 2**63 - 1
MAX_FPS = 1000.0
MAX_GUIDANCE = 100.0
MAX_OUTPUT_SIZE = 4096
T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """A sticker to make."""

    caption: str
    negative: str
    given: Mapping[int, GivenFrame]
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
        ValueError: lists that are not one for each prompt, a position outside the clip, a seed out of range.
    """
    negatives = _each(negative_prompt, "", str, prompts, "negative prompts")
    given = _each(frames, {}, Mapping, prompts, "mappings of given frames")
    loops = _each(loop, False, bool, prompts, "values of loop")
    if outside := sorted({position for one in given for position in one if not 0 <= position < num_frames}):
        raise ValueError(f"given frames at {outside} lie outside a clip of {num_frames} (positions count from 0)")
    seeds = _seeds(seed, generator, len(prompts) * repetitions)
    return [
        Request(prompts[i], negatives[i], given[i], loops[i], seeds[i * repetitions + n])
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


def side_of(output_size: int | None, height: int | None, width: int | None) -> int | None:
    """Height and width of the output, which are equal; None if none is given.

    Raises:
        ValueError: they are not equal, or out of range.
    """
    sides = {side for side in (output_size, height, width) if side is not None}
    if len(sides) > 1:
        raise ValueError(
            f"stickers are square: output_size {output_size}, height {height} and width {width} must be the same number"
        )
    side = sides.pop() if sides else None
    if side is not None and not 1 <= side <= MAX_OUTPUT_SIZE:
        raise ValueError(f"output_size (height, width) must be 1 to {MAX_OUTPUT_SIZE}, not {side}")
    return side


def check_call(
    *,
    fps: float = 8.0,
    durations: Sequence[float] | None = None,
    num_frames: int = 8,
    guidance_scale: float = 1.0,
    image_guidance_scale: float = 1.0,
    seed: int = 0,
    num_stickers_per_prompt: int = 1,
    output_type: str = "pil",
    **_others: Any,
) -> None:
    """Check the arguments of a call that need no model.

    Raises:
        ValueError: a number is out of range or none; an unknown form of output.
    """
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"fps must be above 0 and at most {MAX_FPS:g}, not {fps}")
    if durations is not None:
        if len(durations) != num_frames:
            raise ValueError(f"{num_frames} frames with {len(durations)} durations; give one for each frame")
        if not all(math.isfinite(ms) and ms > 0 for ms in durations):
            raise ValueError(f"durations must be milliseconds above 0, not {list(durations)}")
    for name, scale in (("image_guidance_scale", image_guidance_scale), ("guidance_scale", guidance_scale)):
        if not (math.isfinite(scale) and abs(scale) <= MAX_GUIDANCE):
            raise ValueError(f"{name} must be from {-MAX_GUIDANCE:g} to {MAX_GUIDANCE:g}, not {scale}")
    if not -MAX_SEED <= seed <= MAX_SEED - num_stickers_per_prompt:
        raise ValueError(f"the seed {seed} is out of range; it goes from {-MAX_SEED} to {MAX_SEED}")
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"unknown output_type {output_type!r}; use {', '.join(OUTPUT_TYPES)}")


def as_rgba(frame: GivenFrame) -> np.ndarray:
    """A given frame as ``(h, w, 4)`` uint8.

    Raises:
        ValueError: it is an array of another form.
    """
    array = np.asarray(frame.convert("RGBA") if isinstance(frame, Image.Image) else frame)
    if array.ndim != 3 or array.shape[-1] != 4 or array.dtype != np.uint8:
        raise ValueError(f"a given frame must be RGBA (h, w, 4) uint8, got {array.shape} {array.dtype}")
    return array
