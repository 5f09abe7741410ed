"""What a caption alone says about a clip: the latents of a frame, and how they change over time (ours).

The U-Net's way from a caption to a frame is narrow: a small map of its coarsest level, and scales of channels. Fully
connected layers write whole frames at once. What they cannot know is left to the U-Net.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rdtf.model.layers import zero_init

_HARMONICS = 3  # of the clip's duration; more would tell 16 frames from 8


class TextPrior(nn.Module):
    """The latents of a frame from its caption: two fully connected layers."""

    def __init__(self, text_width: int, hidden: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.inner = nn.Linear(text_width, hidden)
        self.embed_out = zero_init(nn.Linear(hidden, channels * side * side))  # "embed": AdamW trains it faster

    def forward(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b c side side"]:
        """From the mean of the text states."""
        out = self.embed_out(F.silu(self.inner(pooled)))
        return rearrange(out, "b (c h w) -> b c h w", h=self.side, w=self.side)


class MotionPrior(nn.Module):
    """The change of the latents since the first frame of a looping clip, from its caption: three layers.

    A loop can begin with any frame. The caption says how it moves only if all its training clips begin with the same
    one, so networks with a motion prior are trained on such clips (:class:`rdtf.train.source.ClipSource`).
    """

    def __init__(self, text_width: int, hidden: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        # AdamW trains what is named "embed".
        self.embed_text = nn.Linear(text_width, hidden)
        self.embed_phase = nn.Linear(2 * _HARMONICS, hidden, bias=False)
        self.embed_inner = nn.Linear(hidden, hidden)
        self.embed_out = zero_init(nn.Linear(hidden, channels * side * side))

    def forward(
        self, pooled: Float[Tensor, "b d"], valid: Bool[Tensor, "b f"], like: Float[Tensor, "b c f h w"]
    ) -> Float[Tensor, "b c f h w"]:
        """The change, which is 0 in the first frame.

        Args:
            pooled: mean of the text states. valid: frames that exist; the loop is as long as their number.
            like: latents of the wanted height and width.
        """
        turns = torch.arange(valid.shape[1], device=valid.device) / valid.sum(1, keepdim=True)
        angles = 2 * math.pi * turns[..., None] * torch.arange(1, _HARMONICS + 1, device=valid.device)
        phase = torch.cat([angles.cos(), angles.sin()], -1).to(pooled.dtype)
        text = self.embed_text(pooled * pooled.square().mean(-1, keepdim=True).add(1e-4).rsqrt())
        hidden = F.silu(text[:, None] + 2 * self.embed_phase(phase))
        out = self.embed_out(F.silu(self.embed_inner(hidden)))
        out = rearrange(out - out[:, :1], "b f (c h w) -> (b f) c h w", h=self.side, w=self.side)
        return rearrange(scaled(out, like), "(b f) c h w -> b c f h w", b=len(valid))


def mean_state(states: Float[Tensor, "b l d"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, "b d"]:
    """The mean of the text states; 0 without a caption."""
    part = mask.to(states.dtype) / mask.sum(1, keepdim=True).clamp_min(1)
    return (part[:, None] @ states).squeeze(1)


def scaled(maps: Float[Tensor, "n c p q"], like: Tensor) -> Float[Tensor, "n c h w"]:
    """Maps of the height and width of ``like``."""
    size = like.shape[-2:]
    return maps if maps.shape[-2:] == size else F.interpolate(maps, size, mode="bilinear", align_corners=False)
