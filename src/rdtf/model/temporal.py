"""Layers that mix the frames of a clip: temporal attention, and the paper's spatial-temporal interaction layer.

All of them read the clip's :class:`~rdtf.model.time_axis.TimeAxis`, ignore padded frames and start as the identity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rdtf.model.layers import Conv3x3, FeedForward, LayerNorm, Norm, PositionCode, SelfAttention, make_norm, zero_init
from rdtf.model.time_axis import MAX_FRAMES, TimeAxis


class RelativeTime(nn.Module):
    """A learned attention bias for each head and each distance in frames. Attention alone does not see frame order."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(2 * MAX_FRAMES - 1, heads).mul_(0.02))

    def forward(self, axis: TimeAxis) -> Float[Tensor, "b heads f f"]:
        """The bias, with -inf for padded keys."""
        # A one-hot product: its backward pass is a matrix product instead of a slow scatter.
        index = F.one_hot(axis.offset, 2 * MAX_FRAMES - 1).to(self.table.dtype)
        return rearrange(index @ self.table, "b i j h -> b h i j") + axis.key_bias[:, None, None, :]


class TemporalTransformer(nn.Module):
    """Self-attention over the frames at each pixel of the map, then a feed-forward layer."""

    def __init__(self, channels: int, head_dim: int, norm: Norm, ff_multiple: int, heads: int | None = None) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels)
        self.proj_in = nn.Linear(channels, channels)
        self.norm1, self.attention = LayerNorm(channels), SelfAttention(channels, head_dim, heads)
        self.relative = RelativeTime(self.attention.heads)
        self.norm2, self.feed_forward = LayerNorm(channels), FeedForward(channels, ff_multiple)
        self.proj_out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "n c h w"], axis: TimeAxis) -> Float[Tensor, "n c h w"]:
        """``n = b * f``; shape kept."""
        (_, _, height, width), f = x.shape, axis.frames
        tokens = self.proj_in(rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=f))
        bias = self.relative(axis).repeat_interleave(height * width, 0)
        tokens = tokens + self.attention(self.norm1(tokens), bias)
        tokens = tokens + self.feed_forward(self.norm2(tokens))
        return x + rearrange(self.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)


