"""SimDA (arXiv 2308.09710): small adapters in a frozen network, and self-attention to shifted earlier frames."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import SelfAttention, attend, zero_init
from rdtf.research.adapters.networks import (
    CurrentClips,
    heads_of,
    keys_values,
    levels,
    query_weight,
    transformers,
    width_of,
)

SHIFTS = ((4, 3, 2, 1), (3, 2, 1, 0), (2, 1, 0, 0), (1, 2, 3, 4))
"""Number of frames that a pixel of the map looks back, by its row and column modulo 4 (as in the release)."""


class SimDA(Adapter):
    """Spatial adapters, temporal adapters and latent-shift attention, with the widths of the release.

    A spatial adapter (a quarter of the channels) follows each self-attention, and one is parallel to each feed-forward
    layer. A temporal adapter (half of the channels) is between residual block and transformer.

    Args:
        latent_shift: replace self-attention by latent-shift attention, as in the paper. It has no parameters. It
            changes the output for moving clips from the first step on; stills and clips without motion do not change.
    """

    name = "simda"

    def __init__(self, network: nn.Module, latent_shift: bool = True) -> None:
        self.latent_shift = latent_shift
        super().__init__(network)

    def inject(self) -> None:
        """Add the adapters, and replace self-attention by shifted attention."""
        clips = CurrentClips(self.network)
        for level in levels(self.network):
            if level.spatial is not None:
                adapter = TemporalAdapter(width_of(level), clips)
                level.residual.add_module("temporal_adapter", adapter)
                level.residual.register_forward_hook(adapter.after)
        for block, width in transformers(self.network):
            behind, beside = Bottleneck(width), Bottleneck(width)
            block.self_attention.add_module("adapter", behind)
            block.self_attention.register_forward_hook(behind.after)
            block.feed_forward.add_module("adapter", beside)
            block.norm3.register_forward_hook(beside.remember)
            block.feed_forward.register_forward_hook(beside.beside)
            if self.latent_shift:
                attention = block.self_attention
                attention.forward = LatentShift(attention, clips)  # type: ignore[method-assign]


class Bottleneck(nn.Module):
    """``up(GELU(down(x)))`` over tokens, with a quarter of the channels. ``up`` starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, channels // 4)
        self.up = zero_init(nn.Linear(channels // 4, channels))
        self._input: Tensor | None = None

    def forward(self, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """The summand for the layer's output."""
        return self.up(F.gelu(self.down(x)))

    def after(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook: after a layer, as a residual."""
        return out + self(out)

    def remember(self, _norm: nn.Module, args: tuple[Tensor, ...], _out: Tensor) -> None:
        """A forward hook of the norm before the layer. The adapter reads the norm's input."""
        self._input = args[0]

    def beside(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook: parallel to the layer and its norm."""
        x, self._input = self._input, None
        assert x is not None
        return out + self(x)


class TemporalAdapter(nn.Module):
    """Projection to half of the channels, depthwise convolution over time (3, 1, 1), projection back, residual."""

    def __init__(self, channels: int, clips: CurrentClips) -> None:
        super().__init__()
        self.clips = clips
        inner = channels // 2
        self.down = nn.Conv3d(channels, inner, 1)
        self.mix = nn.Conv3d(inner, inner, (3, 1, 1), padding=(1, 0, 0), groups=inner)
        self.up = zero_init(nn.Conv3d(inner, channels, 1))
        for conv in (self.down, self.mix):
            nn.init.kaiming_normal_(conv.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """``n = b * f``. Padded frames, and frames beyond the ends of a clip, count as zeros."""
        clips = self.clips.now
        video = self.down(rearrange(x, "(b f) c h w -> b c f h w", f=clips.frames))
        video = self.mix(video * clips.valid.to(video.dtype)[:, None, :, None, None])
        return x + rearrange(self.up(video), "b c f h w -> (b f) c h w")

    def after(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook."""
        return self(out)


class LatentShift:
    """Replaces the forward of a self-attention, with its projections.

    Queries come from a frame. Keys and values come from this frame and the frame before it, after shifting the tokens
    of both along time by :data:`SHIFTS`. Later frames are never used.
    """

    def __init__(self, attention: SelfAttention, clips: CurrentClips) -> None:
        self.attention, self.clips = attention, clips

    def __call__(self, x: Float[Tensor, "n l c"], *_args: Any, **_others: Any) -> Float[Tensor, "n l c"]:
        """Shape kept."""
        frames = self.clips.now.frames
        offsets = tile_offsets(*self.clips.now.map_size(x.shape[1]), device=x.device)
        q = heads_of(F.linear(x, query_weight(self.attention)), self.attention.heads)
        seen = []
        for tokens in keys_values(self.attention, x):
            shifted = shift(rearrange(tokens, "(b f) l c -> b f l c", f=frames), offsets)
            both = torch.cat([torch.cat([shifted[:, :1], shifted[:, :-1]], 1), shifted], 2)
            seen.append(heads_of(rearrange(both, "b f l c -> (b f) l c"), self.attention.heads))
        out = attend(q, seen[0], seen[1])
        return self.attention.out(rearrange(out, "n h l d -> n l (h d)"))


def tile_offsets(height: int, width: int, device: torch.device | None = None) -> Int[Tensor, " l"]:
    """:data:`SHIFTS` repeated over a map, row by row."""
    tile = torch.tensor(SHIFTS, device=device)
    rows, columns = torch.arange(height, device=device) % 4, torch.arange(width, device=device) % 4
    return tile[rows[:, None], columns[None, :]].flatten()


def shift(tokens: Float[Tensor, "b f l c"], offsets: Int[Tensor, " l"]) -> Float[Tensor, "b f l c"]:
    """The token of each pixel from ``offsets`` frames earlier, or its own token if there is no such frame."""
    out = tokens
    for back in range(1, int(offsets.max()) + 1):
        earlier = torch.cat([tokens[:, :back], tokens[:, :-back]], 1)
        out = torch.where((offsets == back)[:, None], earlier, out)
    return out
