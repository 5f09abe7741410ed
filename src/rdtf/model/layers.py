"""Building blocks of the DFGN that work on single frames, and attention.

Hidden maps are ``(b f) c h w`` in channels-last memory, so a view of them as tokens costs nothing.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Norm = str  # "group" (32 groups a frame, as in the paper) or "channel" (each pixel's channels; faster on a CPU)


def zero_init(layer: nn.Module) -> nn.Module:
    """Zero a layer's parameters, so that a new residual block that ends in this layer is the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel of ``n c h w``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; shape kept."""
        return layer_norm(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of tokens ``... c`` that keeps their precision."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; shape kept."""
        return layer_norm(x, self.weight, self.bias)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm over the last axis, in the precision of ``x``.

    Autocast would return fp32 for bf16. All operations up to the next product would then move twice the memory, which
    is most of a small network's time. Means and deviations are computed in fp32 either way.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, weight.shape, weight.to(x.dtype), bias.to(x.dtype), 1e-5)


def make_norm(kind: Norm, channels: int) -> nn.Module:
    """A norm over single frames, which depends on no other frame and on no padding."""
    if kind == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels, eps=1e-5)
    if kind == "channel":
        return ChannelNorm(channels)
    raise ValueError(f"unknown norm {kind!r}; choose group or channel")


