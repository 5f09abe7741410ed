"""The one typed batch that data hands to training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rdtf.masks import Task


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one padded length.

    Attributes:
        video: clean latents, about unit variance; zeros where padded.
        valid: frames that exist; the first ones of each clip, at least one.
        known: condition mask, a subset of ``valid``.
        loop: time is circular.
        tasks: the task of each clip.
        text: features of each clip's caption, from the text encoder's ``prepare``; of the empty caption where the
            text is hidden.
        ids: which sticker each clip was drawn from.
        positions: each clip's place in the step's whole batch; its noise depends on that alone.
    """

    video: Float[Tensor, "b c f h w"]
    valid: Bool[Tensor, "b f"]
    known: Bool[Tensor, "b f"]
    loop: Bool[Tensor, " b"]
    tasks: tuple[Task, ...]
    text: tuple[Any, ...]
    ids: tuple[str, ...]
    positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    def to(self, device: torch.device | str) -> ClipBatch:
        """Tensors on ``device``."""
        return ClipBatch(
            self.video.to(device),
            self.valid.to(device),
            self.known.to(device),
            self.loop.to(device),
            self.tasks,
            self.text,
            self.ids,
            self.positions,
        )
