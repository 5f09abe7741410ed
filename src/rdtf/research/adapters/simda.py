"""SimDA (arXiv 2308.09710): small adapters in a frozen network, and self-attention to shifted frames of the past."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import attend, zero_init
from rdtf.research.adapters.clip_context import CurrentClips
from rdtf.research.adapters.networks import Block, blocks, heads_of, keys_values, output, places, queries

SHIFTS = ((4, 3, 2, 1), (3, 2, 1, 0), (2, 1, 0, 0), (1, 2, 3, 4))
"""How many frames back a place of the map looks, by its row and column modulo 4 (as released)."""


class SimDA(Adapter):
    """A spatial adapter behind each self-attention, one beside each feed-forward layer, a temporal one between residual
    block and transformer, and latent-shift attention. Widths are those of the release: a quarter and a half.

    Args:
        latent_shift: replace self-attention by latent-shift attention, as the paper does. It has no parameters, but
            changes what a clip of several frames gives from the first step on; a single frame, or one that stands
            still, stays as it was.
    """

    name = "simda"

    def __init__(self, network: nn.Module, latent_shift: bool = True) -> None:
        self.latent_shift = latent_shift
        super().__init__(network)

    def inject(self) -> None:
        """Adapters, and shifted attention in place of self-attention."""
        clips = CurrentClips(self.network)
        for place in places(self.network):
            if place.transformer is not None:
                adapter = TemporalAdapter(place.width, clips)
                place.residual.add_module("temporal_adapter", adapter)
                place.residual.register_forward_hook(adapter.after)
        for block in blocks(self.network):
            self._adapt(block)
            if self.latent_shift:
                block.attention.forward = LatentShift(block.attention, clips)

    @staticmethod
    def _adapt(block: Block) -> None:
        behind, beside = Bottleneck(block.width), Bottleneck(block.width)
        block.attention.add_module("adapter", behind)
        block.attention.register_forward_hook(behind.after)
        block.feed_forward.add_module("adapter", beside)
        block.norm.register_forward_hook(beside.remember)
        block.feed_forward.register_forward_hook(beside.beside)


class Bottleneck(nn.Module):
    """``up(GELU(down(x)))`` over tokens, a quarter wide; the exit starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, channels // 4)
        self.up = zero_init(nn.Linear(channels // 4, channels))
        self._input: Tensor | None = None

    def forward(self, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """What is to be added."""
        return self.up(F.gelu(self.down(x)))

    def after(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook: behind a layer, with a skip of its own."""
        return out + self(out)

    def remember(self, _norm: nn.Module, args: tuple[Tensor, ...], _out: Tensor) -> None:
        """A forward hook of the norm before the layer: what goes in there is what the adapter reads."""
        self._input = args[0]

    def beside(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook: parallel to the layer and its norm."""
        x, self._input = self._input, None
        assert x is not None
        return out + self(x)


class TemporalAdapter(nn.Module):
    """Half as wide, a depthwise convolution over time (3, 1, 1), and back; no norm, nothing non-linear; a residual."""

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
        """``n = b * f``. Padded frames are zeros to the others, as what lies beyond the ends of a clip is."""
        clips = self.clips.now
        video = self.down(rearrange(x, "(b f) c h w -> b c f h w", f=clips.frames))
        video = self.mix(video * clips.exists(video.dtype)[:, None, :, None, None])
        return x + rearrange(self.up(video), "b c f h w -> (b f) c h w")

    def after(self, _layer: nn.Module, _args: Any, out: Tensor) -> Tensor:
        """A forward hook."""
        return self(out)


class LatentShift:
    """Stands in for the forward pass of a self-attention, with its projections.

    Queries are those of a frame; its keys and values are those of the frame before it and its own, in both of which the
    tokens are shifted along time by :data:`SHIFTS`. Nothing comes from the future.
    """

    def __init__(self, attention: Any, clips: CurrentClips) -> None:
        self.attention, self.clips = attention, clips

    def __call__(self, x: Float[Tensor, "n l c"], *_args: Any, **_others: Any) -> Float[Tensor, "n l c"]:
        """Shape kept."""
        frames = self.clips.now.frames
        offsets = tile_offsets(*self.clips.now.map_size(x.shape[1]), device=x.device)
        q = heads_of(queries(self.attention, x), self.attention.heads)
        seen = []
        for tokens in keys_values(self.attention, x):
            shifted = shift(rearrange(tokens, "(b f) l c -> b f l c", f=frames), offsets)
            both = torch.cat([torch.cat([shifted[:, :1], shifted[:, :-1]], 1), shifted], 2)
            seen.append(heads_of(rearrange(both, "b f l c -> (b f) l c"), self.attention.heads))
        out = attend(q, seen[0], seen[1])
        return output(self.attention, rearrange(out, "n h l d -> n l (h d)"))


def tile_offsets(height: int, width: int, device: torch.device | None = None) -> Int[Tensor, " l"]:
    """:data:`SHIFTS` laid out over a map, cut off at its borders; row by row."""
    tile = torch.tensor(SHIFTS, device=device)
    rows, columns = torch.arange(height, device=device) % 4, torch.arange(width, device=device) % 4
    return tile[rows[:, None], columns[None, :]].flatten()


def shift(tokens: Float[Tensor, "b f l c"], offsets: Int[Tensor, " l"]) -> Float[Tensor, "b f l c"]:
    """Each place's token from so many frames earlier; where there is no such frame, the own one."""
    out = tokens
    for back in range(1, int(offsets.max()) + 1):
        earlier = torch.cat([tokens[:, :back], tokens[:, :-back]], 1)
        out = torch.where((offsets == back)[:, None], earlier, out)
    return out
