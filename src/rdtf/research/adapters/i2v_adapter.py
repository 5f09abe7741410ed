"""I2V-Adapter (arXiv 2312.16693): every frame attends to the first frame. With its frame similarity prior."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import attend, zero_init
from rdtf.research.adapters.clip_context import CurrentClips
from rdtf.research.adapters.networks import blocks, heads_of, inner_width, keys_values, query_weight

_SIGMA = 18.0  # deviation of the blur in pixels of the map, which is almost a mean over the kernel


class I2VAdapter(Adapter):
    """Adds an attention to the first frame to every spatial self-attention.

    Keys and values come from the frozen projections. The query projection starts as a copy of the self-attention's, and
    the output projection at zero; these two are trained. In our networks the frame is the first given one, and clips
    without given frames do not change.

    Args:
        keep: fraction of the picture that stays sharp in the frame similarity prior, see :meth:`init_latents`.
        blur: kernel size of the prior's blur.
        start: noise level at which sampling starts (1 = pure noise, as in the release).

    Raises:
        ValueError: an option out of range.
    """

    name = "i2v-adapter"

    def __init__(self, network: nn.Module, keep: float = 0.5, blur: int = 9, start: float = 1.0) -> None:
        if not (0 <= keep <= 1 and blur >= 1 and blur % 2 and 0 < start <= 1):
            raise ValueError(
                f"i2v-adapter: keep lies in 0..1, blur is odd, start in 0..1, not {keep}, {blur} and {start}"
            )
        self.keep, self.blur, self.start = keep, blur, start
        super().__init__(network)

    def inject(self) -> None:
        """Add an attention to the first frame to each self-attention."""
        clips = CurrentClips(self.network)
        for block in blocks(self.network):
            adapter = FirstFrameAttention(block.attention, block.width, clips)
            block.attention.add_module("first_frame", adapter)
            block.attention.register_forward_hook(adapter.after)

    @property
    def start_level(self) -> float:
        """``start``."""
        return self.start

    def init_latents(self, image: Float[Tensor, "c h w"], generator: torch.Generator) -> Float[Tensor, "c h w"]:
        """Frame similarity prior (the paper's equation 7): ``M image + (1 - M) blurred(image)``.

        Each value of M is 1 with probability ``keep`` and otherwise 0.
        """
        mask = (torch.rand(image.shape, generator=generator) < self.keep).to(image.device)
        return torch.where(mask, image, blurred(image, self.blur))


class FirstFrameAttention(nn.Module):
    """``Attention(X W'_Q, K_1, V_1) W'_O``, where K_1 and V_1 are the self-attention's of the first frame."""

    def __init__(self, attention: Any, channels: int, clips: CurrentClips) -> None:
        super().__init__()
        self.heads, self.clips = attention.heads, clips
        inner = inner_width(attention)
        self.query = nn.Linear(channels, inner, bias=False)
        self.query.weight = nn.Parameter(query_weight(attention).detach().clone())
        self.out = zero_init(nn.Linear(inner, channels))

    def forward(self, attention: Any, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
        """The summand for the output of ``attention``, computed with its projections."""
        clips = self.clips.now
        video = rearrange(x, "(b f) l c -> b f l c", f=clips.frames)
        first = video[torch.arange(len(video), device=x.device), clips.first]
        k, v = (heads_of(tokens, self.heads) for tokens in keys_values(attention, first))
        q = rearrange(self.query(video), "b f l (h d) -> b h (f l) d", h=self.heads)
        out = attend(q, k, v)
        out = self.out(rearrange(out, "b h (f l) d -> b f l (h d)", f=clips.frames))
        out = torch.where(clips.has_first[:, None, None, None], out, 0.0)
        return rearrange(out, "b f l c -> (b f) l c")

    def after(self, attention: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A forward hook of the self-attention."""
        return out + self(attention, args[0])


def blurred(image: Float[Tensor, "c h w"], kernel: int) -> Float[Tensor, "c h w"]:
    """Gaussian blur of ``kernel`` pixels (fewer on a small map) with a deviation of 18, with mirrored borders."""
    out = image
    for axis in (1, 2):
        size = min(kernel, 2 * image.shape[axis] - 1)
        offsets = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
        weight = torch.exp(-0.5 * (offsets / _SIGMA).square())
        weight = (weight / weight.sum()).reshape(1, 1, *((size, 1) if axis == 1 else (1, size)))
        pad = (0, 0, size // 2, size // 2) if axis == 1 else (size // 2, size // 2, 0, 0)
        out = F.conv2d(F.pad(out[:, None], pad, mode="reflect"), weight)[:, 0]
    return out
