"""The dual masks: which frames are given (condition mask) and which exist (loss mask).

One network learns six tasks; each is a pattern of the condition mask and of the text gate (paper, Table 7). Masks
are drawn for every sample on its own and for any number of frames. The loss mask makes short clips and still
stickers usable: they are padded to the batch's length and the padding counts in nothing.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


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
        """Whether the caption is shown to the network (image to video is the one task without it)."""
        return self is not Task.IMAGE_TO_VIDEO


GENERATION = (Task.TEXT_TO_VIDEO, Task.IMAGE_TO_VIDEO, Task.IMAGE_TEXT_TO_VIDEO)
PREDICTION = (Task.FORWARD, Task.BACKWARD)


def unknown_counts(task: Task, num_frames: int) -> range:
    """The numbers of unknown frames that ``task`` can have in a clip of ``num_frames``; empty if it cannot be posed.

    A still has only the text task. In-betweening needs two known frames around an unknown one; prediction keeps at
    least half of the clip known, as in the paper's masks (11111000, 00111111).
    """
    n = num_frames
    if task is Task.TEXT_TO_VIDEO:
        return range(n, n + 1)
    if task in GENERATION:
        return range(n - 1, n) if n > 1 else range(0)
    if task is Task.INTERPOLATION:
        return range(1, n - 1)
    return range(1, n - max(1, n // 2) + 1)


def possible_tasks(num_frames: int) -> list[Task]:
    """The tasks that can be posed on a clip of ``num_frames``."""
    return [task for task in Task if len(unknown_counts(task, num_frames))]


def draw_known(
    task: Task,
    num_frames: int,
    rng: np.random.Generator,
    *,
    unknown: int | None = None,
    showable: np.ndarray | None = None,
) -> np.ndarray:
    """Draw which frames of one clip are given.

    Args:
        unknown: the number of unknown frames wanted; by default drawn as the paper does: for in-betweening a
            periodic pattern (10101010, 01010101, 10010010, ...), for prediction uniform.
        showable: ``(num_frames,)`` bool, frames fit to be the one given image (an empty frame says nothing).

    Returns:
        ``(num_frames,)`` bool, True = known.

    Raises:
        ValueError: the task cannot be posed on so few frames, or not with that many unknown ones.
    """
    counts = unknown_counts(task, num_frames)
    if not counts or (unknown is not None and unknown not in counts):
        wanted = "any" if unknown is None else unknown
        raise ValueError(f"{task.value} cannot have {wanted} unknown frames in a clip of {num_frames}")
    known = np.zeros(num_frames, bool)
    if task in GENERATION:
        if task is not Task.TEXT_TO_VIDEO:
            fit = np.flatnonzero(showable) if showable is not None and showable.any() else np.arange(num_frames)
            known[rng.choice(fit)] = True
    elif task is Task.INTERPOLATION:
        if unknown is None:
            known = _periodic(num_frames, rng)
        else:
            known[:] = True
            known[1 + rng.choice(num_frames - 2, unknown, replace=False)] = False
    else:
        missing = unknown if unknown is not None else int(rng.integers(counts.start, counts.stop))
        known[: num_frames - missing] = True
        if task is Task.BACKWARD:
            known = known[::-1].copy()
    return known


def _periodic(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Every (gap + 1)-th frame known from a random phase, at least two of them; small gaps are likelier."""
    patterns, weights = [], []
    for gap in range(1, num_frames - 1):
        for phase in range(gap + 1):
            pattern = np.zeros(num_frames, bool)
            pattern[phase :: gap + 1] = True
            if pattern.sum() >= 2:
                patterns.append(pattern)
                weights.append(1.0 / (gap * (gap + 1)))
    return patterns[rng.choice(len(patterns), p=np.array(weights) / sum(weights))]


def loss_mask(valid: Bool[Tensor, "b f"], known: Bool[Tensor, "b f"], on_known: bool) -> Bool[Tensor, "b f"]:
    """Frames that the loss counts: those that exist and, unless ``on_known`` (as in the paper), are not given."""
    return valid if on_known else valid & ~known


def masked_mean(error: Float[Tensor, "b c f h w"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, " b"]:
    """Each clip's mean error over counted elements; 0 where nothing counts.

    Uncounted errors are replaced, not multiplied by 0: a NaN in the padding stays out too.
    """
    counted = torch.where(mask[:, None, :, None, None], error, torch.zeros((), dtype=error.dtype, device=error.device))
    elements = mask.sum(1).to(error.dtype) * (error.shape[1] * error.shape[3] * error.shape[4])
    return counted.sum((1, 2, 3, 4)) / elements.clamp_min(1)


def weighted_loss(losses: Float[Tensor, " b"], valid: Bool[Tensor, "b f"], frames: int) -> Float[Tensor, ""]:
    """The clips' part in a step's loss: each clip weighs as much as it has frames, however many of them are unknown.

    A mean over all unknown frames of a step would give a clip with one of them an eighth of the weight of one from text
    alone. Where given frames count too (the paper's loss) both are the same.

    Args:
        losses: of each clip, its :func:`masked_mean`. frames: how many the clips of the whole step have.
    """
    return (losses * valid.sum(1)).sum() / frames
