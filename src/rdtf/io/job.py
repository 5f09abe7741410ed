"""The input of every reader: the bytes of a file, the limits and the wanted frames."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from rdtf.pixels import fit
from rdtf.sticker import StickerError

STILL_MS = 1000.0
"""Milliseconds that a still picture is shown."""
BROWSER_MS = 100.0
"""Milliseconds of a GIF frame of 10 ms or less, as in browsers. In other formats only for 0 ms."""


@dataclass(frozen=True)
class ReadLimits:
    """Limits for files. Stickers are far below them; a larger file is a mistake or an attack."""

    image_bytes: int = 20 * 2**20
    lottie_bytes: int = 16 * 2**20  # after inflating
    video_bytes: int = 64 * 2**20
    side: int = 8192
    frame_pixels: int = 16_000_000
    total_pixels: int = 400_000_000  # frames times canvas
    frames: int = 2000
    seconds: float = 60.0
    lottie_depth: int = 64
    lottie_side: int = 4096
    lottie_fps: float = 240.0
    lottie_layers: int = 5000
    lottie_nodes: int = 100_000  # layers after following all references to compositions

    @property
    def file_bytes(self) -> int:
        """Size of the largest file of any kind."""
        return max(self.image_bytes, self.lottie_bytes, self.video_bytes)


LIMITS = ReadLimits()


@dataclass(frozen=True)
class Job:
    """A file to read: its bytes and the caller's wishes."""

    path: Path
    data: bytes
    size: int | None
    max_frames: int | None
    left_out: list[str] = field(default_factory=list)
    """Sentences about parts of the file that are not drawn. Readers add to it."""
    limits: ClassVar[ReadLimits] = LIMITS

    def refuse(self, reason: str) -> StickerError:
        """The error to raise about this file."""
        return StickerError(self.path, reason)

    def check(self, frames: int, width: int, height: int) -> None:
        """Raise if decoding would exceed the limits."""
        limits = self.limits
        if max(width, height) > limits.side or width * height > limits.frame_pixels:
            raise self.refuse(f"{width} x {height} px is too large (at most {limits.side} px a side)")
        if frames > limits.frames:
            raise self.refuse(f"{frames} frames are too many (at most {limits.frames})")
        if frames * width * height > limits.total_pixels:
            raise self.refuse(f"{frames} frames of {width} x {height} px are too much to decode")

    def check_seconds(self, seconds: float) -> None:
        """Raise if the animation is too long."""
        if seconds > self.limits.seconds:
            raise self.refuse(f"{seconds:.1f} s is too long (at most {self.limits.seconds:g} s)")

    def check_unfolded(self, sizes: Mapping[str, int], uses: Mapping[str, Sequence[str]], root: str, what: str) -> None:
        """Raise if parts of a vector file contain themselves, or the root is too large after following all references.

        Args:
            sizes: number of ``what`` in each part. uses: the parts that each part draws, one for each time.
        """
        try:
            inside_out = list(graphlib.TopologicalSorter(uses).static_order())
        except graphlib.CycleError:
            raise self.refuse(f"one of its {what} contains itself") from None
        total: dict[str, int] = {}
        for name in inside_out:
            total[name] = sizes[name] + sum(total[used] for used in uses[name])
        if total[root] > self.limits.lottie_nodes:
            raise self.refuse(f"unfolds to more than {self.limits.lottie_nodes} {what}")

    def kept(self, durations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the frames to keep, and their durations in milliseconds.

        If there are more than ``max_frames``, the frames at the points of an even time grid are kept. Each lasts until
        the next kept frame, so the total duration stays. A frame at several grid points is kept once.
        """
        self.check_seconds(durations.sum() / 1000)
        if self.max_frames is None or len(durations) <= self.max_frames:
            return np.arange(len(durations)), durations
        ends = np.cumsum(durations)
        starts = ends - durations
        grid = np.arange(self.max_frames) * ends[-1] / self.max_frames
        indices = np.unique(np.searchsorted(starts, grid + 1e-6, side="right") - 1)
        return indices, np.diff(np.append(starts[indices], ends[-1]))

    def fitted(self, frame: np.ndarray) -> np.ndarray:
        """One ``(h, w, 4)`` frame at the wanted size, with nothing under alpha 0."""
        if self.size is not None:
            frame = fit(frame[None], self.size)[0]
        return np.where(frame[..., 3:] > 0, frame, np.uint8(0))


Frames = tuple[list[np.ndarray], np.ndarray]
