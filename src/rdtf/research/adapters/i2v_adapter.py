"""I2V-Adapter (arXiv 2312.16693): every frame attends to the first frame. With its frame similarity prior."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import SelfAttention, attend, zero_init
from rdtf.research.adapters.networks import CurrentClips, heads_of, keys_values, query_weight, transformers

BLUR, SIGMA = 9, 18.0
"""Kernel and deviation of the prior's blur in pixels of the latents; it is almost a mean over the kernel."""


class I2VAdapter(Adapter):
    """Adds an attention to the first frame to every spatial self-attention.

    Keys and values come from the frozen projections. The query projection starts as a copy of the self-attention's, and
    the output projection at zero; these two are trained. The frame is the first given one, and clips without given
    frames do not change.

    Args:
        keep: fraction of the picture that stays sharp in the frame similarity prior, see :meth:`init_latents`.
        start: noise level at which sampling starts (1 as in the release, where the flow path has pure noise).

    Raises:
        ValueError: an option out of range.
    """

    name = "i2v-adapter"

    def __init__(self, network: nn.Module, keep: float = 0.5, start: float = 1.0) -> None:
        if not (0 <= keep <= 1 and 0 < start <= 1):
            raise ValueError(f"i2v-adapter: keep lies in 0..1 and start above 0, up to 1; not {keep} and {start}")
        self.keep, self.start = keep, start
        super().__init__(network)

    def inject(self) -> None:
        """Add an attention to the first frame to each self-attention."""
        clips = CurrentClips(self.network)
        for block, width in transformers(self.network):
            adapter = FirstFrameAttention(block.self_attention, width, clips)
            block.self_attention.add_module("first_frame", adapter)
            block.self_attention.register_forward_hook(adapter.after)

    def init_latents(self, image: Float[Tensor, "c h w"], generator: torch.Generator) -> Float[Tensor, "c h w"]:
        """Frame similarity prior (the paper's equation 7): ``M image + (1 - M) blurred(image)``.

        Each value of M is 1 with probability ``keep`` and otherwise 0.
        """
        mask = (torch.rand(image.shape, generator=generator) < self.keep).to(image.device)
        return torch.where(mask, image, blurred(image))


def blurred(image: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """Gaussian blur over :data:`BLUR` pixels (fewer on a small map), with mirrored borders."""
    reach = min(BLUR // 2, min(image.shape[1:]) - 1)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(image) / SIGMA).square())
    kernel = torch.outer(weight, weight) / weight.sum().square()
    return F.conv2d(F.pad(image[:, None], [reach] * 4, mode="reflect"), kernel[None, None])[:, 0]


class FirstFrameAttention(nn.Module):
    """``Attention(X W'_Q, K_1, V_1) W'_O``, where K_1 and V_1 are the self-attention's of the first frame."""

    def __init__(self, attention: SelfAttention, channels: int, clips: CurrentClips) -> None:
        super().__init__()
        self.heads, self.clips = attention.heads, clips
        weight = query_weight(attention)
        self.query = nn.Linear(channels, len(weight), bias=False)
        self.query.weight = nn.Parameter(weight.detach().clone())
        self.out = zero_init(nn.Linear(len(weight), channels))

    def forward(self, attention: SelfAttention, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l c"]:
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

    def after(self, attention: SelfAttention, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A forward hook of the self-attention."""
        return out + self(attention, args[0])
