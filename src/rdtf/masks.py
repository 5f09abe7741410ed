"""The two masks of a clip: which frames are given (condition mask) and which frames the loss counts (loss mask).

One network learns six tasks. A task is a pattern of the condition mask and whether the caption is shown (paper,
Table 7). Every sample draws its own mask, for any number of frames. The loss mask makes short clips and stills usable:
they are padded to the length of the batch, and padding counts in nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_BOTH_SIDES_FRACTION = 0.25  # of the prediction masks with a chosen count: new frames on both sides


class Task(str, Enum):
    """The six tasks of the paper."""

    TEXT_TO_VIDEO = "text_to_video"
    IMAGE_TO_VIDEO = "image_to_video"
    IMAGE_TEXT_TO_VIDEO = "image_text_to_video"
    INTERPOLATION = "interpolation"
    FORWARD = "forward_prediction"
    BACKWARD = "backward_prediction"

    @property
    def uses_text(self) -> bool:
        """Whether the network sees the caption (only image to video hides it)."""
        return self is not Task.IMAGE_TO_VIDEO


GENERATION = (Task.TEXT_TO_VIDEO, Task.IMAGE_TO_VIDEO, Task.IMAGE_TEXT_TO_VIDEO)
PREDICTION = (Task.FORWARD, Task.BACKWARD)


@dataclass(frozen=True)
class Pattern:
    """A condition mask with a name: training draws it, evaluation and comparison measure it.

    Attributes:
        task: the task that draws it. known: the mask for a number of frames, ``(n,)`` bool, True = given.
    """

    task: Task
    known: Callable[[int], np.ndarray]

    def marks(self, num_frames: int) -> str:
        """The mask as text, 1 = given: ``10101010``."""
        return "".join("1" if given else "0" for given in self.known(num_frames))


def _kept(num_frames: int) -> int:
    return -(-5 * num_frames // 8)


PATTERNS = {
    "in-between": Pattern(Task.INTERPOLATION, lambda n: np.arange(n) % 2 == 0),  # 10101010
    "in-between, wide": Pattern(Task.INTERPOLATION, lambda n: np.arange(n) % 3 == 0),  # 10010010
    "extend forward": Pattern(Task.FORWARD, lambda n: np.arange(n) < _kept(n)),  # 11111000
    "extend backward": Pattern(Task.BACKWARD, lambda n: np.arange(n) >= n - _kept(n)),  # 00011111
    "from one image": Pattern(Task.IMAGE_TO_VIDEO, lambda n: np.arange(n) == 0),  # 10000000
}
"""The measured patterns by name, in the order of the tables."""


def unknown_counts(task: Task, num_frames: int) -> range:
    """The numbers of unknown frames that ``task`` can have in a clip of ``num_frames``; empty if there are none.

    A still has only the text task. In-betweening and prediction keep at least two known frames (in a clip of two or
    three, prediction keeps one).
    """
    n = num_frames
    if task is Task.TEXT_TO_VIDEO:
        return range(n, n + 1)
    if task in GENERATION:
        return range(n - 1, n) if n > 1 else range(0)
    kept = 2 if task is Task.INTERPOLATION or n > 3 else 1
    return range(1, n - kept + 1)


def draw_known(
    task: Task,
    num_frames: int,
    rng: np.random.Generator,
    *,
    unknown: int | None = None,
    loop: bool = False,
    showable: np.ndarray | None = None,
) -> np.ndarray:
    """Draw which frames of one clip are given.

    Args:
        unknown: the number of unknown frames. In-betweening then draws any mask with a gap between known frames.
            Prediction puts the new frames on one side, or (a quarter of the time) on both sides, with the smaller part
            on the other side. By default the mask is the paper's: in-betweening draws a periodic mask (10101010,
            01010101, 10010010, ...), prediction keeps at least half of the clip known.
        loop: time is circular, so a gap around the end of the clip lies between known frames too.
        showable: ``(num_frames,)`` bool, frames that may be the one given image (an empty frame says nothing).

    Returns:
        ``(num_frames,)`` bool, True = known.

    Raises:
        ValueError: the clip is too short for the task, or for that number of unknown frames.
    """
    counts = unknown_counts(task, num_frames)
    if not counts or (unknown is not None and unknown not in counts):
        wanted = "any" if unknown is None else unknown
        raise ValueError(f"{task.value} cannot have {wanted} unknown frames in a clip of {num_frames}")
    known = np.zeros(num_frames, bool)
    if task is Task.TEXT_TO_VIDEO:
        return known
    if task in GENERATION:
        fit = np.flatnonzero(showable) if showable is not None and showable.any() else np.arange(num_frames)
        known[rng.choice(fit)] = True
        return known
    if task is Task.INTERPOLATION:
        return _draw_periodic(num_frames, rng) if unknown is None else _draw_subset(num_frames, unknown, rng, loop)
    other = 0  # new frames on the other side
    if unknown is None:
        unknown = int(rng.integers(1, num_frames - max(1, num_frames // 2) + 1))
    elif unknown > 1 and rng.random() < _BOTH_SIDES_FRACTION:
        other = int(rng.integers(1, unknown // 2 + 1))
    known[other : num_frames - unknown + other] = True
    return known if task is Task.FORWARD else known[::-1].copy()


def _draw_subset(num_frames: int, unknown: int, rng: np.random.Generator, loop: bool) -> np.ndarray:
    while True:
        known = np.ones(num_frames, bool)
        known[rng.choice(num_frames, unknown, replace=False)] = False
        first, last = np.flatnonzero(known)[[0, -1]]
        if loop or not known[first : last + 1].all():
            return known


def _draw_periodic(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Every (gap + 1)-th frame known, at least two of them; small gaps are likelier."""
    patterns, weights = [], []
    for gap in range(1, num_frames - 1):
        for phase in range(gap + 1):
            pattern = np.arange(num_frames) % (gap + 1) == phase
            if pattern.sum() >= 2:
                patterns.append(pattern)
                weights.append(1.0 / (gap * (gap + 1)))
    return patterns[rng.choice(len(patterns), p=np.array(weights) / sum(weights))]


def loss_mask(valid: Bool[Tensor, "b f"], known: Bool[Tensor, "b f"], on_known: bool) -> Bool[Tensor, "b f"]:
    """Frames that the loss counts: existing frames, without the given ones unless ``on_known`` (as in the paper)."""
    return valid if on_known else valid & ~known


def masked_mean(error: Float[Tensor, "b c f h w"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, " b"]:
    """The mean error of each clip over counted elements; 0 where nothing counts.

    Uncounted errors are replaced by 0, not multiplied by 0: a NaN in the padding must not spread.
    """
    counted = torch.where(mask[:, None, :, None, None], error, torch.zeros((), dtype=error.dtype, device=error.device))
    elements = mask.sum(1).to(error.dtype) * (error.shape[1] * error.shape[3] * error.shape[4])
    return counted.sum((1, 2, 3, 4)) / elements.clamp_min(1)


def weighted_loss(losses: Float[Tensor, " b"], valid: Bool[Tensor, "b f"], frames: int) -> Float[Tensor, ""]:
    """The loss of some clips of a step. A clip weighs as much as it has frames, known or unknown.

    A mean over all unknown frames of a step would weigh a clip with one unknown frame an eighth of a clip with eight.
    If given frames count too (the paper's loss), both means are the same.

    Args:
        losses: :func:`masked_mean` of each clip. frames: the number of frames of all clips of the step.
    """
    return (losses * valid.sum(1)).sum() / frames
