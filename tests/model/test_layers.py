from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rdtf.model.layers import (
    Conv3x3,
    CrossAttention,
    PositionCode,
    ResBlock,
    SelfAttention,
    SpatialTransformer,
    attend,
    attend_by_frame,
    make_norm,
)
from tests.conftest import awaken

NO_BIAS = torch.zeros(1, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_attention_is_pytorchs(dtype: torch.dtype, with_bias: bool):
    q, k, v = torch.randn(3, 2, 2, 5, 8).to(dtype)
    bias = torch.randn(2, 1, 5, 5) if with_bias else None
    if bias is not None:
        bias[:, :, :, 3:] = float("-inf")
    expected = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), bias if bias is None else bias.double()
    )
    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    assert attend(q, k, v, bias).dtype == dtype
    assert torch.allclose(attend(q, k, v, bias).double(), expected, atol=tolerance)


@pytest.mark.parametrize(("frames", "places"), [(1, 4), (3, 5), (8, 64), (9, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bias_of_frames_is_that_of_all_their_places(frames: int, places: int, dtype: torch.dtype):
    length = frames * places
    inputs = [torch.randn(2, 3, length, 8, requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 3, frames, frames, requires_grad=True)
    hidden = torch.zeros(2, 1, 1, frames).masked_fill(torch.arange(frames) >= max(1, frames - 1), float("-inf"))
    spread = (bias + hidden).repeat_interleave(places, 2).repeat_interleave(places, 3)
    expected = F.scaled_dot_product_attention(*inputs, spread)
    out = attend_by_frame(*(x.to(dtype) for x in inputs), bias + hidden)
    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    assert out.dtype == dtype
    assert torch.allclose(out.float(), expected, atol=tolerance)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((x * weights).sum(), [*inputs, bias]) for x in (out.float(), expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=10 * tolerance * max(1.0, float(theirs.abs().max())))


def test_hidden_frames_are_not_attended_to_at_all():
    q, k, v = torch.randn(3, 1, 2, 12, 8)
    bias = torch.zeros(1, 2, 3, 3)
    bias[..., 2] = float("-inf")
    out = attend_by_frame(q, k, v, bias)
    k[:, :, 8:], v[:, :, 8:] = 1e3, 1e3
    assert torch.equal(out, attend_by_frame(q, k, v, bias))


def test_norms():
    x = torch.randn(3, 8, 4, 5) * 4 + 2
    channel = make_norm("channel", 8)(x)
    assert torch.allclose(channel.mean(1), torch.zeros(3, 4, 5), atol=1e-5)
    assert torch.allclose(channel.std(1, correction=0), torch.ones(3, 4, 5), atol=1e-3)
    group = make_norm("group", 48)
    assert isinstance(group, nn.GroupNorm)
    assert 48 % group.num_groups == 0
    with pytest.raises(ValueError, match=r"batch.*group or channel"):
        make_norm("batch", 8)


@pytest.mark.parametrize("norm", ["group", "channel"])
def test_frames_do_not_meet_in_a_residual_block(norm: str):
    block = awaken(ResBlock(8, 12, 16, norm))
    x, embedding = torch.randn(6, 8, 4, 5), torch.randn(2, 16)
    changed = x.clone()
    changed[2] = 1e6
    before, after = block(x, embedding), block(changed, embedding)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(before[others], after[others])
    assert before.shape == (6, 12, 4, 5)
    alone = block(x[3:], embedding[1:])  # three frames share their clip's embedding
    assert torch.allclose(alone, before[3:], atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "channel"])
def test_fresh_blocks_are_their_shortcut(norm: str):
    x = torch.randn(4, 8, 3, 3)
    assert torch.equal(ResBlock(8, 8, 16, norm)(x, torch.randn(2, 16)), x)
    transformer = SpatialTransformer(8, 4, 6, norm, 2)
    kv = transformer.cross_attention.keys_values(torch.randn(1, 5, 6))
    assert torch.equal(transformer(x, kv, NO_BIAS), x)


@pytest.mark.parametrize("norm", ["group", "channel"])
def test_frames_do_not_meet_in_a_spatial_transformer(norm: str):
    layer = awaken(SpatialTransformer(8, 4, 6, norm, 2))
    x, kv = torch.randn(4, 8, 3, 5), layer.cross_attention.keys_values(torch.randn(2, 5, 6))
    bias = torch.zeros(2, 5)
    changed = x.clone()
    changed[1] = 1e6
    before, after = layer(x, kv, bias), layer(changed, kv, bias)
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])


def test_padded_text_is_invisible():
    layer = awaken(SpatialTransformer(8, 4, 6, "channel", 2))
    states = torch.randn(1, 5, 6)
    x = torch.randn(3, 8, 4, 4)
    padded = torch.cat([states, torch.full((1, 3, 6), 1e6)], 1)
    hidden = torch.zeros(1, 8).masked_fill(torch.arange(8) >= 5, float("-inf"))
    attention = layer.cross_attention
    assert torch.allclose(
        layer(x, attention.keys_values(states), NO_BIAS), layer(x, attention.keys_values(padded), hidden), atol=1e-5
    )


def test_each_clip_reads_its_own_text():
    layer = awaken(CrossAttention(8, 4, 6))
    states, x = torch.randn(2, 5, 6), torch.randn(6, 9, 8)
    both = layer(x, layer.keys_values(states), torch.zeros(2, 5))
    for clip in range(2):
        alone = layer(x[3 * clip : 3 * clip + 3], layer.keys_values(states[clip : clip + 1]), NO_BIAS)
        assert torch.allclose(both[3 * clip : 3 * clip + 3], alone, atol=1e-6)


def test_self_attention_bias_hides_keys():
    layer = awaken(SelfAttention(8, 4))
    x = torch.randn(2, 5, 8)
    bias = torch.zeros(5).masked_fill(torch.arange(5) >= 3, float("-inf"))
    changed = x.clone()
    changed[:, 3:] = 1e6
    assert torch.allclose(layer(x, bias)[:, :3], layer(x[:, :3]), atol=1e-5)
    assert torch.equal(layer(x, bias)[:, :3], layer(changed, bias)[:, :3])


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8)])
def test_position_code_tells_places_apart(size: tuple[int, int]):
    code = awaken(PositionCode(12))(torch.zeros(1, 12, *size))
    places = code.flatten(2)[0].T
    assert places.shape == (size[0] * size[1], 12)
    assert (torch.cdist(places, places) + 9 * torch.eye(len(places))).min() > 0.05


@pytest.mark.parametrize("size", [(4, 4), (8, 3)])
def test_a_convolution_with_more_weights_than_pixels_is_the_same(size: tuple[int, int], monkeypatch):
    layer = Conv3x3(360, 336).to(memory_format=torch.channels_last)
    x = torch.randn(6, 360, *size).to(memory_format=torch.channels_last)
    outcomes = []
    for many in (1 << 20, 1 << 62):  # the second time as always
        monkeypatch.setattr("rdtf.model.layers._MANY_WEIGHTS", many)
        layer.zero_grad()
        mine = x.clone().requires_grad_()
        out = layer(mine)
        out.square().sum().backward()
        outcomes.append((out.detach(), mine.grad, layer.weight.grad, layer.bias.grad))
    assert outcomes[0][0].is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(outcomes[0][0], outcomes[1][0])  # otherwise it was not another way
    for one, other in zip(*outcomes, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-3)
    monkeypatch.setattr("rdtf.model.layers._MANY_WEIGHTS", 1 << 20)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x)
    assert low.dtype == torch.bfloat16
    assert (low - outcomes[0][0]).abs().max() < 0.05
