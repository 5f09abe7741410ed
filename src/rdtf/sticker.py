"""The one thing every part of RDTF passes around: an animated sticker as straight-alpha RGBA frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


class StickerError(ValueError):
    """A sticker file that cannot be used. Its text names the file, the reason and, where known, the mend."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way back from a worker process
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Sticker:
    """An animated sticker (or a still one: a single frame).

    Attributes:
        frames: ``(n, h, w, 4)`` uint8, RGBA with straight (not premultiplied) alpha.
        durations: ``(n,)`` float64, milliseconds that each frame is shown; all > 0.
        caption: what it shows, in words; empty if unknown.
        attributes: anything else known about it (JSON-able).

    Raises:
        ValueError: shapes, dtypes or durations are not as above.
    """

    frames: np.ndarray
    durations: np.ndarray
    caption: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames, durations = self.frames, self.durations
        if frames.ndim != 4 or frames.shape[-1] != 4 or frames.dtype != np.uint8 or 0 in frames.shape:
            raise ValueError(f"frames must be (n, h, w, 4) uint8 with n, h, w > 0, got {frames.shape} {frames.dtype}")
        if durations.shape != (len(frames),):
            raise ValueError(f"durations must be ({len(frames)},), got {durations.shape}")
        if not (np.isfinite(durations).all() and (durations > 0).all()):
            raise ValueError("every frame needs a duration above 0 ms")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    @classmethod
    def at_fps(cls, frames: np.ndarray, fps: float = 8.0, **kwargs: Any) -> Sticker:
        """A sticker whose frames are all shown for ``1 / fps`` seconds."""
        return cls(frames, np.full(len(frames), 1000.0 / fps), **kwargs)
