"""Every layer that mixes frames: padding is invisible, time is circular only where asked, order is visible."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from rdtf.model.dfgn import ConditionPath, Level
from rdtf.model.layers import ResBlock
from rdtf.model.temporal import (
    PlainConvolution,
    RelativeTime,
    SpatialTemporalInteraction,
    TemporalConv,
    TemporalTransformer,
)
from rdtf.model.time_axis import TimeAxis, make_time_axis
from tests.conftest import awaken

C, SIZE = 16, (5, 4)  # an odd height: the STI layer pools it unevenly
EMBEDDING, TEXT = 12, 6


def _plain(layer: nn.Module) -> Callable:
    return lambda x, axis, loop: layer(x, axis)


def _temporal_conv(norm: str):
    layer = TemporalConv(C, C)
    return layer, lambda x, axis, loop: layer(x.permute(0, 2, 3, 1), axis).permute(0, 3, 1, 2)


def _temporal_transformer(norm: str):
    layer = TemporalTransformer(C, 8, norm, 2)
    return layer, _plain(layer)


def _sti(norm: str, pool: int = 2):
    layer = SpatialTemporalInteraction(C, 8, 2, pool, norm)
    return layer, _plain(layer)


def _plain_convolution(norm: str):
    layer = PlainConvolution(C, norm)
    return layer, _plain(layer)


def _residual(norm: str):
    layer = ResBlock(C, C, EMBEDDING, norm)
    return layer, lambda x, axis, loop: layer(x, torch.ones(len(axis.valid), EMBEDDING))


def _level(norm: str):
    layer = Level(C, C, EMBEDDING, TEXT, 8, 2, 2, 2, norm, True)

    def run(x: Tensor, axis: TimeAxis, loop: Tensor) -> Tensor:
        b = len(axis.valid)
        kv = layer.spatial.cross_attention.keys_values(torch.linspace(-1, 1, 3 * TEXT).view(1, 3, TEXT).repeat(b, 1, 1))
        return layer(x, torch.ones(b, EMBEDDING), axis, kv, torch.zeros(b, 3))

    return layer, run


def _condition(norm: str):
    layer = ConditionPath(C, 16, 16, norm, True, True, True)

    def run(x: Tensor, axis: TimeAxis, loop: Tensor) -> Tensor:
        # The network hands it zeros where a frame is unknown; every existing frame but the second is known here.
        known = axis.valid & (torch.arange(axis.frames) != 1)
        video = rearrange(x, "(b f) c h w -> b c f h w", f=axis.frames)
        maps, blend = layer(torch.where(known[:, None, :, None, None], video, 0.0), known, axis, loop)
        return maps + rearrange(blend, "b c f h w -> (b f) c h w")

    return layer, run


LAYERS = {
    "TemporalConv": _temporal_conv,
    "TemporalTransformer": _temporal_transformer,
    "SpatialTemporalInteraction": _sti,
    "PlainConvolution": _plain_convolution,
    "ResBlock": _residual,
    "Level": _level,
    "ConditionPath": _condition,
}
NORMS = ("group", "channel")
every_layer = pytest.mark.parametrize("kind", LAYERS)
every_norm = pytest.mark.parametrize("norm", NORMS)
looping = pytest.mark.parametrize("loops", [False, True], ids=["linear", "circular"])


def build(kind: str, norm: str = "channel") -> tuple[nn.Module, Callable]:
    layer, run = LAYERS[kind](norm)
    return awaken(layer), run


def apply(run: Callable, video: Tensor, lengths: list[int], loops: bool) -> Tensor:
    """Run on ``b c f h w``; the same comes back."""
    f = video.shape[2]
    loop = torch.full((len(lengths),), loops)
    axis = make_time_axis(torch.arange(f) < torch.tensor(lengths)[:, None], loop)
    out = run(rearrange(video, "b c f h w -> (b f) c h w"), axis, loop)
    return rearrange(out, "(b f) c h w -> b c f h w", f=f)


@every_layer
@every_norm
@looping
def test_garbage_in_padding_changes_nothing(kind: str, norm: str, loops: bool):
    layer, run = build(kind, norm)
    lengths = [3, 8, 1]
    real = torch.arange(8) < torch.tensor(lengths)[:, None]
    video = torch.randn(3, C, 8, *SIZE)

    def outputs_and_gradients(filling: float) -> tuple[Tensor, list[Tensor]]:
        filled = torch.where(real[:, None, :, None, None], video, filling).requires_grad_()
        out = apply(run, filled, lengths, loops)
        kept = out.movedim(1, 2)[real]
        layer.zero_grad()
        (kept * torch.linspace(-1, 1, kept.numel()).view_as(kept)).sum().backward()
        gradients = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
        return kept, [filled.grad.movedim(1, 2)[real], *gradients]

    (clean, clean_gradients), (dirty, dirty_gradients) = outputs_and_gradients(0.0), outputs_and_gradients(1e6)
    assert clean.abs().max() > 0.1
    assert torch.allclose(clean, dirty, atol=1e-5)
    assert len(clean_gradients) == len(dirty_gradients) > 1
    for a, b in zip(clean_gradients, dirty_gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4), (a - b).abs().max()


@every_layer
@every_norm
@looping
def test_a_padded_clip_in_company_is_the_clip_alone(kind: str, norm: str, loops: bool):
    _, run = build(kind, norm)
    clips = [torch.randn(1, C, length, *SIZE) for length in (3, 8, 1, 5)]
    lengths = [clip.shape[2] for clip in clips]
    padded = torch.cat([torch.cat([clip, torch.zeros(1, C, 8 - clip.shape[2], *SIZE)], 2) for clip in clips])
    together = apply(run, padded, lengths, loops)
    for i, (clip, length) in enumerate(zip(clips, lengths, strict=True)):
        alone = apply(run, clip, [length], loops)
        assert torch.allclose(together[i : i + 1, :, :length], alone, atol=1e-4)  # a group norm magnifies rounding


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in ("ResBlock", "ConditionPath")])
def test_rotating_a_circular_clip_rotates_the_output(kind: str):
    _, run = build(kind)
    video = torch.randn(2, C, 8, *SIZE)
    lengths = [6, 6]

    def rotated(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :6].roll(2, 2), x[:, :, 6:]], 2)

    circular = [apply(run, x, lengths, True)[:, :, :6] for x in (video, rotated(video))]
    assert torch.allclose(circular[0].roll(2, 2), circular[1], atol=1e-5)
    linear = [apply(run, x, lengths, False)[:, :, :6] for x in (video, rotated(video))]
    assert (linear[0].roll(2, 2) - linear[1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["TemporalConv", "TemporalTransformer", "SpatialTemporalInteraction", "Level"])
@looping
def test_frame_order_is_visible(kind: str, loops: bool):
    _, run = build(kind)
    video, order = torch.randn(1, C, 5, *SIZE), [3, 0, 4, 1, 2]
    shuffled = apply(run, video[:, :, order], [5], loops)
    assert (apply(run, video, [5], loops)[:, :, order] - shuffled).abs().max() > 0.01
    backwards = apply(run, video.flip(2), [5], loops).flip(2)
    assert (apply(run, video, [5], loops) - backwards).abs().max() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind != "ResBlock"])
@looping
def test_frames_see_each_other(kind: str, loops: bool):
    _, run = build(kind)
    video = torch.randn(1, C, 4, *SIZE)
    changed = video.clone()
    changed[:, :, 0] = torch.randn(1, C, *SIZE)
    difference = (apply(run, video, [4], loops) - apply(run, changed, [4], loops)).abs().amax((0, 1, 3, 4))
    assert difference[1] > 1e-3
    assert (difference[3] > 1e-4) == (loops or "Conv" not in kind)  # convolutions reach one frame each


@every_norm
@pytest.mark.parametrize("make", [_temporal_transformer, _sti, _plain_convolution])
def test_fresh_layers_are_the_identity(make: Callable, norm: str):
    _, run = make(norm)
    video = torch.randn(2, C, 4, *SIZE)
    assert torch.equal(apply(run, video, [4, 2], False), video)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (8, 8)])
@pytest.mark.parametrize("pool", [1, 2, 4])
def test_sti_takes_any_map(size: tuple[int, int], pool: int):
    layer, run = _sti("channel", pool)
    awaken(layer)
    out = apply(run, torch.randn(2, C, 3, *size), [3, 2], False)
    assert out.shape == (2, C, 3, *size)
    assert out.isfinite().all()


def test_temporal_conv_is_a_convolution_of_kernel_3_1_1():
    layer, run = build("TemporalConv")
    convolution = nn.Conv3d(C, C, (3, 1, 1), padding=(1, 0, 0))
    with torch.no_grad():
        convolution.weight.copy_(rearrange(layer.linear.weight, "d (k c) -> d c k 1 1", k=3))
        convolution.bias.copy_(layer.linear.bias)
    video = torch.randn(2, C, 6, *SIZE)
    assert torch.allclose(apply(run, video, [6, 6], False), convolution(video), atol=1e-5)


def test_a_plain_convolution_is_two_of_kernel_3():
    layer, run = build("PlainConvolution")
    convolutions = []
    for conv in (layer.conv1, layer.conv2):
        other = nn.Conv3d(conv.in_channels // 3, conv.out_channels, 3, padding=1)
        with torch.no_grad():
            other.weight.copy_(rearrange(conv.weight, "d (k c) h w -> d c k h w", k=3))
            other.bias.copy_(conv.bias)
        convolutions.append(other)
    video = torch.randn(2, C, 6, *SIZE)

    def by_frame(norm: nn.Module, x: Tensor) -> Tensor:
        return rearrange(norm(rearrange(x, "b c f h w -> (b f) c h w")), "(b f) c h w -> b c f h w", f=6)

    hidden = convolutions[1](nn.functional.silu(convolutions[0](by_frame(layer.norm_in, video))))
    expected = video + by_frame(layer.norm_out, hidden)
    torch.testing.assert_close(apply(run, video, [6, 6], False), expected, atol=1e-5, rtol=1e-5)


def test_relative_bias_depends_on_distance_alone():
    bias = RelativeTime(3)(make_time_axis(torch.ones(1, 6, dtype=torch.bool)))
    assert bias.shape == (1, 3, 6, 6)
    for offset in range(-5, 6):
        diagonal = bias.diagonal(offset, 2, 3)
        assert torch.equal(diagonal, diagonal[..., :1].expand_as(diagonal))
    assert len(bias[0, 0].unique()) == 11  # before and after differ
