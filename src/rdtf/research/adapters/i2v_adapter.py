"""I2V-Adapter (arXiv 2312.16693): every frame attends to the first frame."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rdtf.model.adapter import Adapter
from rdtf.model.layers import SelfAttention, attend, zero_init
from rdtf.research.adapters.clip_context import CurrentClips
from rdtf.research.adapters.networks import heads_of, inner_width, keys_values, query_weight, transformers


class I2VAdapter(Adapter):
    """Adds an attention to the first frame to every spatial self-attention.

    Keys and values come from the frozen projections. The query projection starts as a copy of the self-attention's, and
    the output projection at zero; these two are trained. The frame is the first given one, and clips without given
    frames do not change.
    """

    name = "i2v-adapter"

    def inject(self) -> None:
        """Add an attention to the first frame to each self-attention."""
        clips = CurrentClips(self.network)
        for block, width in transformers(self.network):
            adapter = FirstFrameAttention(block.self_attention, width, clips)
            block.self_attention.add_module("first_frame", adapter)
            block.self_attention.register_forward_hook(adapter.after)


class FirstFrameAttention(nn.Module):
    """``Attention(X W'_Q, K_1, V_1) W'_O``, where K_1 and V_1 are the self-attention's of the first frame."""

    def __init__(self, attention: SelfAttention, channels: int, clips: CurrentClips) -> None:
        super().__init__()
        self.heads, self.clips = attention.heads, clips
        inner = inner_width(attention)
        self.query = nn.Linear(channels, inner, bias=False)
        self.query.weight = nn.Parameter(query_weight(attention).detach().clone())
        self.out = zero_init(nn.Linear(inner, channels))

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
