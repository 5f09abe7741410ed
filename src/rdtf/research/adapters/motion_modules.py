"""AnimateDiff's motion modules (arXiv 2307.04725): a temporal transformer after each level of a frozen network."""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import FeedForward, LayerNorm, SelfAttention, zero_init
from rdtf.research.adapters.clip_context import CurrentClips
from rdtf.research.adapters.networks import units

_HEADS = 8


class MotionModules(Adapter):
    """Adds a module after each level and the middle (21 for a Stable Diffusion 1.x network). Each starts as the
    identity.

    They are meant for networks without temporal layers. In our networks they are added to the network's own.
    """

    name = "motion-modules"

    def inject(self) -> None:
        """Add a module after each level."""
        clips = CurrentClips(self.network)
        for unit in units(self.network):
            module = MotionModule(unit.width, clips)
            unit.last.add_module("motion", module)
            unit.last.register_forward_hook(module.after)


class MotionModule(nn.Module):
    """Norm, projection, two self-attentions over the frames at each pixel, feed-forward, zero projection, residual.

    Sinusoidal positions of the frames are added before each attention.
    """

    def __init__(self, channels: int, clips: CurrentClips) -> None:
        super().__init__()
        self.clips = clips
        heads = math.gcd(_HEADS, channels)
        self.norm = nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.norm1, self.attention1 = LayerNorm(channels), SelfAttention(channels, channels // heads, heads)
        self.norm2, self.attention2 = LayerNorm(channels), SelfAttention(channels, channels // heads, heads)
        self.norm3, self.feed_forward = LayerNorm(channels), FeedForward(channels, 4)
        self.proj_out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """``n = b * f``. Padded frames are no keys."""
        clips, (_, channels, height, width) = self.clips.now, x.shape
        # Each frame is normalised alone, as in AnimateDiff's code. Contiguous, because torch's backward pass crashes
        # for channels-last input without a gradient.
        tokens = self.proj_in(rearrange(self.norm(x.contiguous()), "(b f) c h w -> (b h w) f c", f=clips.frames))
        hidden = torch.zeros(clips.valid.shape, device=x.device).masked_fill(~clips.valid, float("-inf"))
        bias = hidden.repeat_interleave(height * width, 0)[:, None, None, :]
        position = sinusoids(clips.frames, channels).to(tokens)
        tokens = tokens + self.attention1(self.norm1(tokens) + position, bias)
        tokens = tokens + self.attention2(self.norm2(tokens) + position, bias)
        tokens = tokens + self.feed_forward(self.norm3(tokens))
        return x + rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)

    def after(self, _layer: nn.Module, _args: Any, out: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        """A forward hook. Transformers of diffusers return a tuple with one tensor."""
        return (self(out[0]),) if isinstance(out, tuple) else self(out)


def sinusoids(frames: int, channels: int) -> Float[Tensor, "f c"]:
    """Sines and cosines of the frame's position, alternating, with frequencies from 1 to 1/10000."""
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angle = torch.arange(frames)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :channels]
