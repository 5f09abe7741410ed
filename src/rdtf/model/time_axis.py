"""The time axis of a batch: which frames exist, and which frames come before and after.

Clips of a batch have different lengths (the rest is padding). A circular clip's first frame follows its last. Layers
that mix frames use only the matrices of this module, in which padded frames have weight 0. All positions are relative:
rotating a circular clip rotates the output.

Shapes: ``b`` clips, ``f`` frame slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_FRAMES = 16


@dataclass(frozen=True)
class TimeAxis:
    """The time axis of a batch.

    Attributes:
        valid: frames that exist, the first ones of each clip.
        offset: ``offset[b, i, j]`` = position of frame j relative to frame i, plus ``MAX_FRAMES - 1`` (an index
            into a table of relative positions).
        key_bias: 0 where the key frame exists, -inf where it is padding.
        shift: 0/1 matrices that select each frame's predecessor (first f rows) and successor (last f rows). The row of
            a missing neighbour is zero.
    """

    valid: Bool[Tensor, "b f"]
    offset: Int[Tensor, "b f f"]
    key_bias: Float[Tensor, "b f"]
    shift: Float[Tensor, "b 2*f f"]

    @property
    def frames(self) -> int:
        """Number of frame slots."""
        return self.valid.shape[1]


def make_time_axis(valid: Bool[Tensor, "b f"], loop: Bool[Tensor, " b"] | None = None) -> TimeAxis:
    """Build the axis of a batch.

    Args:
        valid: existing frames; they come first in each clip, and there is at least one.
        loop: clips whose time is circular (default: none).

    Raises:
        ValueError: more than ``MAX_FRAMES`` slots; on a processor also a clip without frames, or a gap in the existing
            frames.
    """
    f = valid.shape[1]
    if not 1 <= f <= MAX_FRAMES:
        raise ValueError(f"a clip has 1 to {MAX_FRAMES} frames, not {f}")
    length = valid.sum(1)
    position = torch.arange(f, device=valid.device)
    # On a GPU this check would synchronise.
    if valid.device.type == "cpu" and ((length == 0).any() or (valid != (position < length[:, None])).any()):
        raise ValueError("every clip needs at least one frame, and its existing frames must come first")
    circular = torch.zeros_like(length, dtype=torch.bool) if loop is None else loop

    n = length[:, None, None]
    step = position[None, None, :] - position[None, :, None]  # j - i
    # Circular distances lie in (-n/2, n/2], so opposite frames have the distance n/2.
    half = (n - 1) // 2
    wrapped = torch.remainder(step + half, n) - half
    offset = torch.where(circular[:, None, None], wrapped, step)

    both = valid[:, :, None] & valid[:, None, :]
    before = both & _reached(step, -1, n, circular)
    after = both & _reached(step, 1, n, circular)
    return TimeAxis(
        valid=valid,
        offset=offset.clamp(1 - MAX_FRAMES, MAX_FRAMES - 1) + MAX_FRAMES - 1,
        key_bias=torch.zeros(valid.shape, device=valid.device).masked_fill(~valid, float("-inf")),
        shift=torch.cat([before, after], 1).float(),
    )


def _reached(step: Tensor, by: int, n: Tensor, circular: Tensor) -> Tensor:
    """Whether frame j is ``by`` frames after frame i, modulo the length for circular clips."""
    linear = step == by
    return torch.where(circular[:, None, None], torch.remainder(step - by, n) == 0, linear)


@dataclass(frozen=True)
class KnownNeighbours:
    """The nearest known frames before and after each frame, as matrices over the frames of the clip.

    Attributes:
        previous, next: 0/1 rows that select the frame; zero if there is none.
        blend: weights of the cross-fade of both by distance. If one is missing, the other has weight 1. If both are,
            the row is zero. A known frame's row selects the frame itself.
        distance: to the previous and the next known frame in clip lengths, 0 to 1; 1 if there is none.
    """

    previous: Float[Tensor, "b f f"]
    next: Float[Tensor, "b f f"]
    blend: Float[Tensor, "b f f"]
    distance: Float[Tensor, "b f 2"]


def known_neighbours(
    known: Bool[Tensor, "b f"], valid: Bool[Tensor, "b f"], loop: Bool[Tensor, " b"]
) -> KnownNeighbours:
    """Find the nearest known frames. Padded frames have zero rows and are never selected."""
    f = known.shape[1]
    position = torch.arange(f, device=known.device)
    step = (position[None, None, :] - position[None, :, None]).expand(len(known), f, f)  # j - i
    n = valid.sum(1)[:, None, None]
    far = 2 * MAX_FRAMES
    usable = (known & valid)[:, None, :] & valid[:, :, None]

    picks, distances = [], []
    for direction in (-1, 1):
        ahead = step * direction
        ahead = torch.where(loop[:, None, None], torch.remainder(ahead, n), ahead)
        ahead = torch.where(usable & (ahead >= 0), ahead, far)
        distance, index = ahead.min(2)
        exists = distance < far
        picks.append(torch.nn.functional.one_hot(index, f).float() * exists[..., None])
        distances.append(torch.where(exists, distance, far).float())

    (previous, following), (to_previous, to_next) = picks, distances
    has_previous, has_next = (to_previous < far), (to_next < far)
    total = (to_previous + to_next).clamp_min(1e-6)
    share = torch.where(to_previous + to_next == 0, torch.ones_like(total), to_next / total)
    share = torch.where(has_previous & has_next, share, has_previous.float())[..., None]
    blend = share * previous + (1 - share) * following * has_next[..., None]
    relative = torch.stack(distances, -1) / valid.sum(1).float()[:, None, None]
    return KnownNeighbours(previous, following, blend, relative.clamp_max(1.0))