class TemporalConv(nn.Module):
    """Convolution over time with the kernel (3, 1, 1).

    Neighbours come from the time axis, so circular clips wrap and padding never enters.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * c_in, c_out)

    def forward(self, x: Float[Tensor, "n h w c"], axis: TimeAxis) -> Float[Tensor, "n h w d"]:
        """``n = b * f``, channels last."""
        f = axis.frames
        flat = rearrange(x, "(b f) h w c -> b f (h w c)", f=f)
        before, after = rearrange(
            axis.shift.to(x.dtype) @ flat,
            "b (two f) (h w c) -> two (b f) h w c",
            two=2,
            h=x.shape[1],
            w=x.shape[2],
        )
        return self.linear(torch.cat([before, x, after], -1))


class SpatialTemporalInteraction(nn.Module):
    """STI layer (paper, section on the discrete frame generation network; sizes in its Table 6).

    The detail branch is two temporal convolutions with the kernel (3, 1, 1). The semantic branch is self-attention (8
    heads of 32) over all pixels of all frames of the pooled map, whose sides are halved in the paper. An MLP computes
    the weights of their sum, which is then normalised.

    Where the paper is silent: the detail branch is a bottleneck of ``channels / 4``; the attention has a position code
    and relative frame positions; the weights are a softmax computed from both branches' means over the clip; the result
    is added as a residual whose norm starts with weight 0.
    """

    def __init__(self, channels: int, head_dim: int, heads: int, pool: int, norm: Norm) -> None:
        super().__init__()
        self.pool = pool
        self.norm_in = make_norm(norm, channels)
        self.detail1 = TemporalConv(channels, channels // 4)
        self.detail2 = TemporalConv(channels // 4, channels)
        self.position = PositionCode(channels)
        self.norm_semantic = LayerNorm(channels)
        self.semantic = SelfAttention(channels, head_dim, heads)
        self.relative = RelativeTime(heads)
        self.fusion = nn.Sequential(nn.Linear(2 * channels, channels // 4), nn.SiLU(), nn.Linear(channels // 4, 2))
        self.norm_out = zero_init(make_norm(norm, channels))

    def forward(self, x: Float[Tensor, "n c h w"], axis: TimeAxis) -> Float[Tensor, "n c h w"]:
        """``n = b * f``; shape kept."""
        h = self.norm_in(x)
        detail, semantic = self._detail(h, axis), self._semantic(h, axis)
        clip_means = [_mean_over_clip(branch, axis) for branch in (detail, semantic)]
        weights = self.fusion(torch.cat(clip_means, -1)).softmax(-1).repeat_interleave(axis.frames, 0)
        w_detail, w_semantic = weights[..., None, None, None].unbind(1)
        return x + self.norm_out(w_detail * detail + w_semantic * semantic)

    def _detail(self, h: Tensor, axis: TimeAxis) -> Tensor:
        out = self.detail2(F.silu(self.detail1(h.permute(0, 2, 3, 1), axis)), axis)
        return out.permute(0, 3, 1, 2)

    def _semantic(self, h: Tensor, axis: TimeAxis) -> Tensor:
        f, size = axis.frames, h.shape[-2:]
        small = F.avg_pool2d(h, min(self.pool, *size), ceil_mode=True)
        small = small + self.position(small)
        tokens = rearrange(small, "(b f) c h w -> b (f h w) c", f=f)
        tokens = tokens + self.semantic(self.norm_semantic(tokens), by_frame=self.relative(axis))
        small = rearrange(tokens, "b (f h w) c -> (b f) c h w", f=f, h=small.shape[2])
        return F.interpolate(small, size=size, mode="nearest")


class PlainConvolution(nn.Module):
    """Two 3x3x3 convolutions instead of the STI layer: the "3-D convolution" of the paper's ablation.

    As in the STI layer, it has a bottleneck of ``channels / 4`` and a residual whose norm starts with weight 0.
    Neighbours come from the time axis, so circular clips wrap and padding never enters.
    """

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm_in = make_norm(norm, channels)
        self.conv1 = Conv3x3(3 * channels, channels // 4)
        self.conv2 = Conv3x3(3 * (channels // 4), channels)
        self.norm_out = zero_init(make_norm(norm, channels))

    def forward(self, x: Float[Tensor, "n c h w"], axis: TimeAxis) -> Float[Tensor, "n c h w"]:
        """``n = b * f``; shape kept."""
        h = F.silu(self.conv1(_with_neighbours(self.norm_in(x), axis)))
        return x + self.norm_out(self.conv2(_with_neighbours(h, axis)))


def _with_neighbours(x: Float[Tensor, "n c h w"], axis: TimeAxis) -> Float[Tensor, "n 3*c h w"]:
    """The previous frame, the frame and the next frame, concatenated; zeros where there is no neighbour."""
    f, (channels, height, width) = axis.frames, x.shape[1:]
    flat = rearrange(x, "(b f) c h w -> b f (h w c)", f=f)
    before, after = rearrange(
        axis.shift.to(x.dtype) @ flat,
        "b (two f) (h w c) -> two (b f) c h w",
        two=2,
        c=channels,
        h=height,
        w=width,
    )
    return torch.cat([before, x, after], 1).contiguous(memory_format=torch.channels_last)


def _mean_over_clip(x: Float[Tensor, "n c h w"], axis: TimeAxis) -> Float[Tensor, "b c"]:
    """Mean over the pixels and the existing frames of each clip."""
    frames = rearrange(x.mean((2, 3)), "(b f) c -> b f c", f=axis.frames)
    share = axis.valid.to(frames.dtype) / axis.valid.sum(1, keepdim=True)
    return (share[:, None] @ frames).squeeze(1)