_MANY_WEIGHTS = 1 << 20  # more than a core's cache holds


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with "same" padding.

    On a CPU, oneDNN reorders the weights at each call. With many weights and few pixels this takes most of the time,
    and a matrix product of the patches is two to ten times as fast.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 3, stride, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d p q"]:
        """Convolve."""
        pixels = x.numel() // self.in_channels
        few = pixels <= self.in_channels and self.weight.numel() >= _MANY_WEIGHTS
        if x.device.type == "cpu" and few and self.stride == (1, 1):
            return self._by_patches(x)
        return super().forward(x)

    def _by_patches(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        height, width = x.shape[-2:]
        framed = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        patches = torch.cat([framed[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)
        return F.linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias).permute(0, 3, 1, 2)


FEW_KEYS = 2048


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, scale: float | None = None) -> Tensor:
    """Attention over ``(..., heads, length, head_dim)`` with an additive bias that broadcasts to the scores.

    On a CPU, PyTorch's fused attention is slower than plain matrix products if there is a bias: it searches the bias
    for queries without a key, and here every query has a key. Its backward pass in bf16 is slower too, until the table
    of all pairs, which it avoids, gets large.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    trains = torch.is_grad_enabled() and q.requires_grad
    if q.device.type == "cpu" and (
        bias is not None or (trains and q.dtype == torch.bfloat16 and k.shape[-2] <= FEW_KEYS)
    ):
        scores = q @ (k * scale).transpose(-1, -2)
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        return scores.softmax(-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype), scale=scale)


def attend_by_frame(
    q: Float[Tensor, "b heads l d"],
    k: Float[Tensor, "b heads l d"],
    v: Float[Tensor, "b heads l d"],
    bias: Float[Tensor, "b heads f f"],
) -> Float[Tensor, "b heads l d"]:
    """Attention over ``f`` frames of ``l / f`` tokens each, with a bias for each pair of frames.

    The bias becomes extra channels: a query has the bias to each frame, a key has a one-hot code of its frame, and
    their product is the bias. This avoids a bias table of all pairs of tokens, which would take most of the layer's
    time and memory.
    """
    f, places = bias.shape[-1], q.shape[-2] // bias.shape[-1]
    width = -(-f // 8) * 8  # kernels are fastest for multiples of 8
    # Hidden keys get a large negative number: the weight underflows to 0, and -inf * 0 = NaN cannot occur.
    towards = F.pad(bias.clamp_min(-3e4), (0, width - f)).to(q.dtype).repeat_interleave(places, 2)
    own = torch.eye(f, width, dtype=k.dtype, device=k.device).repeat_interleave(places, 0)
    q, k = torch.cat([q * q.shape[-1] ** -0.5, towards], -1), torch.cat([k, own.expand(*k.shape[:2], -1, -1)], -1)
    return attend(q, k, F.pad(v, (0, width)), scale=1.0)[..., : v.shape[-1]]


class SelfAttention(nn.Module):
    """Multi-head self-attention over ``n l c`` with an optional additive bias; no residual inside."""

    def __init__(self, channels: int, head_dim: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads or max(1, channels // head_dim)
        inner = self.heads * head_dim
        self.qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.out = nn.Linear(inner, channels)

    def forward(
        self, x: Float[Tensor, "n l c"], bias: Tensor | None = None, by_frame: Tensor | None = None
    ) -> Float[Tensor, "n l c"]:
        """Attend; ``bias`` broadcasts to ``n heads l l``, ``by_frame`` is as in :func:`attend_by_frame`."""
        q, k, v = rearrange(self.qkv(x), "n l (three h d) -> three n h l d", three=3, h=self.heads)
        out = attend(q, k, v, bias) if by_frame is None else attend_by_frame(q, k, v, by_frame)
        return self.out(rearrange(out, "n h l d -> n l (h d)"))


class CrossAttention(nn.Module):
    """Attention to the caption. All frames and sampling steps of a clip share their keys and values."""

    def __init__(self, channels: int, head_dim: int, text_width: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_dim)
        inner = self.heads * head_dim
        self.q = nn.Linear(channels, inner, bias=False)
        self.kv = nn.Linear(text_width, 2 * inner, bias=False)
        self.out = nn.Linear(inner, channels)

    def keys_values(self, text: Float[Tensor, "b l w"]) -> Float[Tensor, "2 b heads l d"]:
        """Project the text states."""
        return rearrange(self.kv(text), "b l (two h d) -> two b h l d", two=2, h=self.heads)

    def forward(
        self, x: Float[Tensor, "n l c"], kv: Float[Tensor, "2 b heads m d"], text_bias: Float[Tensor, "b m"]
    ) -> Float[Tensor, "n l c"]:
        """Attend from ``n = b * f`` maps of ``l`` pixels to their clip's text; ``text_bias`` is -inf on padding."""
        b = kv.shape[1]
        q = rearrange(self.q(x), "(b f) l (h d) -> b h (f l) d", b=b, h=self.heads)
        out = attend(q, kv[0], kv[1], text_bias[:, None, None, :])
        return self.out(rearrange(out, "b h (f l) d -> (b f) l (h d)", l=x.shape[1]))


class FeedForward(nn.Module):
    """Gated GELU feed-forward layer of a transformer block."""

    def __init__(self, channels: int, multiple: int) -> None:
        super().__init__()
        self.up = nn.Linear(channels, 2 * multiple * channels)
        self.down = nn.Linear(multiple * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Shape kept."""
        value, gate = self.up(x).chunk(2, -1)
        return self.down(value * F.gelu(gate))


class ResBlock(nn.Module):
    """Two 3x3 convolutions with the time embedding as a scale and shift between them."""

    def __init__(self, c_in: int, c_out: int, embedding: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.conv1 = make_norm(norm, c_in), Conv3x3(c_in, c_out)
        self.modulation = nn.Linear(embedding, 2 * c_out)
        self.norm2, self.conv2 = make_norm(norm, c_out), zero_init(Conv3x3(c_out, c_out))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "n d h w"]:
        """``n = b * f`` frames; the frames of a clip share one embedding."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(F.silu(embedding)).repeat_interleave(len(x) // len(embedding), 0).chunk(2, 1)
        h = self.norm2(h) * (1 + scale[..., None, None]) + shift[..., None, None]
        return self.skip(x) + self.conv2(F.silu(h))


class PositionCode(nn.Module):
    """A learned position code for maps of any size, from Fourier features of x and y in [-1, 1]."""

    def __init__(self, channels: int, octaves: int = 4) -> None:
        super().__init__()
        self.octaves = octaves
        self.project = nn.Linear(4 * octaves, channels)
        zero_init(self.project)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "1 c h w"]:
        """The code for a map of the size of ``x``."""
        height, width = x.shape[-2:]
        ys = torch.linspace(-1, 1, height, device=x.device)[:, None].expand(height, width)
        xs = torch.linspace(-1, 1, width, device=x.device)[None, :].expand(height, width)
        angles = torch.stack([xs, ys], -1)[..., None] * (math.pi / 2 * 2 ** torch.arange(self.octaves, device=x.device))
        features = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
        return rearrange(self.project(features.to(self.project.weight.dtype)), "h w c -> 1 c h w")


class SpatialTransformer(nn.Module):
    """Self-attention within each frame, cross-attention to the text, feed-forward; starts as the identity."""

    def __init__(self, channels: int, head_dim: int, text_width: int, norm: Norm, ff_multiple: int) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels)
        self.position = PositionCode(channels)
        self.proj_in = nn.Linear(channels, channels)
        self.norm1, self.self_attention = LayerNorm(channels), SelfAttention(channels, head_dim)
        self.norm2, self.cross_attention = (
            LayerNorm(channels),
            CrossAttention(channels, head_dim, text_width),
        )
        self.norm3, self.feed_forward = LayerNorm(channels), FeedForward(channels, ff_multiple)
        self.proj_out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "n c h w"], kv: Tensor, text_bias: Tensor) -> Float[Tensor, "n c h w"]:
        """Shape kept; ``kv`` and ``text_bias`` as in :class:`CrossAttention`."""
        h = self.proj_in(rearrange(self.norm(x) + self.position(x), "n c h w -> n (h w) c"))
        h = h + self.self_attention(self.norm1(h))
        h = h + self.cross_attention(self.norm2(h), kv, text_bias)
        h = h + self.feed_forward(self.norm3(h))
        return x + rearrange(self.proj_out(h), "n (h w) c -> n c h w", h=x.shape[2])
